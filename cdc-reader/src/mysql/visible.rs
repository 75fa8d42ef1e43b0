//! Waiting until a SELECT sees everything that the binlog holds, on a server without GTIDs.
//!
//! A transaction is in the binlog, and is sent to replicas, before its engine commits it; with semi-synchronous
//! replication by a round trip or by the whole time-out. With GTIDs `WAIT_FOR_EXECUTED_GTID_SET` bridges that gap.
//! Without them there are two signs; each is exact, for every transaction that was flushed to the binlog before it was
//! asked for:
//! - `Ongoing_anonymous_transaction_count` is 0 (and `gtid_owned` is empty, for servers between two GTID modes): a
//!   transaction counts from before it is flushed until after its engine has committed it. On a busy server it may
//!   never be 0 when it is looked at.
//! - Whoever held a lock on COMMIT at first (`performance_schema.metadata_locks`) holds it no longer: a commit takes
//!   that lock before it is flushed and gives it back after the engine. New commits do not matter here, so the wait
//!   ends however busy the server is. The lock is named by thread, event and address; should a later commit of the same
//!   thread look the same, the wait is only longer. It needs SELECT on `performance_schema`, which a user may lack.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use mysql_async::{Conn, prelude::Queryable};

use super::{
    connect::{Server, classify},
    place::gtid_owned,
};
use crate::error::ReaderError;

const PAUSE: Duration = Duration::from_millis(5);

/// Thread, event and address of a lock.
type Lock = (u64, u64, u64);

/// Waits until the engines have committed every transaction that is in the binlog now.
pub async fn wait_until_visible(
    connection: &mut Conn,
    server: &Server,
    timeout: Duration,
) -> Result<(), ReaderError> {
    let started = Instant::now();
    let mut commits: Option<HashSet<Lock>> = None;
    loop {
        if is_quiet(connection, server).await? {
            return Ok(());
        }
        match &mut commits {
            None => commits = commit_locks(connection, server).await?,
            Some(first) => {
                if let Some(now) = commit_locks(connection, server).await? {
                    first.retain(|lock| now.contains(lock));
                }
            }
        }
        if commits.as_ref().is_some_and(HashSet::is_empty) {
            return Ok(());
        }
        if started.elapsed() >= timeout {
            let cure = if commits.is_none() {
                "; the server commits all the time, and the user cannot see when a commit ends: GRANT SELECT ON \
                 performance_schema.* to it, or switch GTIDs on"
            } else {
                ""
            };
            return Err(ReaderError::Transient {
                place: server.place.clone(),
                reason: format!(
                    "a transaction of the binlog is not committed after {} s{cure}",
                    timeout.as_secs()
                ),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn is_quiet(connection: &mut Conn, server: &Server) -> Result<bool, ReaderError> {
    let ongoing: Option<(String, String)> = connection
        .query_first("SHOW GLOBAL STATUS LIKE 'Ongoing\\_anonymous\\_transaction\\_count'")
        .await
        .map_err(|error| classify(error, &server.place))?;
    Ok(ongoing.is_some_and(|(_, count)| count == "0")
        && gtid_owned(connection, server).await?.is_empty())
}

/// Who holds a lock on COMMIT; `None` when the server does not (let us) see all of them.
async fn commit_locks(
    connection: &mut Conn,
    server: &Server,
) -> Result<Option<HashSet<Lock>>, ReaderError> {
    let complete = "SELECT COUNT(*) FROM performance_schema.setup_instruments i, \
         performance_schema.setup_consumers c, performance_schema.global_status s \
         WHERE i.NAME = 'wait/lock/metadata/sql/mdl' AND i.ENABLED = 'YES' AND c.NAME = 'global_instrumentation' \
         AND c.ENABLED = 'YES' AND s.VARIABLE_NAME = 'Performance_schema_metadata_lock_lost' AND s.VARIABLE_VALUE = 0";
    let locks = "SELECT OWNER_THREAD_ID, OWNER_EVENT_ID, OBJECT_INSTANCE_BEGIN \
         FROM performance_schema.metadata_locks WHERE OBJECT_TYPE = 'COMMIT' AND LOCK_STATUS = 'GRANTED'";
    let asked = async {
        let complete: Option<u64> = connection.query_first(complete).await?;
        if complete != Some(1) {
            return Ok(None);
        }
        connection.query::<Lock, _>(locks).await.map(Some)
    };
    match asked.await {
        Ok(locks) => Ok(locks.map(HashSet::from_iter)),
        Err(mysql_async::Error::Server(_)) => Ok(None),
        Err(error) => Err(classify(error, &server.place)),
    }
}
