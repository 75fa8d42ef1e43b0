//! Owns the log's reader on a thread of its own: lists topics, hands records to the tables' workers, pauses the
//! partitions of tables that hold too much memory, and passes acknowledgements on. Calls of the reader block; nothing
//! else here does.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use change_log::{Consumed, LogError, LogReader};
use schemas::table_id::TableId;
use tokio::sync::mpsc::{
    Receiver, Sender,
    error::{TryRecvError, TrySendError},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{error::SinkError, memory_budget::TableMemory, share::Share};

/// The group under which offsets are acknowledged.
pub const GROUP: &str = "binlake-sink";

const LIST_INTERVAL: Duration = Duration::from_secs(1);
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What a worker asks for.
pub enum Command {
    /// Hand over the topic's records, from these offsets on; partitions without one from the first that is there.
    Serve(Service),
    /// The lake contains the partition up to this offset.
    Acknowledge {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset to read.
        next_offset: i64,
    },
    /// The worker is gone.
    Release {
        /// The topic.
        topic: String,
    },
}

/// A worker that takes a topic's records.
pub struct Service {
    /// The topic.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// Where to begin.
    pub next_offsets: BTreeMap<i32, i64>,
    /// Where to send them.
    pub records: Sender<Delivery>,
    /// Counts their bytes.
    pub memory: Arc<TableMemory>,
}

/// What a worker gets.
#[derive(Debug)]
pub enum Delivery {
    /// The partitions are assigned, from these offsets on.
    Assigned(BTreeMap<i32, i64>),
    /// Records.
    Records(Consumed),
    /// Records that the table needs are gone.
    Gone {
        /// The partition.
        partition: i32,
        /// The offset that is needed.
        wanted: i64,
        /// The first that is left.
        first: i64,
    },
}

/// A topic that nobody has served yet.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// The table.
    pub table: TableId,
    /// The topic.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: i32,
}

/// Runs until the token is cancelled and no worker is left, or the log fails for good.
pub fn run(
    reader: Box<dyn LogReader>,
    sources: Vec<String>,
    share: Share,
    commands: Receiver<Command>,
    discovered: Sender<Discovered>,
    shutdown: CancellationToken,
) -> Result<(), SinkError> {
    let mut router = Router {
        reader,
        sources,
        share,
        known: HashSet::new(),
        waiting: Vec::new(),
        routes: HashMap::new(),
        commands,
    };
    let mut listed_at: Option<Instant> = None;
    loop {
        if router.obey_commands()? == Workers::Gone {
            return Ok(());
        }
        if shutdown.is_cancelled() {
            // Only acknowledgements are left to come.
            std::thread::sleep(POLL_TIMEOUT / 5);
            continue;
        }
        if listed_at.is_none_or(|at| at.elapsed() >= LIST_INTERVAL) {
            listed_at = Some(Instant::now());
            match router.list() {
                Ok(new) => {
                    for topic in new {
                        if discovered.blocking_send(topic).is_err() {
                            return Ok(());
                        }
                    }
                }
                Err(error) => endure(error, &shutdown)?,
            }
        }
        if let Err(error) = router.serve_waiting() {
            endure(error, &shutdown)?;
        }
        router.balance()?;
        match router.reader.poll(POLL_TIMEOUT) {
            Ok(Some(consumed)) => router.deliver(consumed)?,
            Ok(None) => {}
            Err(LogError::OffsetGone { topic, partition, wanted, first }) => {
                router.tell_gone(&topic, Delivery::Gone { partition, wanted, first })?;
            }
            Err(error) => endure(error, &shutdown)?,
        }
    }
}

struct Router {
    reader: Box<dyn LogReader>,
    sources: Vec<String>,
    share: Share,
    known: HashSet<String>,
    waiting: Vec<Service>,
    routes: HashMap<String, Route>,
    commands: Receiver<Command>,
}

struct Route {
    service: Service,
    /// Records that did not fit the worker's queue.
    held: Vec<Consumed>,
    paused: bool,
}

#[derive(PartialEq, Eq)]
enum Workers {
    Running,
    Gone,
}

impl Router {
    fn obey_commands(&mut self) -> Result<Workers, SinkError> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Serve(service)) => self.waiting.push(service),
                Ok(Command::Acknowledge { topic, partition, next_offset }) => {
                    match self.reader.acknowledge(GROUP, &topic, partition, next_offset) {
                        Ok(()) => {}
                        // The offsets in the lake are what counts; the next commit acknowledges again.
                        Err(error) => warn!(topic, %error, "offset was not acknowledged"),
                    }
                }
                Ok(Command::Release { topic }) => self.release(&topic)?,
                Err(TryRecvError::Empty) => return Ok(Workers::Running),
                Err(TryRecvError::Disconnected) => return Ok(Workers::Gone),
            }
        }
    }

    fn list(&mut self) -> Result<Vec<Discovered>, LogError> {
        let mut new = Vec::new();
        for source in &self.sources {
            for topic in self.reader.topics(&format!("{source}."))? {
                let Some(table) = TableId::from_topic(&topic.name) else { continue };
                if table.source != *source
                    || !self.share.takes(&topic.name)
                    || !self.known.insert(topic.name.clone())
                {
                    continue;
                }
                new.push(Discovered { table, topic: topic.name, partitions: topic.partitions });
            }
        }
        Ok(new)
    }

    fn serve_waiting(&mut self) -> Result<(), LogError> {
        while let Some(service) = self.waiting.pop() {
            match self.assign_all(&service) {
                Ok(starts) => self.begin(service, Delivery::Assigned(starts)),
                Err(LogError::OffsetGone { partition, wanted, first, .. }) => {
                    // The queue is new and empty.
                    let gone = Delivery::Gone { partition, wanted, first };
                    if service.records.try_send(gone).is_err() {
                        debug!(topic = service.topic, "worker was gone before its records were");
                    }
                }
                Err(error) => {
                    self.waiting.push(service);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, service: Service, assigned: Delivery) {
        if service.records.try_send(assigned).is_ok() {
            let topic = service.topic.clone();
            self.routes.insert(topic, Route { service, held: Vec::new(), paused: false });
        }
    }

    fn assign_all(&mut self, service: &Service) -> Result<BTreeMap<i32, i64>, LogError> {
        (0..service.partitions)
            .map(|partition| Ok((partition, self.assign(service, partition)?)))
            .collect()
    }

    fn assign(&mut self, service: &Service, partition: i32) -> Result<i64, LogError> {
        let start = match service.next_offsets.get(&partition) {
            Some(&next_offset) => next_offset,
            None => self.reader.bounds(&service.topic, partition)?.0,
        };
        self.reader.assign(&service.topic, partition, start)?;
        Ok(start)
    }

    fn release(&mut self, topic: &str) -> Result<(), SinkError> {
        let Some(route) = self.routes.remove(topic) else { return Ok(()) };
        for partition in 0..route.service.partitions {
            self.reader.unassign(topic, partition)?;
        }
        Ok(())
    }

    fn deliver(&mut self, consumed: Consumed) -> Result<(), SinkError> {
        let topic = Arc::clone(&consumed.topic);
        let Some(route) = self.routes.get_mut(&*topic) else { return Ok(()) };
        route.service.memory.add(consumed.bytes.len());
        route.held.push(consumed);
        route.send_held();
        if route.must_wait() && !route.paused {
            set_paused(self.reader.as_mut(), route, Pause::Begin)?;
        }
        Ok(())
    }

    /// Sends what was held back, and lets those read on whose memory is free again.
    fn balance(&mut self) -> Result<(), SinkError> {
        for route in self.routes.values_mut().filter(|route| route.paused) {
            route.send_held();
            if !route.must_wait() {
                set_paused(self.reader.as_mut(), route, Pause::End)?;
            }
        }
        Ok(())
    }

    fn tell_gone(&mut self, topic: &str, gone: Delivery) -> Result<(), SinkError> {
        if let Some(route) = self.routes.get(topic)
            && route.service.records.try_send(gone).is_err()
        {
            // The queue is full: the next poll finds the same again.
            return Ok(());
        }
        self.release(topic)
    }
}

impl Route {
    fn send_held(&mut self) {
        let mut held = std::mem::take(&mut self.held).into_iter();
        while let Some(consumed) = held.next() {
            match self.service.records.try_send(Delivery::Records(consumed)) {
                Ok(()) => {}
                Err(TrySendError::Full(Delivery::Records(consumed))) => {
                    self.held = std::iter::once(consumed).chain(held).collect();
                    return;
                }
                // The worker is gone; what it did not commit is read again after a restart.
                Err(_) => return,
            }
        }
    }

    fn must_wait(&self) -> bool {
        !self.held.is_empty() || self.service.memory.must_wait()
    }
}

#[derive(Clone, Copy)]
enum Pause {
    Begin,
    End,
}

fn set_paused(
    reader: &mut dyn LogReader,
    route: &mut Route,
    pause: Pause,
) -> Result<(), SinkError> {
    for partition in 0..route.service.partitions {
        match pause {
            Pause::Begin => reader.pause(&route.service.topic, partition)?,
            Pause::End => reader.resume(&route.service.topic, partition)?,
        }
    }
    route.paused = matches!(pause, Pause::Begin);
    Ok(())
}

/// Waits when the log can't be reached for now; fails when waiting does not help.
fn endure(error: LogError, shutdown: &CancellationToken) -> Result<(), SinkError> {
    let error = SinkError::Log(error);
    if error.consequence() != crate::error::Consequence::Retry {
        return Err(error);
    }
    warn!(error = crate::error::with_causes(&error), "change log can't be read; trying again");
    let until = Instant::now() + RETRY_INTERVAL;
    while Instant::now() < until && !shutdown.is_cancelled() {
        std::thread::sleep(POLL_TIMEOUT);
    }
    Ok(())
}
