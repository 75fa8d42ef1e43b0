//! Asks a source's server how far it is, over a connection that is kept, and tells from answer to answer how late the
//! reader is.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use cdc_reader::{
    ReaderError, SourceConfig,
    mysql::{
        connect::{self, Server},
        place::{binlog_end, gtid_executed},
    },
};
use console::status::SourceStatus;
use mysql_async::Conn;
use schemas::{
    gtid_set::GtidSet,
    position::{BinlogPlace, Position},
};

use crate::gather::{age, now_ms};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that refuses is not asked more often than this: a wrong password may lock the account.
const RETRY_AFTER: Duration = Duration::from_secs(15);
/// A reader that is away for long makes no more entries than this.
const BEHIND_MAX: usize = 1000;

/// How far a server is.
struct ServerPlace {
    gtid_set: String,
    place: BinlogPlace,
}

/// One server.
pub struct ServerWatch {
    config: SourceConfig,
    link: Option<(Conn, Server)>,
    refused: Option<(Instant, String)>,
    behind: VecDeque<(GtidSet, i64)>,
    unreached: VecDeque<(BinlogPlace, i64)>,
    looks: u64,
}

impl ServerWatch {
    /// Nothing is asked yet.
    pub fn new(config: &SourceConfig) -> Self {
        let config = config.clone();
        Self {
            config,
            link: None,
            refused: None,
            behind: VecDeque::new(),
            unreached: VecDeque::new(),
            looks: 0,
        }
    }

    /// Asks the server, unless it refused lately, and fills in what it answers.
    pub async fn fill(&mut self, position: Option<&Position>, status: &mut SourceStatus) {
        let server = match self.ask_in_time().await {
            Ok(server) => server,
            Err(problem) => {
                status.problem = Some(problem);
                return;
            }
        };
        if let Some(position) = position {
            let done = position.gtid_set.parse::<GtidSet>();
            let executed = server.gtid_set.parse::<GtidSet>();
            match (done, executed) {
                (Ok(done), Ok(executed)) if !position.by_place => {
                    status.transactions_behind = Some(executed.difference(&done).count());
                    let time_ms = position.source_time_ms;
                    let since = self.behind_since(&done, executed, time_ms, now_ms());
                    status.lag_seconds = Some(age(since));
                }
                // MariaDB, or no GTIDs: transactions cannot be counted, but places can be passed.
                _ => {
                    let since = self.unreached_since(&position.place, &server.place, now_ms());
                    status.lag_seconds = Some(age(since));
                }
            }
        }
        status.server_place = Some(format!("{}:{}", server.place.file, server.place.offset));
        status.server_gtid_set = Some(server.gtid_set);
    }

    /// Since when the reader lacks what the server has: the time of the first look that showed it. At the first look
    /// nothing is known but when the last transaction was made that is in the log.
    fn behind_since(
        &mut self,
        done: &GtidSet,
        executed: GtidSet,
        last_transaction_ms: i64,
        now_ms: i64,
    ) -> Option<i64> {
        self.looks += 1;
        if !done.contains_set(&executed) && self.behind.len() < BEHIND_MAX {
            let first_look = self.looks == 1 && last_transaction_ms > 0;
            self.behind
                .push_back((executed, if first_look { last_transaction_ms } else { now_ms }));
        }
        while self.behind.front().is_some_and(|(set, _)| done.contains_set(set)) {
            self.behind.pop_front();
        }
        self.behind.front().map(|(_, since)| *since)
    }

    /// The same by places: since when the server has one that the reader has not reached.
    fn unreached_since(
        &mut self,
        done: &BinlogPlace,
        end: &BinlogPlace,
        now_ms: i64,
    ) -> Option<i64> {
        if !done.reached(end) && self.unreached.len() < BEHIND_MAX {
            self.unreached.push_back((end.clone(), now_ms));
        }
        while self.unreached.front().is_some_and(|(place, _)| done.reached(place)) {
            self.unreached.pop_front();
        }
        self.unreached.front().map(|(_, since)| *since)
    }

    async fn ask_in_time(&mut self) -> Result<ServerPlace, String> {
        if let Some((at, reason)) = &self.refused
            && at.elapsed() < RETRY_AFTER
        {
            return Err(reason.clone());
        }
        self.refused = None;
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.ask()).await;
        let reason = match asked {
            Ok(Ok(place)) => return Ok(place),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("its server does not answer within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        self.link = None;
        self.refused = Some((Instant::now(), reason.clone()));
        Err(reason)
    }

    async fn ask(&mut self) -> Result<ServerPlace, ReaderError> {
        let (mut connection, server) = match self.link.take() {
            Some(link) => link,
            None => {
                let mut connection = connect::connect(&self.config).await?;
                let place = connect::place(&self.config);
                let server = connect::server(&mut connection, &place).await?;
                (connection, server)
            }
        };
        let gtid_set = gtid_executed(&mut connection, &server).await?;
        let place = binlog_end(&mut connection, &server).await?;
        self.link = Some((connection, server));
        Ok(ServerPlace { gtid_set, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn watch() -> ServerWatch {
        let config = serde_json::json!({"name": "a", "url": "mysql://u@h"});
        ServerWatch::new(&serde_json::from_value(config).expect("a source"))
    }

    fn set(last: u64) -> GtidSet {
        format!("{SERVER}:1-{last}").parse().expect("a set")
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_look_that_the_reader_has_not_reached() {
        let mut watch = watch();
        // One look alone only knows when the last transaction was made that the log has.
        assert_eq!(watch.behind_since(&set(3), set(5), 100, 1000), Some(100));
        assert_eq!(watch.behind_since(&set(4), set(6), 100, 2000), Some(100));
        assert_eq!(watch.behind_since(&set(5), set(7), 100, 3000), Some(2000));
        assert_eq!(watch.behind_since(&set(7), set(7), 100, 4000), None);
        // After hours without any change, the first one does not make the reader hours late.
        assert_eq!(watch.behind_since(&set(7), set(8), 100, 9_000_000), Some(9_000_000));
    }

    #[test]
    fn lag_by_places_is_the_age_of_the_oldest_that_is_not_reached() {
        let mut watch = watch();
        let place = |offset| BinlogPlace { file: "b.000001".into(), offset };
        assert_eq!(watch.unreached_since(&place(10), &place(10), 1_000), None);
        assert_eq!(watch.unreached_since(&place(10), &place(20), 2_000), Some(2_000));
        assert_eq!(watch.unreached_since(&place(15), &place(30), 3_000), Some(2_000));
        assert_eq!(watch.unreached_since(&place(20), &place(40), 4_000), Some(3_000));
        assert_eq!(watch.unreached_since(&place(40), &place(40), 5_000), None);
    }
}
