//! Asks a registry over HTTP: one of several urls, with a log-in, and with sentences for what goes wrong.

use std::{fmt, fs, path::Path, sync::Arc, sync::Mutex, sync::PoisonError, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::crypto::aws_lc_rs::default_provider;
use serde_json::Value;
use ureq::{
    Agent,
    http::Request,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};

use super::{RegistryError, RegistryPlace, Secret};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Schemas of tables with a thousand columns have about 200 kB.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// See the module.
pub struct Client {
    place: RegistryPlace,
    /// Made at the first question, and anew after a failure: certificates may have been rotated.
    agent: Mutex<Option<Agent>>,
}

/// What the registry answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    place: String,
    body: String,
    json: Option<Value>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Client {
    /// Nothing is asked yet.
    pub fn new(place: RegistryPlace) -> Self {
        Self { place, agent: Mutex::default() }
    }

    /// Asks the first url that answers. An answer is also one that refuses.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<Answer, RegistryError> {
        let mut failed = None;
        for url in &self.place.urls {
            match self.ask_at(url, method, path, body) {
                Ok(answer) if answer.status == 401 || answer.status == 403 => {
                    return Err(unavailable(
                        url,
                        format!(
                            "it refuses the log-in ({}): check schema_registry_username and its password, or the token",
                            answer.status
                        ),
                    ));
                }
                Ok(answer) if answer.status < 500 && answer.status != 429 => return Ok(answer),
                Ok(answer) => failed = Some(answer.strange()),
                Err(reason) => failed = Some(unavailable(url, reason)),
            }
            *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Err(failed.unwrap_or_else(|| unavailable("", "schema_registry_url names no url".into())))
    }

    fn ask_at(
        &self,
        url: &str,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", url.trim_end_matches('/')))
            .header("Accept", format!("{CONTENT_TYPE}, application/json"));
        if body.is_some() {
            request = request.header("Content-Type", CONTENT_TYPE);
        }
        if let Some(login) = self.login()? {
            request = request.header("Authorization", login);
        }
        let request = request
            .body(body.unwrap_or_default().to_owned())
            .map_err(|error| format!("it cannot be asked ({error}); check schema_registry_url"))?;
        let mut response = self.agent()?.run(request).map_err(|error| {
            format!("{error}; check schema_registry_url and that the registry is up")
        })?;
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|error| format!("its answer breaks off: {error}"))?;
        let json = serde_json::from_str(&body).ok();
        Ok(Answer { status, place: url.to_owned(), body, json })
    }

    fn login(&self) -> Result<Option<String>, String> {
        if let Some((user, password)) = &self.place.user {
            let password = read(password, "schema_registry_password")?;
            return Ok(Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))));
        }
        let token = self.place.token.as_ref().map(|token| read(token, "schema_registry_token"));
        Ok(token.transpose()?.map(|token| format!("Bearer {token}")))
    }

    fn agent(&self) -> Result<Agent, String> {
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = &*agent {
            return Ok(agent.clone());
        }
        let mut tls =
            TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(default_provider()));
        tls = tls.root_certs(match &self.place.ca {
            Some(file) => RootCerts::from(certificates(file)?),
            None => RootCerts::PlatformVerifier,
        });
        if let Some((certificate, key)) = &self.place.certificate {
            let key = PrivateKey::from_pem(&bytes(key)?)
                .map_err(|error| format!("{} holds no private key ({error})", key.display()))?;
            let chain = certificates(certificate)?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .tls_config(tls.build())
            .build();
        Ok(agent.insert(config.into()).clone())
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{} cannot be read ({error})", file.display()))
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = bytes(file)?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(format!("{} is no PEM file ({error})", file.display())),
        }
    }
    if found.is_empty() {
        return Err(format!("{} holds no certificate", file.display()));
    }
    Ok(found)
}

fn read(secret: &Secret, key: &str) -> Result<String, String> {
    match secret {
        Secret::Environment(variable) => std::env::var(variable)
            .map_err(|_| format!("{key}_env names ${variable}, which is not set")),
        Secret::File(file) => fs::read_to_string(file)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| format!("{key}_file {} cannot be read ({error})", file.display())),
    }
}

fn unavailable(place: &str, reason: String) -> RegistryError {
    RegistryError::Unavailable { place: place.to_owned(), reason }
}

impl Answer {
    /// A number of the answer.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.json.as_ref()?.get(name)?.as_u64()?.try_into().ok()
    }

    /// A text of the answer.
    pub fn text(&self, name: &str) -> Option<String> {
        self.json.as_ref()?.get(name)?.as_str().map(str::to_owned)
    }

    /// The registry's own code of an error.
    pub fn error_code(&self) -> Option<i64> {
        self.json.as_ref()?.get("error_code")?.as_i64()
    }

    /// What it said, short.
    pub fn message(&self) -> String {
        let said = self.text("message").unwrap_or_else(|| self.body.clone());
        said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
    }

    /// An answer that means nothing to us; it may pass.
    pub fn strange(&self) -> RegistryError {
        let reason = format!(
            "it answers {} ({}); check that schema_registry_url is the base of Confluent's interface",
            self.status,
            self.message()
        );
        unavailable(&self.place, reason)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        thread::JoinHandle,
    };

    use super::super::{Registry, RegistryError, SchemaUse};
    use crate::config::KafkaConfig;

    /// Answers questions with these responses, one after the other, and returns what it was asked.
    fn serve(answers: Vec<(u16, &'static str)>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/base/", listener.local_addr().expect("its address"));
        let serving = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).expect("a line");
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        length = value.trim().parse().expect("a number");
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                    head.push_str(&line);
                }
                let mut sent = vec![0; length];
                reader.read_exact(&mut sent).expect("a body");
                asked.push(head + &String::from_utf8(sent).expect("text"));
                let length = body.len();
                write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                    .expect("answered");
            }
            asked
        });
        (url, serving)
    }

    fn registry(url: &str) -> Registry {
        let folder = std::env::temp_dir().join(format!("binlake-registry-{}", fastrand::u64(..)));
        std::fs::write(&folder, "s3cret\n").expect("written");
        let config = KafkaConfig {
            schema_registry_url: Some(url.to_owned()),
            schema_registry_username: Some("reader".into()),
            schema_registry_password_file: Some(folder),
            ..KafkaConfig::new("unused:1")
        };
        Registry::of(&config).expect("a registry")
    }

    const USE: SchemaUse<'static> = SchemaUse { topic: "a b", is_key: true };

    #[test]
    fn a_schema_is_registered_with_a_log_in_at_the_url_that_answers() {
        let (down, up) = (serve(vec![(503, "wait")]), serve(vec![(200, r#"{"id":7}"#)]));
        let urls = format!("{}, {}", down.0, up.0);
        assert_eq!(registry(&urls).register(&USE, "\"int\"").expect("an id"), 7);
        assert_eq!(down.1.join().expect("served").len(), 1);
        let asked = up.1.join().expect("served").remove(0);
        assert!(asked.starts_with("POST /base/subjects/a%20b-key/versions HTTP/1.1"), "{asked}");
        assert!(asked.contains("Basic cmVhZGVyOnMzY3JldA=="), "{asked}");
        assert!(asked.ends_with(r#"{"schema":"\"int\""}"#), "{asked}");
    }

    #[test]
    fn refusals_are_told_from_outages() {
        for (status, body, refused, wanted) in [
            (409, r#"{"error_code":409,"message":"reader lacks x"}"#, true, "reader lacks x"),
            (422, r#"{"error_code":42201,"message":"bad"}"#, true, "no Avro schema"),
            (401, "", false, "schema_registry_username"),
            (500, "oops", false, "500"),
            (404, "<html>", false, "base of Confluent's interface"),
            (200, "{}", false, "base of Confluent's interface"),
        ] {
            let (url, serving) = serve(vec![(status, body)]);
            let error = registry(&url).register(&USE, "\"int\"").expect_err("refused");
            assert_eq!(matches!(error, RegistryError::Refused { .. }), refused, "{error}");
            assert!(error.to_string().contains(wanted), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
            serving.join().expect("served");
        }
    }

    #[test]
    fn a_number_that_the_registry_does_not_know_is_no_outage() {
        let (url, serving) = serve(vec![
            (200, r#"{"schema":"\"int\""}"#),
            (404, r#"{"error_code":40403,"message":"not found"}"#),
            (404, "<html>not here</html>"),
        ]);
        let registry = registry(&url);
        assert_eq!(registry.text(1).expect("asked").as_deref(), Some("\"int\""));
        assert_eq!(registry.text(2).expect("asked"), None);
        assert!(registry.text(3).is_err());
        serving.join().expect("served");
    }
}
