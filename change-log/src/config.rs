//! How to reach a log.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::registry::{RegistryPlace, Secret, SubjectNames};

/// Which store, and how it is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[expect(
    clippy::large_enum_variant,
    reason = "a process has a few of them, and passes them by reference"
)]
pub enum LogConfig {
    /// A local SQLite file: for one machine, no other service needed. Several processes may use it at once.
    Embedded {
        /// The folder that holds the log; created when missing.
        path: PathBuf,
        /// How long consumed records stay, in hours; 24 so that a sink's table can be made again within a day.
        #[serde(default = "default_retention_hours")]
        retention_hours: u32,
    },
    /// Apache Kafka (2.5 or newer: transactions).
    Kafka(KafkaConfig),
}

/// How to reach Kafka, and how its topics are made and written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// Partitions of data topics that Binlake creates. One keeps a table's changes in one order.
    #[serde(default = "default_partitions")]
    pub partitions: i32,
    /// Copies of each topic that Binlake creates; -1 takes the broker's default.
    #[serde(default = "default_replication")]
    pub replication: i32,
    /// How long data topics keep their records, in hours; 168 is Kafka's own default.
    #[serde(default = "default_kafka_retention_hours")]
    pub retention_hours: u32,
    /// What a crash or a broker's failure may do to records.
    #[serde(default)]
    pub delivery: Delivery,
    /// What becomes of a record that its topic does not take.
    #[serde(default)]
    pub record_too_large: RecordTooLarge,
    /// Whether connections are encrypted, and whether clients log in.
    #[serde(default)]
    pub security_protocol: SecurityProtocol,
    /// The file with the CA that signed the brokers' certificates (PEM); without it the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_ca: Option<PathBuf>,
    /// The file with the client's own certificate (PEM), for brokers that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_cert: Option<PathBuf>,
    /// The file with the private key of `ssl_cert` (PEM, without a pass phrase).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_key: Option<PathBuf>,
    /// Whether a broker's certificate must name the host that was connected to.
    #[serde(default = "yes")]
    pub ssl_verify_identity: bool,
    /// How clients log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl_mechanism: Option<SaslMechanism>,
    /// The user of PLAIN and SCRAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl_username: Option<String>,
    /// The environment variable that holds the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl_password_env: Option<String>,
    /// The file that holds it (a trailing line break is cut off).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl_password_file: Option<PathBuf>,
    /// The file that holds OAUTHBEARER's token, a JSON web token; read again before it runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl_token_file: Option<PathBuf>,
    /// The schema registry's url, several separated by commas. With one, records name their schemas by its numbers
    /// (Confluent's framing); without, by fingerprints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry_url: Option<String>,
    /// The user of the registry's basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry_username: Option<String>,
    /// The environment variable that holds the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry_password_env: Option<String>,
    /// The file that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry_password_file: Option<PathBuf>,
    /// The environment variable that holds a bearer token for the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry_token_env: Option<String>,
    /// The file that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry_token_file: Option<PathBuf>,
    /// The file with the CA that signed the registry's certificate (PEM); without it the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry_ssl_ca: Option<PathBuf>,
    /// The file with the certificate that the registry is shown (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry_ssl_cert: Option<PathBuf>,
    /// The file with its private key (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_registry_ssl_key: Option<PathBuf>,
    /// How the registry's subjects are named.
    #[serde(default)]
    pub subject_names: SubjectNames,
    /// What becomes of a table whose schema the registry refuses.
    #[serde(default)]
    pub incompatible_schema: IncompatibleSchema,
}

/// What becomes of a table whose schema the registry refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncompatibleSchema {
    /// The table stops with the sentence; the others go on.
    #[default]
    StopTable,
    /// The source stops.
    Stop,
}

/// Kafka's `security.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Neither encryption nor a log-in.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// A log-in over plain text.
    SaslPlaintext,
    /// A log-in over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// As Kafka names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether connections are encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether clients log in.
    pub fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// Kafka's `sasl.mechanism`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// User and password as they are; over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// User and a proof of the password (RFC 5802).
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with the longer hash.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A token (RFC 7628).
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
}

impl SaslMechanism {
    /// As Kafka names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

/// What a crash or a broker's failure may do to records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Records and position in one Kafka transaction: readers of committed records see each change once.
    #[default]
    ExactlyOnce,
    /// For brokers without transactions: the position is written when the records are with the brokers, so what lies
    /// between two positions may come twice. Nothing fences a second reader of the same source.
    AtLeastOnce,
}

/// What becomes of a record that its topic does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordTooLarge {
    /// The source stops with a sentence: nothing is left out.
    #[default]
    Stop,
    /// Its key and what is known of it go into `<source>.__dead_letters`, in the same transaction, and the source goes
    /// on. The change is not in the lake.
    DeadLetter,
}

impl KafkaConfig {
    /// Brokers at `bootstrap_servers` with every default.
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            partitions: default_partitions(),
            replication: default_replication(),
            retention_hours: default_kafka_retention_hours(),
            delivery: Delivery::default(),
            record_too_large: RecordTooLarge::default(),
            security_protocol: SecurityProtocol::default(),
            ssl_ca: None,
            ssl_cert: None,
            ssl_key: None,
            ssl_verify_identity: true,
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password_env: None,
            sasl_password_file: None,
            sasl_token_file: None,
            schema_registry_url: None,
            schema_registry_username: None,
            schema_registry_password_env: None,
            schema_registry_password_file: None,
            schema_registry_token_env: None,
            schema_registry_token_file: None,
            schema_registry_ssl_ca: None,
            schema_registry_ssl_cert: None,
            schema_registry_ssl_key: None,
            subject_names: SubjectNames::default(),
            incompatible_schema: IncompatibleSchema::default(),
        }
    }

    /// Where the schema registry is, if there is one.
    pub fn registry(&self) -> Option<RegistryPlace> {
        let urls = self.schema_registry_url.as_ref()?.split(',').map(str::trim);
        let password =
            secret(&self.schema_registry_password_env, &self.schema_registry_password_file);
        let (ca, certificate) =
            (self.schema_registry_ssl_ca.clone(), &self.schema_registry_ssl_cert);
        Some(RegistryPlace {
            urls: urls.filter(|url| !url.is_empty()).map(str::to_owned).collect(),
            user: self.schema_registry_username.clone().zip(password),
            token: secret(&self.schema_registry_token_env, &self.schema_registry_token_file),
            ca,
            certificate: certificate.clone().zip(self.schema_registry_ssl_key.clone()),
        })
    }

    fn registry_finding(&self) -> Option<&'static str> {
        let password =
            secret(&self.schema_registry_password_env, &self.schema_registry_password_file);
        let token = secret(&self.schema_registry_token_env, &self.schema_registry_token_file);
        let Some(url) = &self.schema_registry_url else {
            let lone =
                self.schema_registry_username.is_some() || password.is_some() || token.is_some();
            return lone.then_some("schema_registry_... settings need schema_registry_url");
        };
        let is_http = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        if !url.split(',').map(str::trim).all(is_http) {
            Some(
                "schema_registry_url must be http://host:port or https://host:port, several separated by commas",
            )
        } else if self.schema_registry_username.is_some() != password.is_some() {
            Some(
                "schema_registry_username and schema_registry_password_file (or _env) belong together",
            )
        } else if password.is_some() && token.is_some() {
            Some("the schema registry has a password and a token; keep one")
        } else if self.schema_registry_ssl_cert.is_some() != self.schema_registry_ssl_key.is_some()
        {
            Some("schema_registry_ssl_cert and schema_registry_ssl_key belong together; give both")
        } else {
            None
        }
    }

    /// The first setting that does not fit the others, as a sentence.
    pub fn finding(&self) -> Option<String> {
        let protocol = self.security_protocol;
        let passwords = [self.sasl_password_env.is_some(), self.sasl_password_file.is_some()];
        let tls_files = [&self.ssl_ca, &self.ssl_cert, &self.ssl_key];
        let finding = if !protocol.has_tls() && tls_files.into_iter().any(Option::is_some) {
            "ssl_ca, ssl_cert and ssl_key need security_protocol = \"ssl\" or \"sasl_ssl\""
        } else if self.ssl_cert.is_some() != self.ssl_key.is_some() {
            "ssl_cert and ssl_key belong together; give both"
        } else if protocol.has_sasl() != self.sasl_mechanism.is_some() {
            "sasl_mechanism and security_protocol = \"sasl_ssl\" (or \"sasl_plaintext\") belong together"
        } else if passwords == [true, true] {
            "there are sasl_password_env and sasl_password_file; keep one"
        } else {
            match self.sasl_mechanism {
                Some(SaslMechanism::OAuthBearer) if self.sasl_token_file.is_none() => {
                    "OAUTHBEARER needs sasl_token_file, the file that its token is read from"
                }
                Some(SaslMechanism::OAuthBearer) => {
                    return self.registry_finding().map(str::to_owned);
                }
                Some(_) if self.sasl_username.is_none() => "sasl_mechanism needs sasl_username",
                Some(_) if passwords == [false, false] => {
                    "sasl_username needs its password: sasl_password_file or sasl_password_env"
                }
                Some(_) | None => return self.registry_finding().map(str::to_owned),
            }
        };
        Some(finding.to_owned())
    }
}

fn secret(variable: &Option<String>, file: &Option<PathBuf>) -> Option<Secret> {
    let variable = variable.clone().map(Secret::Environment);
    variable.or_else(|| file.clone().map(Secret::File))
}

fn yes() -> bool {
    true
}

fn default_retention_hours() -> u32 {
    24
}

fn default_partitions() -> i32 {
    1
}

fn default_replication() -> i32 {
    -1
}

fn default_kafka_retention_hours() -> u32 {
    168
}
