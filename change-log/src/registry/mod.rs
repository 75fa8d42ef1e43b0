//! A schema registry by Confluent's REST interface: names schemas by numbers that are the same for all who use it.

mod client;
mod subjects;

use std::{path::PathBuf, time::Duration};

use thiserror::Error;

use self::client::{Answer, Client};
pub use self::subjects::{SchemaUse, SubjectNames};
use crate::{config::KafkaConfig, error::LogError};

/// A registry's own error code for a schema that it does not know.
const SCHEMA_NOT_FOUND: i64 = 40403;

/// Where the registry is and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryPlace {
    /// Tried in this order.
    pub urls: Vec<String>,
    /// Basic authentication: the user and where the password is.
    pub user: Option<(String, Secret)>,
    /// Bearer authentication: where the token is.
    pub token: Option<Secret>,
    /// The CA of an https registry (PEM); without it the system's.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and key (PEM).
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Where a secret is. It is read for each connection, so a rotated one is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// An environment variable.
    Environment(String),
    /// A file; a line break at its end is cut off.
    File(PathBuf),
}

/// Why the registry did not do what it was asked.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// It cannot be reached, or answers that it cannot answer now: ask again.
    #[error("schema registry {place}: {reason}")]
    Unavailable {
        /// The url.
        place: String,
        /// What went wrong and what to check.
        reason: String,
    },
    /// It refuses the schema, and will again.
    #[error("the schema registry refuses the schema of subject {subject}: {reason}")]
    Refused {
        /// The subject.
        subject: String,
        /// What it said and what to do.
        reason: String,
    },
}

impl From<RegistryError> for LogError {
    fn from(error: RegistryError) -> Self {
        match &error {
            RegistryError::Unavailable { place, .. } => {
                Self::Unavailable { place: place.clone(), reason: error.to_string() }
            }
            RegistryError::Refused { subject, .. } => {
                Self::Unfit { place: subject.clone(), reason: error.to_string() }
            }
        }
    }
}

/// A registry.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    names: SubjectNames,
}

impl Registry {
    /// The one that the configuration names; nothing is asked yet.
    pub fn of(kafka: &KafkaConfig) -> Option<Self> {
        let client = Client::new(kafka.registry()?);
        Some(Self { client, names: kafka.subject_names })
    }

    /// The number of a schema under the subject of its use; it is registered if it is new. The registry checks it against
    /// the subject's earlier versions, as its compatibility level says.
    pub fn register(&self, wanted: &SchemaUse<'_>, text: &str) -> Result<u32, RegistryError> {
        let subject = self.names.subject(wanted, text);
        let body = serde_json::json!({ "schema": text }).to_string();
        let path = format!("/subjects/{}/versions", subjects::encode(&subject));
        let answer = self.client.ask("POST", &path, Some(&body))?;
        match answer.status {
            200 => answer.number("id").ok_or_else(|| answer.strange()),
            409 => Err(refused(
                &subject,
                &answer,
                "it is incompatible with an earlier version; change the subject's compatibility level, or delete the \
                 subject if nobody reads it, and take a new snapshot of the table",
            )),
            422 => Err(refused(
                &subject,
                &answer,
                "it takes it for no Avro schema; register it by hand to see why",
            )),
            _ => Err(answer.strange()),
        }
    }

    /// The text of a schema; `None` when the registry does not know the number.
    pub fn text(&self, id: u32) -> Result<Option<String>, RegistryError> {
        let answer = self.client.ask("GET", &format!("/schemas/ids/{id}"), None)?;
        match answer.status {
            200 => answer.text("schema").map(Some).ok_or_else(|| answer.strange()),
            // A registry that is not one answers 404 to everything.
            404 if answer.error_code() == Some(SCHEMA_NOT_FOUND) => Ok(None),
            _ => Err(answer.strange()),
        }
    }
}

/// A pause before the next question, after this many that were not answered.
pub fn pause(failures: u32) -> Duration {
    Duration::from_millis(250 << failures.min(5))
}

fn refused(subject: &str, answer: &Answer, cure: &str) -> RegistryError {
    let said = answer.message();
    RegistryError::Refused { subject: subject.to_owned(), reason: format!("{cure} ({said})") }
}
