//! A real Kafka broker.

use std::sync::OnceLock;

use super::not_tested;
use super::servers::{self, Server, Stopped};

const SCRIPT: &str = "kafka.sh";

/// A running broker. Topics belong to the source's name, so tests that share a broker name their
/// sources differently.
pub struct Kafka {
    server: Server,
}

impl Kafka {
    /// The broker that all tests of this binary share, started by the first one that asks.
    pub fn shared() -> Option<&'static Kafka> {
        static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            servers::install(SCRIPT).ok()?;
            Some(Kafka { server: Server::start(SCRIPT, servers::shared_folder(), &[]) })
        });
        if shared.is_none() {
            not_tested(&servers::install(SCRIPT).err().unwrap_or_default());
        }
        shared.as_ref()
    }

    /// A broker of the test's own, with properties such as `message.max.bytes=2000000`.
    pub fn start(properties: &[&str]) -> Option<Kafka> {
        if let Err(why) = servers::install(SCRIPT) {
            not_tested(&why);
            return None;
        }
        Some(Kafka { server: Server::start(SCRIPT, servers::owned_folder(), properties) })
    }

    /// What a client is configured with.
    pub fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.server.port())
    }

    /// Stops the broker in an orderly way.
    pub fn stop(&mut self) -> Stopped {
        self.server.stop()
    }

    /// Kills the broker, as a power failure would.
    pub fn kill9(&mut self) {
        let id = std::fs::read_to_string(self.server.folder().join("kafka.pid"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .expect("a running broker has a pid file");
        self.server.kill9(id);
    }

    /// Starts a stopped broker again, with its topics and on its port.
    pub fn start_again(&mut self, properties: &[&str]) {
        self.server.start_again(properties);
    }
}
