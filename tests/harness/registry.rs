//! A real schema registry.

use super::not_tested;
use super::servers::{self, Server};

const SCRIPT: &str = "registry.sh";

/// A running registry with Confluent's interface.
pub struct Registry {
    server: Server,
}

impl Registry {
    /// A registry of the test's own.
    pub fn start() -> Option<Registry> {
        if let Err(why) = servers::install(SCRIPT) {
            not_tested(&why);
            return None;
        }
        Some(Registry { server: Server::start(SCRIPT, servers::owned_folder(), &[]) })
    }

    /// The base of its interface.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.server.port())
    }

    /// Stops it.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Kills it, as a power failure would.
    pub fn kill9(&mut self) {
        let id = std::fs::read_to_string(self.server.folder().join("registry.pid"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .expect("a running registry has a pid file");
        self.server.kill9(id);
    }

    /// Loses all that a stopped one had.
    pub fn forget(&self) {
        let file = self.server.folder().join("registry.mv.db");
        std::fs::remove_file(file).expect("the registry's file can be removed");
    }

    /// Starts it again at the same place.
    pub fn start_again(&mut self) {
        self.server.start_again(&[]);
    }
}
