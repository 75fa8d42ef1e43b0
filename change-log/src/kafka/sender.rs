//! Hands records to the producer, and waits for the brokers where they take none: bounded in memory, told, and ended by
//! a stop.

use std::time::{Duration, Instant};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
    util::Timeout,
};
use tracing::warn;

use super::{
    deliveries::Deliveries,
    error_class::{Class, classify},
    flush::flush,
    in_flight::InFlight,
    stall::{Patience, Stall},
};
use crate::{error::LogError, writer::Waiting};

/// Ordinary records that wait for the brokers take no more memory than this.
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
const FULL_QUEUE_INTERVAL: Duration = Duration::from_millis(2);
/// How often a wait is looked at; it does nothing else meanwhile.
const WAIT_INTERVAL: Duration = Duration::from_millis(100);
/// A commit that has not come to its end by then is asked for again, which goes on with the same one.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// A source's producer.
pub struct Sender {
    pub producer: BaseProducer<Deliveries>,
    /// What was handed over lately.
    pub in_flight: InFlight,
    source_name: String,
    waiting: Waiting,
    stall: Stall,
    /// Records that waited when it was last looked at.
    left: i32,
}

/// Why records were not taken.
pub enum SendError {
    /// What the client said.
    Kafka(KafkaError),
    /// What was found wrong with a record.
    Log(LogError),
    /// A stop did not wait any longer.
    Stopped,
}

impl From<KafkaError> for SendError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

impl Sender {
    /// A producer that waits without end until it is told otherwise.
    pub fn new(producer: BaseProducer<Deliveries>, source_name: &str) -> Self {
        Self {
            producer,
            in_flight: InFlight::default(),
            source_name: source_name.to_owned(),
            waiting: Waiting::default(),
            stall: Stall::default(),
            left: 0,
        }
    }

    /// How to wait from now on.
    pub fn wait_as(&mut self, waiting: Waiting) {
        self.waiting = waiting;
    }

    /// Takes reports of records that failed.
    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Hands a record over, as soon as there is room for it.
    pub fn send(&mut self, record: BaseRecord<'_, [u8], [u8]>) -> Result<(), SendError> {
        let mut record = record;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(self.interval());
                    self.waits()?;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Waits until few enough bytes wait for the brokers.
    pub fn make_room(&mut self) -> Result<(), SendError> {
        loop {
            let left = usize::try_from(self.producer.in_flight_count()).unwrap_or_default();
            if self.in_flight.bytes(left) <= IN_FLIGHT_BYTES_MAX {
                return Ok(());
            }
            // Not a flush, which would end the lingering that makes large requests.
            self.producer.poll(self.interval());
            self.waits()?;
        }
    }

    /// Waits until no record is left, delivered or failed.
    pub fn flush(&mut self) -> Result<(), SendError> {
        while !flush(&self.producer, WAIT_INTERVAL) {
            self.poll();
            self.waits()?;
        }
        self.poll();
        self.took();
        Ok(())
    }

    /// Waits until all records are with the brokers; the first that is not is an error.
    pub fn deliver(&mut self) -> Result<(), SendError> {
        self.flush()?;
        match self.producer.context().failed() {
            None => Ok(()),
            Some(failed) => {
                let code = failed.code.unwrap_or(RDKafkaErrorCode::Fail);
                Err(KafkaError::MessageProduction(code).into())
            }
        }
    }

    /// Commits the open transaction, whose records are with the brokers.
    pub fn commit_transaction(&mut self) -> Result<(), SendError> {
        loop {
            match self.producer.commit_transaction(Timeout::After(COMMIT_INTERVAL)) {
                Ok(()) => {
                    self.took();
                    return Ok(());
                }
                // A commit that timed out has an unknown outcome: it is waited for, not given up.
                Err(error) if classify(&error) == Class::Retriable => {
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::OperationTimedOut) {
                        warn!(%error, "committing to kafka again");
                        std::thread::sleep(WAIT_INTERVAL);
                    }
                    self.waits()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn interval(&self) -> Duration {
        if self.stall.is_long(Instant::now()) { WAIT_INTERVAL } else { FULL_QUEUE_INTERVAL }
    }

    fn waits(&mut self) -> Result<(), SendError> {
        let left = self.producer.in_flight_count();
        if left < self.left {
            self.took();
        }
        self.left = left;
        match self.stall.waits(Instant::now(), &self.waiting, &self.source_name) {
            Patience::Wait => Ok(()),
            Patience::GiveUp => Err(SendError::Stopped),
        }
    }

    fn took(&mut self) {
        self.stall.ends(Instant::now(), &self.waiting, &self.source_name);
    }
}
