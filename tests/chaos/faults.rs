//! What is done to whom.

use std::time::{Duration, Instant};

use crate::{
    harness::{Binlake, Kafka, MySql, Proxy, Registry},
    scenario::Scenario,
};

/// How long an orderly stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
const TICK: Duration = Duration::from_millis(50);

/// A thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    KillReader,
    KillSink,
    KillBoth,
    TerminateReader,
    TerminateSink,
    FreezeReader,
    FreezeSink,
    CutNetwork,
    StallNetwork,
    KillBroker,
    KillMySql,
    KillRegistry,
}

impl Fault {
    /// One by chance; those that take long are rarer.
    pub fn draw(rng: &mut fastrand::Rng) -> Fault {
        match rng.u32(0..100) {
            0..20 => Fault::KillReader,
            20..36 => Fault::KillSink,
            36..44 => Fault::KillBoth,
            44..50 => Fault::TerminateReader,
            50..56 => Fault::TerminateSink,
            56..62 => Fault::FreezeReader,
            62..67 => Fault::FreezeSink,
            67..78 => Fault::CutNetwork,
            78..84 => Fault::StallNetwork,
            84..91 => Fault::KillBroker,
            91..97 => Fault::KillMySql,
            _ => Fault::KillRegistry,
        }
    }

    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Fault::KillReader => "kill -9 reader",
            Fault::KillSink => "kill -9 sink",
            Fault::KillBoth => "kill -9 reader and sink",
            Fault::TerminateReader => "SIGTERM reader",
            Fault::TerminateSink => "SIGTERM sink",
            Fault::FreezeReader => "freeze reader",
            Fault::FreezeSink => "freeze sink",
            Fault::CutNetwork => "cut connections to MySQL",
            Fault::StallNetwork => "stall network to MySQL",
            Fault::KillBroker => "kill -9 broker",
            Fault::KillMySql => "kill -9 MySQL",
            Fault::KillRegistry => "kill -9 registry",
        }
    }
}

/// The reader or the sink.
pub struct Part {
    name: &'static str,
    /// What it logs once it is past the point where a start may fail because a server is down.
    at_work: &'static str,
    process: Binlake,
}

impl Part {
    /// Starts it.
    pub fn start(scenario: &Scenario, name: &'static str, at_work: &'static str) -> Part {
        Part { name, at_work, process: scenario.start(name) }
    }

    /// Waits for a line of its log.
    pub fn wait_logged(&mut self, timeout: Duration, text: &str) {
        self.process.wait_logged(timeout, text);
    }

    /// Starts it again when it has ended: a start while a server is down may fail, as it does under Kubernetes. One that
    /// was at work has given up, and must not.
    fn keep_alive(&mut self, scenario: &Scenario) {
        if self.process.is_running() {
            return;
        }
        let said = self.process.stderr();
        assert!(
            !said.contains(self.at_work),
            "the {} gave up ({}):\n{}",
            self.name,
            self.process.wait_exit(TICK),
            said.lines().rev().take(20).collect::<Vec<_>>().join("\n")
        );
        self.process = scenario.start(self.name);
    }

    fn kill(&mut self, scenario: &Scenario) {
        self.keep_alive(scenario);
        self.process.kill9();
        self.process = scenario.start(self.name);
    }

    fn terminate(&mut self, scenario: &Scenario) {
        self.keep_alive(scenario);
        self.process.terminate();
        self.process.wait_exit(STOP_TIMEOUT);
        self.process = scenario.start(self.name);
    }
}

/// Everything that may fail.
pub struct World {
    pub reader: Part,
    pub sink: Part,
    pub scenario: Scenario,
    pub mysql: MySql,
    pub network: Proxy,
    pub kafka: Kafka,
    pub registry: Registry,
    pub began: Instant,
}

impl World {
    /// A line of the log.
    pub fn tell(&self, what: &str) {
        println!("{:7.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Lets all of it work for a while.
    pub fn let_run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.reader.keep_alive(&self.scenario);
            self.sink.keep_alive(&self.scenario);
            std::thread::sleep(TICK);
        }
    }

    /// Makes it happen, and mends it.
    pub fn make(&mut self, fault: Fault, rng: &mut fastrand::Rng) {
        match fault {
            Fault::KillReader => self.reader.kill(&self.scenario),
            Fault::KillSink => self.sink.kill(&self.scenario),
            Fault::KillBoth => {
                self.reader.kill(&self.scenario);
                self.sink.kill(&self.scenario);
            }
            Fault::TerminateReader => self.reader.terminate(&self.scenario),
            Fault::TerminateSink => self.sink.terminate(&self.scenario),
            Fault::FreezeReader => {
                self.reader.process.freeze();
                std::thread::sleep(Duration::from_millis(rng.u64(500..5000)));
                self.reader.process.go_on();
            }
            Fault::FreezeSink => {
                self.sink.process.freeze();
                std::thread::sleep(Duration::from_millis(rng.u64(500..5000)));
                self.sink.process.go_on();
            }
            Fault::CutNetwork => self.network.cut(),
            Fault::StallNetwork => {
                self.network.stall();
                self.let_run(Duration::from_millis(rng.u64(500..8000)));
                self.network.go_on();
            }
            Fault::KillBroker => {
                self.kafka.kill9();
                self.let_run(Duration::from_millis(rng.u64(0..3000)));
                self.kafka.start_again(&[]);
            }
            Fault::KillMySql => {
                self.mysql.kill9();
                self.let_run(Duration::from_millis(rng.u64(0..3000)));
                self.mysql.start_again(&[]);
            }
            Fault::KillRegistry => {
                self.registry.kill9();
                self.let_run(Duration::from_millis(rng.u64(0..3000)));
                self.registry.start_again();
            }
        }
    }
}
