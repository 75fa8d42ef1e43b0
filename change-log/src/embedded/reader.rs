//! The embedded log's reader: short read transactions over every source's file of the folder. It notices commits of
//! other processes by SQLite's `data_version`, which is read from shared memory.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use super::{
    acknowledgements::AcknowledgementFile,
    database::{acknowledged_file, list_logs, make_folder, unfit},
    log_file_reader::{LogFile, StoredTopic},
};
use crate::{
    error::LogError,
    reader::{Consumed, LogReader, TopicInfo},
};

const POLL_INTERVAL: Duration = Duration::from_millis(10);
const LISTING_INTERVAL: Duration = Duration::from_millis(250);
const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_millis(100);

/// A reader of all sources' logs in one folder.
#[derive(Debug)]
pub struct EmbeddedReader {
    folder: PathBuf,
    files: Vec<LogFile>,
    listed_at: Instant,
    assigned: Vec<AssignedTopic>,
    turn: usize,
    acknowledgements: HashMap<PathBuf, AcknowledgementFile>,
    unwritten: HashMap<(String, String), i64>,
    written_at: Option<Instant>,
}

#[derive(Debug)]
struct AssignedTopic {
    topic: Arc<str>,
    next_offset: i64,
    paused: bool,
}

impl EmbeddedReader {
    /// Opens a reader of `folder`, which is made when it is missing.
    pub fn open(folder: &Path) -> Result<Self, LogError> {
        make_folder(folder)?;
        let mut reader = Self {
            folder: folder.to_owned(),
            files: Vec::new(),
            listed_at: Instant::now(),
            assigned: Vec::new(),
            turn: 0,
            acknowledgements: HashMap::new(),
            unwritten: HashMap::new(),
            written_at: None,
        };
        reader.list_files()?;
        Ok(reader)
    }

    fn list_files(&mut self) -> Result<(), LogError> {
        for path in list_logs(&self.folder)? {
            if !self.files.iter().any(|file| file.path() == path)
                && let Some(file) = LogFile::open(&path)?
            {
                self.files.push(file);
            }
        }
        self.listed_at = Instant::now();
        Ok(())
    }

    fn refresh(&mut self) -> Result<(), LogError> {
        if self.listed_at.elapsed() >= LISTING_INTERVAL {
            self.list_files()?;
        }
        for file in &mut self.files {
            file.refresh()?;
        }
        Ok(())
    }

    /// The topic as it is now, also when its file has just been made.
    fn find(&mut self, topic: &str) -> Result<Option<StoredTopic>, LogError> {
        self.list_files()?;
        for file in &mut self.files {
            file.refresh()?;
        }
        Ok(self.files.iter().find_map(|file| file.topic(topic)).copied())
    }

    fn assigned_topic(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> Result<&mut AssignedTopic, LogError> {
        let place = || LogError::Unfit {
            place: format!("{topic}[{partition}]"),
            reason: "it is not assigned to this reader".to_owned(),
        };
        check_partition(&self.folder, topic, partition)?;
        self.assigned.iter_mut().find(|assigned| &*assigned.topic == topic).ok_or_else(place)
    }

    /// The next batch of the first topic in turn that has one.
    fn next_batch(&mut self) -> Result<Option<Consumed>, LogError> {
        let count = self.assigned.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let assigned = &mut self.assigned[index];
            if assigned.paused {
                continue;
            }
            let holds = |file: &LogFile| file.topic(&assigned.topic).is_some();
            let Some(file) = self.files.iter_mut().find(|file| holds(file)) else {
                continue;
            };
            let Some(consumed) = file.read(&assigned.topic, assigned.next_offset)? else {
                continue;
            };
            assigned.next_offset = consumed.next_offset;
            self.turn = (index + 1) % count;
            return Ok(Some(consumed));
        }
        Ok(None)
    }

    /// Writes what sinks acknowledged; what another process's lock prevents is tried again later.
    fn write_acknowledged(&mut self) {
        self.written_at = Some(Instant::now());
        let mut written = Vec::new();
        for ((group, topic), &offset) in &self.unwritten {
            let Some(file) = self.files.iter().find(|file| file.topic(topic).is_some()) else {
                continue;
            };
            let path = acknowledged_file(file.path());
            if !self.acknowledgements.contains_key(&path) {
                match AcknowledgementFile::open(&path) {
                    Ok(opened) => {
                        self.acknowledgements.insert(path.clone(), opened);
                    }
                    Err(error) => {
                        warn!(file = %path.display(), %error, "offsets can't be acknowledged yet");
                        break;
                    }
                }
            }
            let Some(opened) = self.acknowledgements.get(&path) else {
                break;
            };
            match opened.write(group, topic, offset) {
                Ok(()) => written.push((group.clone(), topic.clone())),
                Err(error) => {
                    warn!(file = %path.display(), %error, "offsets can't be acknowledged yet");
                    break;
                }
            }
        }
        for entry in written {
            self.unwritten.remove(&entry);
        }
    }

    fn retry_acknowledging(&mut self) {
        let due = self.written_at.is_none_or(|at| at.elapsed() >= ACKNOWLEDGE_INTERVAL);
        if due && !self.unwritten.is_empty() {
            self.write_acknowledged();
        }
    }
}

impl LogReader for EmbeddedReader {
    fn topics(&mut self, prefix: &str) -> Result<Vec<TopicInfo>, LogError> {
        self.list_files()?;
        let mut topics = Vec::new();
        for file in &mut self.files {
            file.refresh()?;
            let names = file.topic_names().filter(|name| name.starts_with(prefix));
            topics.extend(names.map(|name| TopicInfo { name: name.to_owned(), partitions: 1 }));
        }
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    fn bounds(&mut self, topic: &str, partition: i32) -> Result<(i64, i64), LogError> {
        check_partition(&self.folder, topic, partition)?;
        let found = self.find(topic)?;
        Ok(found.map_or((0, 0), |topic| (topic.first_offset, topic.next_offset)))
    }

    fn assign(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), LogError> {
        check_partition(&self.folder, topic, partition)?;
        let (first, next) = self.bounds(topic, partition)?;
        // An offset beyond the end means that the log was made anew: waiting for it would skip records.
        if offset < first || offset > next {
            let topic = topic.to_owned();
            return Err(LogError::OffsetGone { topic, partition, wanted: offset, first });
        }
        match self.assigned.iter_mut().find(|assigned| &*assigned.topic == topic) {
            Some(assigned) => assigned.next_offset = offset,
            None => self.assigned.push(AssignedTopic {
                topic: topic.into(),
                next_offset: offset,
                paused: false,
            }),
        }
        Ok(())
    }

    fn unassign(&mut self, topic: &str, partition: i32) -> Result<(), LogError> {
        check_partition(&self.folder, topic, partition)?;
        self.assigned.retain(|assigned| &*assigned.topic != topic);
        Ok(())
    }

    fn pause(&mut self, topic: &str, partition: i32) -> Result<(), LogError> {
        self.assigned_topic(topic, partition)?.paused = true;
        Ok(())
    }

    fn resume(&mut self, topic: &str, partition: i32) -> Result<(), LogError> {
        self.assigned_topic(topic, partition)?.paused = false;
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Result<Option<Consumed>, LogError> {
        let deadline = Instant::now() + timeout;
        self.retry_acknowledging();
        loop {
            self.refresh()?;
            if let Some(consumed) = self.next_batch()? {
                return Ok(Some(consumed));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(left.min(POLL_INTERVAL));
        }
    }

    fn acknowledge(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), LogError> {
        check_partition(&self.folder, topic, partition)?;
        self.unwritten.insert((group.to_owned(), topic.to_owned()), offset);
        self.write_acknowledged();
        Ok(())
    }
}

impl Drop for EmbeddedReader {
    fn drop(&mut self) {
        if !self.unwritten.is_empty() {
            self.write_acknowledged();
        }
    }
}

fn check_partition(folder: &Path, topic: &str, partition: i32) -> Result<(), LogError> {
    if partition == 0 {
        return Ok(());
    }
    Err(unfit(folder, format!("{topic} has partition 0 only, and {partition} was asked for")))
}
