//! The Avro schemas of a source by fingerprint or by the registry's number, read from its compacted topic
//! `<source>.__schemas` from the start. A schema is committed in the same transaction as the first record that names it,
//! or before, so reading the topic to its end after such a record was seen finds it. A number that is not there is
//! another writer's: the registry is asked.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use change_log::{LogConfig, LogError, LogReader, open_reader, registry::Registry};
use schemas::{
    table_id::schemas_topic,
    wire_format::{SchemaReference, read_framing},
};

use crate::error::SinkError;

const POLL_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a schema is waited for; a broker may show one partition's commit a moment before another's.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The schemas of one source, shared by its tables.
#[derive(Clone)]
pub struct SchemaCatalog {
    topic: String,
    state: Arc<Mutex<State>>,
}

struct State {
    log: LogConfig,
    timeout: Duration,
    reader: Option<Box<dyn LogReader>>,
    next_offset: Option<i64>,
    texts: HashMap<SchemaReference, Arc<str>>,
    missing: HashSet<SchemaReference>,
    registry: Option<Registry>,
}

impl SchemaCatalog {
    /// The catalog of a source; nothing is read yet.
    pub fn new(log: LogConfig, source: &str, timeout: Duration) -> Self {
        let registry = match &log {
            LogConfig::Kafka(kafka) => Registry::of(kafka),
            LogConfig::Embedded { .. } => None,
        };
        let state = State {
            registry,
            log,
            timeout,
            reader: None,
            next_offset: None,
            texts: HashMap::new(),
            missing: HashSet::new(),
        };
        Self { topic: schemas_topic(source), state: Arc::new(Mutex::new(state)) }
    }

    /// The texts of these schemas, those that exist; reads on in the topic when one is not known yet.
    pub async fn find(
        &self,
        wanted: Vec<SchemaReference>,
    ) -> Result<Vec<(SchemaReference, Arc<str>)>, SinkError> {
        let catalog = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut state = catalog.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.find(&catalog.topic, &wanted)
        })
        .await
        .map_err(|error| SinkError::Task {
            task: "schema catalog".to_owned(),
            reason: error.to_string(),
        })?
        .map_err(SinkError::Log)
    }
}

impl State {
    fn find(
        &mut self,
        topic: &str,
        wanted: &[SchemaReference],
    ) -> Result<Vec<(SchemaReference, Arc<str>)>, LogError> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let absent: Vec<SchemaReference> =
                wanted.iter().filter(|id| !self.texts.contains_key(id)).copied().collect();
            if absent.is_empty() {
                break;
            }
            if let Err(error) = self.read_to_end(topic) {
                self.reader = None;
                return Err(error);
            }
            self.ask_registry(&absent)?;
            let waited_for =
                |id: &&SchemaReference| !self.texts.contains_key(id) && !self.missing.contains(id);
            if absent.iter().find(waited_for).is_none() {
                break;
            }
            if Instant::now() >= deadline {
                self.missing.extend(absent);
                break;
            }
            std::thread::sleep(POLL_TIMEOUT / 4);
        }
        let found = wanted.iter();
        Ok(found.filter_map(|id| self.texts.get(id).map(|text| (*id, Arc::clone(text)))).collect())
    }

    /// Asks for the numbers that the topic does not have; those that the registry does not know either are missing. An
    /// outage is an error: it passes.
    fn ask_registry(&mut self, absent: &[SchemaReference]) -> Result<(), LogError> {
        for &reference in absent {
            let (SchemaReference::Registry(id), Some(registry)) = (reference, &self.registry)
            else {
                continue;
            };
            if self.texts.contains_key(&reference) || self.missing.contains(&reference) {
                continue;
            }
            match registry.text(id)? {
                Some(text) => drop(self.texts.insert(reference, text.into())),
                None => drop(self.missing.insert(reference)),
            }
        }
        Ok(())
    }

    fn read_to_end(&mut self, topic: &str) -> Result<(), LogError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            empty => {
                self.next_offset = None;
                empty.insert(open_reader(&self.log, self.timeout)?)
            }
        };
        if !reader.topics(topic)?.iter().any(|found| found.name == topic) {
            return Ok(());
        }
        let (first, end) = reader.bounds(topic, 0)?;
        let mut next_offset = match self.next_offset {
            Some(next_offset) if next_offset >= first => next_offset,
            _ => {
                reader.assign(topic, 0, first)?;
                first
            }
        };
        self.next_offset = Some(next_offset);
        let deadline = Instant::now() + self.timeout;
        while next_offset < end && Instant::now() < deadline {
            let consumed = match reader.poll(POLL_TIMEOUT) {
                Ok(Some(consumed)) => consumed,
                Ok(None) => continue,
                // Compaction was quicker than this reader.
                Err(LogError::OffsetGone { first, .. }) => {
                    reader.assign(topic, 0, first)?;
                    next_offset = first;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for span in &consumed.records {
                let key = consumed.key(span).and_then(reference_of);
                let text = consumed.value(span).and_then(|text| std::str::from_utf8(text).ok());
                if let (Some(key), Some(text)) = (key, text) {
                    self.texts.insert(key, text.into());
                }
            }
            next_offset = consumed.next_offset;
            self.next_offset = Some(next_offset);
        }
        Ok(())
    }
}

/// What a key of the topic stands for: 8 bytes are a fingerprint, a number's framing is the number.
fn reference_of(key: &[u8]) -> Option<SchemaReference> {
    match <[u8; 8]>::try_from(key) {
        Ok(fingerprint) => Some(SchemaReference::Fingerprint(u64::from_le_bytes(fingerprint))),
        Err(_) => match read_framing(key) {
            Ok((reference @ SchemaReference::Registry(_), [])) => Some(reference),
            _ => None,
        },
    }
}
