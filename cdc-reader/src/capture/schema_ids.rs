//! The registry's numbers of schemas: asked for once per schema, before the first record that names it.
//!
//! The schemas topic is where they are kept: under the number's five bytes of framing the schema's text, in the same
//! log transaction as the first records that use it, or before. So a restart while the registry is away knows the
//! numbers of all schemas that were ever used, and only a table with a new schema has to wait for the registry.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use change_log::{
    IncompatibleSchema, LogConfig, LogError, open_reader,
    registry::{Registry, RegistryError, SchemaUse, pause},
};
use schemas::{
    table_id::schemas_topic,
    wire_format::{SchemaReference, fingerprint, read_framing},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    encode::plan::{SchemaText, TableSchemas},
    error::ReaderError,
    snapshot::changed_keys::read_topic,
};

const LOG_TIMEOUT: Duration = Duration::from_secs(30);
/// A wait is told after this long, and then again after as long.
const TOLD_AFTER: Duration = Duration::from_secs(30);
/// How soon a wait sees that it is to end.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct SchemaIds {
    registry: Registry,
    on_refusal: IncompatibleSchema,
    /// By the text's fingerprint, as the log has them.
    known: HashMap<u64, u32>,
    /// Which text a number stands for in the log.
    taken: HashMap<u32, u64>,
    /// Those that this process has asked for.
    ids: HashMap<u64, u32>,
    stop: CancellationToken,
}

/// Why a schema has no number.
#[derive(Debug)]
pub enum NoId {
    /// The registry refuses it: the table cannot go on. The sentence says why.
    Table(String),
    /// The source cannot go on.
    Source(ReaderError),
}

impl SchemaIds {
    /// The registry that the log's configuration names, with the numbers that the log has. Blocks.
    pub fn open(
        log: &LogConfig,
        source: &str,
        stop: CancellationToken,
    ) -> Result<Option<Self>, LogError> {
        let LogConfig::Kafka(kafka) = log else { return Ok(None) };
        let Some(registry) = Registry::of(kafka) else { return Ok(None) };
        let (mut known, mut taken) = (HashMap::new(), HashMap::new());
        let mut reader = open_reader(log, LOG_TIMEOUT)?;
        read_topic(reader.as_mut(), &schemas_topic(source), |batch| {
            for record in &batch.records {
                let (Some(key), Some(text)) = (batch.key(record), batch.value(record)) else {
                    continue;
                };
                if let Ok((SchemaReference::Registry(id), [])) = read_framing(key)
                    && let Ok(text) = std::str::from_utf8(text)
                {
                    known.insert(fingerprint(text), id);
                    taken.insert(id, fingerprint(text));
                }
            }
            Ok::<_, LogError>(())
        })?;
        let on_refusal = kafka.incompatible_schema;
        Ok(Some(Self { registry, on_refusal, known, taken, ids: HashMap::new(), stop }))
    }

    /// Names a table's schemas by their numbers.
    pub(super) fn name(&mut self, schemas: &mut TableSchemas) -> Result<(), NoId> {
        let topic = schemas.schema.id.topic();
        if let Some(key) = &mut schemas.key {
            self.name_text(&SchemaUse { topic: &topic, is_key: true }, key)?;
        }
        self.name_text(&SchemaUse { topic: &topic, is_key: false }, &mut schemas.value)
    }

    /// Names a schema by its number under the subject of its use.
    pub(super) fn name_text(
        &mut self,
        wanted: &SchemaUse<'_>,
        schema: &mut SchemaText,
    ) -> Result<(), NoId> {
        let id = match self.ids.get(&schema.fingerprint) {
            Some(&id) => id,
            None => {
                let id = self.ask(wanted, schema)?;
                self.ids.insert(schema.fingerprint, id);
                self.taken.insert(id, schema.fingerprint);
                id
            }
        };
        schema.name_by(SchemaReference::Registry(id));
        Ok(())
    }

    fn ask(&self, wanted: &SchemaUse<'_>, schema: &SchemaText) -> Result<u32, NoId> {
        let known = self.known.get(&schema.fingerprint).copied();
        let (began, mut told, mut failures) = (Instant::now(), Instant::now(), 0);
        loop {
            let error = match self.registry.register(wanted, &schema.text) {
                Ok(id) => {
                    let other = |text: &u64| *text != schema.fingerprint;
                    if self.taken.get(&id).is_some_and(other) {
                        return Err(made_anew(wanted, id));
                    }
                    if let Some(known) = known.filter(|&known| known != id) {
                        error!(
                            topic = wanted.topic,
                            known,
                            id,
                            "the schema registry has another number for a schema than it had: it was made anew, and \
                             records from before name numbers that it does not know"
                        );
                    }
                    return Ok(id);
                }
                Err(error) => error,
            };
            match (&error, known) {
                (RegistryError::Refused { .. }, _) => return Err(self.refused(wanted, &error)),
                (RegistryError::Unavailable { .. }, Some(known)) => {
                    warn!(topic = wanted.topic, id = known, %error, "the log knows the schema's number");
                    return Ok(known);
                }
                (RegistryError::Unavailable { .. }, None) => {}
            }
            if failures == 0 || told.elapsed() >= TOLD_AFTER {
                told = Instant::now();
                let waited_s = began.elapsed().as_secs();
                warn!(topic = wanted.topic, waited_s, %error, "waiting for the schema registry: a schema is new");
            }
            self.wait(pause(failures))?;
            failures += 1;
        }
    }

    fn refused(&self, wanted: &SchemaUse<'_>, error: &RegistryError) -> NoId {
        match self.on_refusal {
            IncompatibleSchema::StopTable => NoId::Table(error.to_string()),
            IncompatibleSchema::Stop => NoId::Source(ReaderError::Log(LogError::Unfit {
                place: format!("topic {}", wanted.topic),
                reason: error.to_string(),
            })),
        }
    }

    fn wait(&self, pause: Duration) -> Result<(), NoId> {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.stop.is_cancelled() {
                let reason = "stopped while a new schema waited for the schema registry".to_owned();
                return Err(NoId::Source(ReaderError::Log(LogError::Aborted { reason })));
            }
            thread::sleep(STOP_INTERVAL.min(pause));
        }
        Ok(())
    }
}

/// Records before this one name another schema by the same number.
fn made_anew(wanted: &SchemaUse<'_>, id: u32) -> NoId {
    NoId::Source(ReaderError::Log(LogError::Unfit {
        place: format!("topic {}", wanted.topic),
        reason: format!(
            "the schema registry gives number {id}, which stands for another schema in the change log: the registry was \
             made anew; restore what it had, or give the source another name and with it topics of its own"
        ),
    }))
}
