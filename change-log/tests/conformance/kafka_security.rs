//! Log-ins and certificates, with a broker that wants them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use change_log::{
    KafkaConfig, LogConfig, LogError, SaslMechanism, SecurityProtocol, open_reader, open_writer,
};

use crate::kafka_broker::{Afterwards, free_port, serve_with};
use crate::test_log::{PATIENCE, append_numbers, data_topic, kafka, read_numbers};

/// A broker with a listener for certificates and one for log-ins.
struct SecureBroker {
    folder: PathBuf,
    /// Wants a client's certificate.
    ssl_port: u16,
    /// Wants a log-in.
    sasl_port: u16,
    _child: Child,
}

impl SecureBroker {
    /// The one that all tests share; it goes with this process.
    fn shared() -> Option<&'static Self> {
        static BROKER: OnceLock<SecureBroker> = OnceLock::new();
        // Says loudly when there is no Kafka to be had.
        kafka("secure-broker")?;
        Some(BROKER.get_or_init(|| Self::start().expect("a broker")))
    }

    fn start() -> Result<Self, String> {
        let name = format!("kafka-secure-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        make_certificates(&folder);
        let [port, tls_port] = [free_port(), free_port()].map(|port| port.expect("a port"));
        let (ssl_port, sasl_port) = (tls_port, tls_port + 1);
        let listeners = |host: &str| {
            format!(
                "PLAINTEXT://127.0.0.1:{port},SSL://{host}:{ssl_port},SASL_SSL://{host}:{sasl_port}"
            )
        };
        let sasl = "listener.name.sasl_ssl";
        let modules = "org.apache.kafka.common.security";
        let properties = [
            format!("listeners={},CONTROLLER://127.0.0.1:{}", listeners("127.0.0.1"), port + 1),
            format!("advertised.listeners={}", listeners("localhost")),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL".into(),
            "ssl.keystore.type=PEM".into(),
            format!("ssl.keystore.location={}", folder.join("broker.pem").display()),
            "ssl.truststore.type=PEM".into(),
            format!("ssl.truststore.location={}", folder.join("ca.crt").display()),
            "listener.name.ssl.ssl.client.auth=required".into(),
            format!("{sasl}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER"),
            format!(
                "{sasl}.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_reader=\"first\";"
            ),
            format!(
                "{sasl}.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;"
            ),
            format!(
                "{sasl}.oauthbearer.sasl.jaas.config={modules}.oauthbearer.OAuthBearerLoginModule required \
                 unsecuredLoginStringClaim_sub=\"broker\";"
            ),
            "scram=SCRAM-SHA-512=[name=scram,password=s3cret]".into(),
        ];
        let child = serve_with(&folder.join("kafka"), port, Afterwards::Remove, &properties)?;
        Ok(Self { folder, ssl_port, sasl_port, _child: child })
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.join(name))
    }

    fn with_certificate(&self) -> KafkaConfig {
        KafkaConfig {
            security_protocol: SecurityProtocol::Ssl,
            ssl_ca: self.file("ca.crt"),
            ssl_cert: self.file("client.crt"),
            ssl_key: self.file("client.key"),
            ..KafkaConfig::new(format!("localhost:{}", self.ssl_port))
        }
    }

    fn with_password(&self, mechanism: SaslMechanism, user: &str, password: &str) -> KafkaConfig {
        let file = self.folder.join(format!("password-{}", fastrand::u64(..)));
        fs::write(&file, format!("{password}\n")).expect("written");
        KafkaConfig {
            security_protocol: SecurityProtocol::SaslSsl,
            ssl_ca: self.file("ca.crt"),
            sasl_mechanism: Some(mechanism),
            sasl_username: Some(user.to_owned()),
            sasl_password_file: Some(file),
            ..KafkaConfig::new(format!("localhost:{}", self.sasl_port))
        }
    }

    fn with_token(&self, lifetime: Duration) -> KafkaConfig {
        let file = self.folder.join(format!("token-{}", fastrand::u64(..)));
        write_token(&file, lifetime);
        KafkaConfig {
            sasl_mechanism: Some(SaslMechanism::OAuthBearer),
            sasl_username: None,
            sasl_password_file: None,
            sasl_token_file: Some(file),
            ..self.with_password(SaslMechanism::Plain, "", "")
        }
    }
}

/// A token as a broker takes it that verifies no signatures.
fn write_token(file: &Path, lifetime: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let expires_s = (now + lifetime).as_secs_f64();
    let claims = format!(r#"{{"sub":"reader","iat":{},"exp":{expires_s}}}"#, now.as_secs_f64());
    let [header, claims] = [r#"{"alg":"none"}"#, &claims].map(|json| URL_SAFE_NO_PAD.encode(json));
    let fresh = file.with_extension("new");
    fs::write(&fresh, format!("{header}.{claims}.")).expect("written");
    // As Kubernetes puts a new one in its place.
    fs::rename(fresh, file).expect("renamed");
}

/// A CA, another one that signed nothing, and certificates of the broker (for localhost) and of a client.
fn make_certificates(folder: &Path) {
    let openssl = |line: &str| {
        let output = Command::new("openssl")
            .args(line.split(' '))
            .current_dir(folder)
            .output()
            .expect("the program openssl");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {line}: {said}");
    };
    for ca in ["ca", "other"] {
        openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={ca} -keyout {ca}.key -out {ca}.crt"
        ));
    }
    for name in ["broker", "client"] {
        openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -addext subjectAltName=DNS:localhost -keyout {name}.key -out \
             {name}.csr"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out \
             {name}.crt"
        ));
    }
    let part = |name: &str| fs::read_to_string(folder.join(name)).expect("made");
    fs::write(folder.join("broker.pem"), part("broker.key") + &part("broker.crt"))
        .expect("written");
}

/// Writes and reads with these settings.
fn works(config: KafkaConfig, source: &str) {
    let log = LogConfig::Kafka(config);
    let topic = format!("{source}.db.t");
    let mut writer = open_writer(&log, source, PATIENCE).expect("a writer");
    let handle = data_topic(&mut *writer, &topic);
    append_numbers(&mut *writer, handle, 0..100);
    writer.commit(b"p").expect("commit");
    let mut reader = open_reader(&log, PATIENCE).expect("a reader");
    reader.assign(&topic, 0, 0).expect("assign");
    assert!(read_numbers(&mut *reader, 100).into_iter().eq(0..100));
    reader.acknowledge(&format!("{source}-group"), &topic, 0, 100).expect("acknowledge");
    assert_eq!(
        open_writer(&log, source, PATIENCE).expect("a writer").last_position(),
        Some(b"p".as_slice())
    );
}

/// The sentence that these settings are refused with, and that it comes soon.
fn refused(config: KafkaConfig) -> String {
    let began = Instant::now();
    let log = LogConfig::Kafka(config);
    let error = open_writer(&log, "refused", PATIENCE).err().expect("refused");
    assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}: {error}", began.elapsed());
    error.to_string()
}

#[test]
fn a_client_certificate_opens_the_log() {
    let Some(broker) = SecureBroker::shared() else { return };
    works(broker.with_certificate(), "certificate");
}

#[test]
fn passwords_open_the_log_and_a_new_one_is_taken_from_its_file() {
    let Some(broker) = SecureBroker::shared() else { return };
    works(broker.with_password(SaslMechanism::Plain, "reader", "first"), "plain");
    let config = broker.with_password(SaslMechanism::ScramSha512, "scram", "old");
    let said = refused(config.clone());
    assert!(said.contains("check sasl_mechanism") && !said.contains("old"), "{said}");
    let file = config.sasl_password_file.clone().expect("a file");
    fs::write(file, "s3cret\n").expect("written");
    works(config, "scram");
}

#[test]
fn a_token_opens_the_log_and_is_read_again_before_it_runs_out() {
    let Some(broker) = SecureBroker::shared() else { return };
    works(broker.with_token(Duration::from_secs(3600)), "token");
    // Short-lived tokens: the broker ends connections whose token ran out, so the writer has to have taken new ones.
    let lifetime = Duration::from_secs(6);
    let config = broker.with_token(lifetime);
    let file = config.sasl_token_file.clone().expect("a file");
    let log = LogConfig::Kafka(config);
    let mut writer = open_writer(&log, "short", PATIENCE).expect("a writer");
    let handle = data_topic(&mut *writer, "short.db.t");
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < 3 * lifetime {
        write_token(&file, lifetime);
        append_numbers(&mut *writer, handle, count..count + 1);
        count += 1;
        writer.commit(count.to_string().as_bytes()).expect("commit");
    }
    write_token(&file, lifetime);
    data_topic(&mut *writer, "short.db.later");
}

#[test]
fn what_is_wrong_is_said_with_what_to_check() {
    let Some(broker) = SecureBroker::shared() else { return };
    let plain = || broker.with_password(SaslMechanism::Plain, "reader", "first");
    let wrong_password = broker.with_password(SaslMechanism::Plain, "reader", "wrong-one");
    let cases = [
        (wrong_password, "check sasl_mechanism, sasl_username and its password"),
        (KafkaConfig { ssl_ca: broker.file("other.crt"), ..plain() }, "check ssl_ca"),
        (
            KafkaConfig { bootstrap_servers: format!("127.0.0.1:{}", broker.sasl_port), ..plain() },
            "that the certificate names this host",
        ),
        (
            KafkaConfig { ssl_cert: None, ssl_key: None, ..broker.with_certificate() },
            "ssl_cert and ssl_key",
        ),
        (
            KafkaConfig { ssl_ca: broker.file("missing.crt"), ..plain() },
            "missing.crt cannot be read",
        ),
        (broker.with_password(SaslMechanism::Plain, "reader", ""), "is empty"),
    ];
    for (config, wanted) in cases {
        let said = refused(config);
        assert!(said.contains(wanted), "wanted {wanted:?}: {said}");
        assert!(!said.contains("wrong-one") && !said.contains("first"), "{said}");
    }
    // The broker closes this connection without a word, so it is waited for as one that is not up.
    let log = LogConfig::Kafka(KafkaConfig {
        security_protocol: SecurityProtocol::SaslPlaintext,
        ssl_ca: None,
        ..plain()
    });
    let error = open_writer(&log, "refused", Duration::from_secs(3)).err().expect("refused");
    assert!(error.to_string().contains("security_protocol"), "{error}");
}
