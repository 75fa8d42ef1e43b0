//! Sessions that change random rows of random tables at once, as many transactions as rows have been read: so the changes
//! are spread over the whole snapshot, and a slow machine is not outrun.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
};

use fastrand::Rng;

use super::{
    harness::{MySql, Session},
    tables::Table,
};

const SESSIONS: u64 = 3;
/// Tables without a key are read from one exact view, which a writer that never pauses keeps from being found.
const STATEMENTS_PER_KEYLESS: u32 = 200;

/// Transactions before the first row has been read.
const HEAD_START: u64 = 300;

/// The sessions, each a thread.
pub struct Workload {
    tables: Arc<Vec<Table>>,
    quota: Arc<Quota>,
    threads: Vec<JoinHandle<()>>,
}

/// How many transactions may be made.
#[derive(Default)]
struct Quota {
    state: Mutex<QuotaState>,
    changed: Condvar,
}

#[derive(Default)]
struct QuotaState {
    allowed: u64,
    taken: u64,
    closed: bool,
}

impl Quota {
    /// Waits until there is one more to be made; answers whether there will ever be.
    fn take(&self) -> bool {
        let exhausted = |state: &mut QuotaState| state.taken >= state.allowed && !state.closed;
        let waited = self.changed.wait_while(self.state(), exhausted);
        let mut state = waited.expect("no session has panicked");
        state.taken += 1;
        !state.closed
    }

    fn change(&self, change: impl FnOnce(&mut QuotaState)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, QuotaState> {
        self.state.lock().expect("no session has panicked")
    }
}

impl Workload {
    pub fn start(mysql: &MySql, database: &str, tables: Vec<Table>, seed: u64) -> Self {
        let (tables, quota) = (Arc::new(tables), Arc::new(Quota::default()));
        quota.change(|state| state.allowed = HEAD_START);
        let threads = (0..SESSIONS)
            .map(|number| {
                let mut session = mysql.session();
                session.exec(&format!("use `{database}`"));
                let writer = Writer {
                    session,
                    tables: tables.clone(),
                    random: Rng::with_seed(seed ^ (number + 1)),
                };
                let quota = quota.clone();
                std::thread::spawn(move || writer.run(&quota))
            })
            .collect();
        Self { tables, quota, threads }
    }

    pub fn names(&self) -> Vec<String> {
        self.tables.iter().map(|table| table.name.clone()).collect()
    }

    /// So many rows have been read by now.
    pub fn keep_up_with(&self, rows: u64) {
        self.quota.change(|state| state.allowed = HEAD_START + rows);
    }

    /// Ends the sessions; answers the tables and how many transactions were made.
    pub fn stop(self) -> (Vec<Table>, u64) {
        self.quota.change(|state| state.closed = true);
        for thread in self.threads {
            thread.join().expect("a session ends well");
        }
        let taken = self.quota.state().taken;
        (Arc::into_inner(self.tables).expect("the sessions are gone"), taken)
    }
}

struct Writer {
    session: Session,
    tables: Arc<Vec<Table>>,
    random: Rng,
}

impl Writer {
    fn run(mut self, quota: &Quota) {
        let (mut done, mut refused) = (0, 0);
        while quota.take() {
            let statements = if self.random.bool() { 1 } else { self.random.usize(2..=6) };
            if statements > 1 {
                self.session.exec("begin");
            }
            for _ in 0..statements {
                match self.statement() {
                    true => done += 1,
                    false => refused += 1,
                }
            }
            if statements > 1 {
                self.session.exec(if self.random.u8(..8) == 0 { "rollback" } else { "commit" });
            }
        }
        assert!(done > refused, "{done} statements were done, {refused} refused");
    }

    /// The server refuses some: keys that are there already, and deadlocks between the sessions.
    fn statement(&mut self) -> bool {
        let table = loop {
            let table = &self.tables[self.random.usize(..self.tables.len())];
            if table.has_key() || self.random.u32(..STATEMENTS_PER_KEYLESS) == 0 {
                break table;
            }
        };
        self.session.try_exec(&table.statement(&mut self.random)).is_ok()
    }
}
