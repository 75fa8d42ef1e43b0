//! How far each group of sinks is, in a SQLite file of its own beside the log, so that neither a sink waits for the
//! reader's transaction nor the reader for a sink's. Losing the last rows to a power cut only keeps records for longer.

use std::{collections::HashMap, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, params};

/// The open file.
#[derive(Debug)]
pub struct AcknowledgementFile {
    connection: Connection,
}

impl AcknowledgementFile {
    /// Opens the file, and makes it when it is missing.
    pub fn open(file: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(Duration::from_millis(50))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS acknowledged (
                 topic TEXT NOT NULL, sink_group TEXT NOT NULL, next_offset INTEGER NOT NULL,
                 PRIMARY KEY (topic, sink_group)
             ) WITHOUT ROWID",
        )?;
        Ok(Self { connection })
    }

    /// Notes that `group` has made `topic` durable up to `next_offset`. A lower offset than before is taken too:
    /// the sink then reads its table anew.
    pub fn write(&self, group: &str, topic: &str, next_offset: i64) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO acknowledged (topic, sink_group, next_offset) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
        )?;
        statement.execute(params![topic, group, next_offset])?;
        Ok(())
    }
}

/// For each topic the offset below which every group is done; nothing when no sink has ever written the file.
pub fn acknowledged_by_all(file: &Path) -> rusqlite::Result<HashMap<String, i64>> {
    if !file.exists() {
        return Ok(HashMap::new());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(Duration::from_millis(50))?;
    let mut statement =
        connection.prepare("SELECT topic, min(next_offset) FROM acknowledged GROUP BY topic")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}
