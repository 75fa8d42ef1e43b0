//! Writers that change rows all the time and know what is committed, also when the server dies under a COMMIT.
//!
//! Each writer has keys and numbers of its own. A transaction changes some of its accounts and tells in `events`, which it
//! inserts into at its end, how many; the number in `events` and `keyless` counts its transactions without a gap.

mod judge;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::harness::Session;

pub use judge::judge;

/// Writers at work.
pub const WRITERS: u64 = 3;
/// Keys of each writer.
const KEYS: u64 = 12_000;
/// Rows that are there before the reader begins.
pub const FIRST_ROWS: u64 = 30_000;
const PAUSE: Duration = Duration::from_millis(15);
const RETRY_PAUSE: Duration = Duration::from_millis(300);
const COLUMNS_MAX: u64 = 6;
/// A note that makes a transaction over a writer's accounts larger than the reader holds in one Kafka transaction.
const WIDE_NOTE_BYTES: u64 = 7_000;

/// The tables, with the rows that a snapshot has to read.
pub fn prepare(session: &mut Session, database: &str) {
    session.exec(&format!(
        "CREATE DATABASE {database};
         CREATE TABLE {database}.accounts (id INT PRIMARY KEY, version INT NOT NULL, note MEDIUMTEXT);
         CREATE TABLE {database}.events (id BIGINT AUTO_INCREMENT PRIMARY KEY, writer INT NOT NULL, seq BIGINT NOT NULL,
           touched INT NOT NULL, note VARCHAR(60));
         CREATE TABLE {database}.keyless (writer INT NOT NULL, seq BIGINT NOT NULL)"
    ));
    let rows: Vec<String> =
        (0..FIRST_ROWS).map(|id| format!("({id}, 0, 'there before')")).collect();
    for rows in rows.chunks(1000) {
        session.exec(&format!("INSERT INTO {database}.accounts VALUES {}", rows.join(",")));
    }
}

/// Writers in threads of their own.
pub struct Workload {
    stop: Arc<AtomicBool>,
    transactions: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Writer>>,
}

/// One writer and what it has committed.
pub struct Writer {
    number: u64,
    database: String,
    port: u16,
    rng: fastrand::Rng,
    /// The versions of its accounts.
    accounts: BTreeMap<u64, u64>,
    committed: u64,
    /// What its accounts are if the last COMMIT, which was not answered, was made.
    doubt: Option<BTreeMap<u64, u64>>,
    columns: u64,
    /// Whether it has made a transaction with wide notes.
    widened: bool,
}

impl Writer {
    /// A writer that has the rows of `prepare`.
    pub fn new(number: u64, database: &str, port: u16, seed: u64) -> Writer {
        let accounts =
            (0..FIRST_ROWS).filter(|id| id % WRITERS == number).map(|id| (id, 0)).collect();
        let rng = fastrand::Rng::with_seed(seed.wrapping_mul(31).wrapping_add(number));
        let database = database.to_owned();
        Writer {
            number,
            database,
            port,
            rng,
            accounts,
            committed: 0,
            doubt: None,
            columns: 0,
            widened: false,
        }
    }

    /// Transactions that are committed.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Its number among the writers.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn work(mut self, stop: &AtomicBool, transactions: &AtomicU64) -> Writer {
        let mut session = None;
        while !stop.load(Ordering::Relaxed) {
            let open = match &mut session {
                Some(open) => open,
                None => match Session::local(self.port) {
                    Ok(open) => session.insert(open),
                    Err(_) => {
                        std::thread::sleep(RETRY_PAUSE);
                        continue;
                    }
                },
            };
            match self.transaction(open) {
                Ok(()) => {
                    transactions.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
                Err(_) => session = None,
            }
        }
        self
    }

    /// One transaction; an error means that the server is gone.
    fn transaction(&mut self, session: &mut Session) -> Result<(), String> {
        self.learn(session)?;
        if self.number == 0 && self.columns < COLUMNS_MAX && self.rng.u32(0..900) == 0 {
            let sql =
                format!("ALTER TABLE {}.accounts ADD COLUMN x{} INT", self.database, self.columns);
            // One that the server did but did not answer is there already.
            let _ = session.try_exec(&sql);
            self.columns += 1;
        }
        let mut accounts = self.accounts.clone();
        let (mut statements, mut touched) = (Vec::new(), 0);
        if self.rng.u32(0..1200) == 0 {
            touched += self.huge(&mut accounts, &mut statements);
        }
        for _ in 0..self.rng.u64(1..12) {
            touched += self.change(&mut accounts, &mut statements);
        }
        let (database, number, seq) = (&self.database, self.number, self.committed + 1);
        statements.push(format!(
            "INSERT INTO {database}.events (writer, seq, touched, note) VALUES ({number}, {seq}, {touched}, 'of {number}')"
        ));
        statements.push(format!("INSERT INTO {database}.keyless VALUES ({number}, {seq})"));
        if self.rng.u32(0..60) == 0 && seq > 400 {
            let before = seq - 200;
            statements.push(format!(
                "DELETE FROM {database}.events WHERE writer = {number} AND seq < {before}"
            ));
        }
        session.try_exec("BEGIN")?;
        for statement in statements {
            session.try_exec(&statement)?;
        }
        let ended = session.try_exec("COMMIT");
        // Whether a COMMIT without an answer was made is seen at the next connection.
        self.accounts = match ended {
            Ok(()) => {
                self.committed = seq;
                accounts
            }
            Err(error) => {
                self.doubt = Some(accounts);
                return Err(error);
            }
        };
        Ok(())
    }

    /// Whether the COMMIT that was not answered was made.
    fn learn(&mut self, session: &mut Session) -> Result<(), String> {
        if self.doubt.is_none() {
            return Ok(());
        }
        let sql = format!(
            "SELECT MAX(seq) FROM {}.keyless WHERE writer = {}",
            self.database, self.number
        );
        let rows = session.try_rows(&sql)?;
        let last = rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok()).unwrap_or(0);
        assert!(last == self.committed || last == self.committed + 1, "{last} {}", self.committed);
        if let Some(accounts) = self.doubt.take()
            && last == self.committed + 1
        {
            (self.committed, self.accounts) = (last, accounts);
        }
        Ok(())
    }

    /// Changes one account; answers how many changes a row's key sees.
    fn change(&mut self, accounts: &mut BTreeMap<u64, u64>, out: &mut Vec<String>) -> u64 {
        let table = format!("{}.accounts", self.database);
        let id = self.key();
        let Some(version) = accounts.get(&id).copied() else {
            out.push(format!("INSERT INTO {table} (id, version, note) VALUES ({id}, 1, 'new')"));
            accounts.insert(id, 1);
            return 1;
        };
        let next = version + 1;
        match self.rng.u32(0..10) {
            0 | 1 => {
                out.push(format!("DELETE FROM {table} WHERE id = {id}"));
                accounts.remove(&id);
                1
            }
            2 => {
                let other = self.key();
                if accounts.contains_key(&other) {
                    return 0;
                }
                out.push(format!(
                    "UPDATE {table} SET id = {other}, version = {next} WHERE id = {id}"
                ));
                accounts.remove(&id);
                accounts.insert(other, next);
                // A delete of the old key and an insert of the new one.
                2
            }
            _ => {
                let note = "n".repeat(self.rng.usize(0..150));
                out.push(format!(
                    "UPDATE {table} SET version = {next}, note = '{note}' WHERE id = {id}"
                ));
                accounts.insert(id, next);
                1
            }
        }
    }

    /// Changes all accounts of the writer; some transactions are so large that they are committed in parts.
    fn huge(&mut self, accounts: &mut BTreeMap<u64, u64>, out: &mut Vec<String>) -> u64 {
        let wide = self.number == 0 && (!self.widened || self.rng.u32(0..20) == 0);
        self.widened |= wide;
        let bytes = if wide { WIDE_NOTE_BYTES } else { 7 };
        out.push(format!(
            "UPDATE {}.accounts SET version = version + 1, note = REPEAT('h', {bytes}) WHERE id % {WRITERS} = {}",
            self.database, self.number
        ));
        accounts.values_mut().for_each(|version| *version += 1);
        accounts.len() as u64
    }

    fn key(&mut self) -> u64 {
        self.rng.u64(0..KEYS) * WRITERS + self.number
    }
}

impl Workload {
    /// Lets the writers work until `stop`.
    pub fn start(writers: Vec<Writer>) -> Workload {
        let (stop, transactions) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = writers
            .into_iter()
            .map(|writer| {
                let (stop, transactions) = (stop.clone(), transactions.clone());
                std::thread::spawn(move || writer.work(&stop, &transactions))
            })
            .collect();
        Workload { stop, transactions, threads }
    }

    /// Transactions so far.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    /// Ends the writers between two transactions; what they say is committed is.
    pub fn stop(self, session: &mut Session) -> Vec<Writer> {
        self.stop.store(true, Ordering::Relaxed);
        let writers = self.threads.into_iter().map(|thread| thread.join().expect("no panic"));
        let mut writers: Vec<Writer> = writers.collect();
        for writer in &mut writers {
            writer.learn(session).expect("the server answers");
        }
        writers
    }
}
