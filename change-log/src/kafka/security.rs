//! How clients prove who they are and whom they trust: TLS and SASL, as `[change_log]` says.
//!
//! Secrets are read from their files and variables when a client is made, so a rotated one is taken at the next try. The
//! token of OAUTHBEARER is read again each time it is about to run out.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
    ptr,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::{
    ClientConfig, ClientContext, bindings::rd_kafka_oauthbearer_set_token, client::Client,
    client::OAuthToken, types::RDKafkaRespErr,
};

use crate::{
    config::{KafkaConfig, SaslMechanism},
    error::LogError,
};

/// librdkafka's messages are not longer.
const MESSAGE_BYTES: usize = 512;

/// Adds what the configuration says of security; reads the secrets.
pub fn secure(config: &mut ClientConfig, kafka: &KafkaConfig) -> Result<(), LogError> {
    let failed =
        |reason: String| LogError::Unavailable { place: kafka.bootstrap_servers.clone(), reason };
    let protocol = kafka.security_protocol;
    config.set("security.protocol", protocol.name());
    if protocol.has_tls() {
        let files = [
            ("ssl.ca.location", "ssl_ca", &kafka.ssl_ca),
            ("ssl.certificate.location", "ssl_cert", &kafka.ssl_cert),
            ("ssl.key.location", "ssl_key", &kafka.ssl_key),
        ];
        for (name, key, file) in files {
            let Some(file) = file else { continue };
            fs::File::open(file).map_err(|error| {
                failed(format!("{key} {} cannot be read ({error})", file.display()))
            })?;
            config.set(name, file.display().to_string());
        }
        let identity = if kafka.ssl_verify_identity { "https" } else { "none" };
        config.set("ssl.endpoint.identification.algorithm", identity);
    }
    let Some(mechanism) = kafka.sasl_mechanism.filter(|_| protocol.has_sasl()) else {
        return Ok(());
    };
    config.set("sasl.mechanisms", mechanism.name());
    if mechanism != SaslMechanism::OAuthBearer {
        config.set("sasl.username", kafka.sasl_username.as_deref().unwrap_or_default());
        config.set("sasl.password", password(kafka).map_err(failed)?);
    }
    Ok(())
}

fn password(kafka: &KafkaConfig) -> Result<String, String> {
    if let Some(variable) = &kafka.sasl_password_env {
        return std::env::var(variable)
            .map_err(|_| format!("sasl_password_env names ${variable}, which is not set"));
    }
    match &kafka.sasl_password_file {
        Some(file) => secret_in(file, "sasl_password_file"),
        None => {
            Err("there is no password: name it by sasl_password_env or sasl_password_file".into())
        }
    }
}

fn secret_in(file: &Path, key: &str) -> Result<String, String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("{key} {} cannot be read ({error})", file.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(format!("{key} {} is empty", file.display()));
    }
    Ok(secret.to_owned())
}

/// The file of a token (a JSON web token, RFC 7519).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// The one that the configuration names, where tokens are used.
    pub fn of(kafka: &KafkaConfig) -> Option<Self> {
        let uses = kafka.security_protocol.has_sasl()
            && kafka.sasl_mechanism == Some(SaslMechanism::OAuthBearer);
        kafka.sasl_token_file.clone().filter(|_| uses).map(Self)
    }

    /// Reads the token; whose it is and when it runs out stand in it.
    pub fn read(&self) -> Result<OAuthToken, String> {
        let token = secret_in(&self.0, "sasl_token_file")?;
        let wrong = |what: &str| format!("sasl_token_file {} {what}", self.0.display());
        let claims = token
            .split('.')
            .nth(1)
            .and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok())
            .and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok())
            .ok_or_else(|| wrong("holds no JSON web token (header.claims.signature)"))?;
        // A NumericDate may have a fraction (RFC 7519, section 2).
        let expires_s = claims.get("exp").and_then(serde_json::Value::as_f64);
        let lifetime_ms = expires_s
            .map(|seconds| (seconds * 1000.0) as i64)
            .ok_or_else(|| wrong("holds a token that does not say when it runs out (exp)"))?;
        let principal = claims.get("sub").and_then(serde_json::Value::as_str);
        let principal_name = principal.unwrap_or("binlake").to_owned();
        Ok(OAuthToken { token, principal_name, lifetime_ms })
    }

    /// Gives a client its token. The client asks for a new one by its events, which are only seen when it is polled:
    /// before its first call, and for one that is never polled before each.
    pub fn give<C: ClientContext>(&self, client: &Client<C>) -> Result<(), String> {
        let token = self.read()?;
        let text =
            |text: String| CString::new(text).map_err(|_| "a token has a zero byte".to_owned());
        let (value, principal) = (text(token.token)?, text(token.principal_name)?);
        let mut message = [0_u8; MESSAGE_BYTES];
        // SAFETY: the client outlives the call, the texts end with a zero byte and are copied, and `message` has the
        // size that is given.
        let result = unsafe {
            rd_kafka_oauthbearer_set_token(
                client.native_ptr(),
                value.as_ptr(),
                token.lifetime_ms,
                principal.as_ptr(),
                ptr::null_mut(),
                0,
                message.as_mut_ptr().cast(),
                message.len(),
            )
        };
        if result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        let end = message.iter().position(|&byte| byte == 0).unwrap_or_default();
        let said = String::from_utf8_lossy(&message[..end]);
        Err(format!("the token of sasl_token_file {} cannot be used: {said}", self.0.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OAuthToken, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        fs::write(&file, text).expect("written");
        TokenFile(file).read()
    }

    #[test]
    fn a_token_tells_whose_it_is_and_when_it_runs_out() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"reader","exp":1700000000.5}"#);
        let token = read(&format!("e30.{claims}.\n")).expect("a token");
        assert_eq!(token.token, format!("e30.{claims}."));
        assert_eq!(
            (token.principal_name.as_str(), token.lifetime_ms),
            ("reader", 1_700_000_000_500)
        );
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        let no_end = URL_SAFE_NO_PAD.encode(r#"{"sub":"hidden"}"#);
        for (text, wanted) in [
            ("", "is empty"),
            ("hidden", "no JSON web token"),
            ("a.hidden.b", "no JSON web token"),
            (&format!("a.{no_end}.b"), "(exp)"),
        ] {
            let error = read(text).err().expect("refused");
            assert!(error.contains(wanted) && !error.contains("hidden"), "{error}");
        }
    }
}
