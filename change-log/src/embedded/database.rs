//! Opens the SQLite file of a source, and says in a sentence what SQLite could not do.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::error::LogError;

/// "BinL", so that a file of another program is recognised.
const APPLICATION_ID: i32 = 0x4269_6e4c;
const LAYOUT_VERSION: i32 = 1;
const LOG_EXTENSION: &str = "sqlite";
const ACKNOWLEDGED_EXTENSION: &str = "acknowledged";
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

const LAYOUT: &str = "
    CREATE TABLE writer (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL);
    INSERT INTO writer VALUES (1, 0);
    CREATE TABLE topic (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        compacted INTEGER NOT NULL,
        first_offset INTEGER NOT NULL DEFAULT 0,
        next_offset INTEGER NOT NULL DEFAULT 0
    );
    -- Segments are inserted in the order of their ids, so small ones of many topics share pages.
    CREATE TABLE segment (
        id INTEGER PRIMARY KEY,
        topic_id INTEGER NOT NULL,
        base_offset INTEGER NOT NULL,
        next_offset INTEGER NOT NULL,
        appended_ms INTEGER NOT NULL,
        layout BLOB NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE UNIQUE INDEX segment_offset ON segment (topic_id, base_offset);
    -- Compacted topics: the last record of each key.
    CREATE TABLE keyed_record (
        topic_id INTEGER NOT NULL,
        key BLOB NOT NULL,
        offset INTEGER NOT NULL,
        timestamp_ms INTEGER NOT NULL,
        appended_ms INTEGER NOT NULL,
        value BLOB,
        PRIMARY KEY (topic_id, key)
    );
    CREATE UNIQUE INDEX keyed_record_offset ON keyed_record (topic_id, offset);
";

/// Makes the folder of a log when it is missing.
pub fn make_folder(folder: &Path) -> Result<(), LogError> {
    fs::create_dir_all(folder).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                "it is not a folder; set change_log.path to a folder".to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                "the folder can't be made: permission denied; make it and give it to the user that runs binlake"
                    .to_owned()
            }
            _ => format!("the folder can't be made: {error}"),
        };
        unavailable(folder, reason)
    })
}

/// The file of a source's log. Bytes that may not stand in a file name are written as `%XX`.
pub fn log_file(folder: &Path, source_name: &str) -> PathBuf {
    let mut name = String::with_capacity(source_name.len() + 8);
    for byte in source_name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name.push('.');
    name.push_str(LOG_EXTENSION);
    folder.join(name)
}

/// The file beside a log in which sinks write how far they are.
pub fn acknowledged_file(log_file: &Path) -> PathBuf {
    log_file.with_extension(ACKNOWLEDGED_EXTENSION)
}

/// All log files of a folder, sorted.
pub fn list_logs(folder: &Path) -> Result<Vec<PathBuf>, LogError> {
    let listing = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    let mut paths = match listing {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(unavailable(folder, format!("the folder can't be listed: {error}")));
        }
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == LOG_EXTENSION));
    paths.sort();
    Ok(paths)
}

/// Opens the log for writing, and makes it when it is missing. Waits at most `timeout` for other processes.
pub fn open_for_writing(file: &Path, timeout: Duration) -> Result<Connection, LogError> {
    let deadline = Instant::now() + timeout;
    loop {
        match try_open_for_writing(file, timeout) {
            Err(OpenError::Sqlite(error)) if is_busy(&error) && Instant::now() < deadline => {
                std::thread::sleep(RETRY_INTERVAL);
            }
            Err(OpenError::Sqlite(error)) => return Err(sqlite_error(file, error)),
            Err(OpenError::Log(error)) => return Err(error),
            Ok(connection) => return Ok(connection),
        }
    }
}

/// Opens the log for reading; `None` while its writer has not finished making it.
pub fn open_for_reading(file: &Path) -> Result<Option<Connection>, LogError> {
    // SQLite's readers need to write the shared memory of the write-ahead log, so the file is opened for writing too.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> Result<Option<Connection>, OpenError> {
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "query_only", true)?;
        // One view of the file for all questions: its writer may be making it at this moment.
        let made = is_made(file, &*connection.unchecked_transaction()?)?;
        Ok(made.then_some(connection))
    };
    match open() {
        Ok(connection) => Ok(connection),
        Err(OpenError::Sqlite(error)) if is_busy(&error) => Ok(None),
        Err(OpenError::Sqlite(error)) => Err(sqlite_error(file, error)),
        Err(OpenError::Log(error)) => Err(error),
    }
}

/// What a failed SQLite call means for the log.
pub fn sqlite_error(file: &Path, error: rusqlite::Error) -> LogError {
    let place = file.display().to_string();
    let Some(code) = error.sqlite_error_code() else {
        return LogError::Unavailable { place, reason: error.to_string() };
    };
    match code {
        ErrorCode::DiskFull => {
            unavailable(file, "the disk is full; free some space and start again".to_owned())
        }
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => unavailable(
            file,
            format!(
                "it can't be opened for writing ({error}); give the folder to the user that runs binlake"
            ),
        ),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => unavailable(
            file,
            "another process keeps it locked; look which one has it open".to_owned(),
        ),
        ErrorCode::NotADatabase => unfit(
            file,
            "it is not a change log; move it away or set change_log.path to another folder",
        ),
        ErrorCode::DatabaseCorrupt => unfit(
            file,
            "the file is damaged; move it away, and the source will be read anew from a snapshot",
        ),
        ErrorCode::SystemIoFailure => {
            unavailable(file, format!("the disk reported an error ({error}); check the disk"))
        }
        _ => LogError::Unavailable { place, reason: error.to_string() },
    }
}

/// A file that does not hold what it should.
pub fn unfit(file: &Path, reason: impl Into<String>) -> LogError {
    LogError::Unfit { place: file.display().to_string(), reason: reason.into() }
}

fn unavailable(place: &Path, reason: String) -> LogError {
    LogError::Unavailable { place: place.display().to_string(), reason }
}

enum OpenError {
    Sqlite(rusqlite::Error),
    Log(LogError),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn try_open_for_writing(file: &Path, timeout: Duration) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(timeout)?;
    if !is_made(file, &*connection.unchecked_transaction()?)? {
        // Takes effect only while the file is empty. Large pages make large segments cheap, small ones small commits.
        connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    }
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", -CACHE_KILOBYTES)?;
    // The writer folds the write-ahead log back itself, between transactions.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !is_made(file, &transaction)? {
        transaction.execute_batch(LAYOUT)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", LAYOUT_VERSION)?;
    }
    transaction.commit()?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

const PAGE_SIZE: i32 = 8192;
const CACHE_KILOBYTES: i32 = 16 * 1024;

fn is_made(file: &Path, connection: &Connection) -> Result<bool, OpenError> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let version = number("user_version")?;
    let application = number("application_id")?;
    if application == APPLICATION_ID {
        if version > LAYOUT_VERSION {
            let reason = "a newer binlake wrote it; start that version";
            return Err(OpenError::Log(unfit(file, reason)));
        }
        return Ok(version == LAYOUT_VERSION);
    }
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != 0 || version != 0 || tables != 0 {
        let reason =
            "another program's SQLite file; move it away or set change_log.path to another folder";
        return Err(OpenError::Log(unfit(file, reason)));
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_one_to_one_and_stay_in_the_folder() {
        let file = |name: &str| log_file(Path::new("log"), name);
        assert_eq!(file("udon"), Path::new("log/udon.sqlite"));
        assert_eq!(file("a/../b"), Path::new("log/a%2F..%2Fb.sqlite"));
        assert_eq!(file("a%2Fb"), Path::new("log/a%252Fb.sqlite"));
        assert_eq!(acknowledged_file(&file("a.b")), Path::new("log/a.b.acknowledged"));
    }

    #[test]
    fn a_foreign_file_is_refused_with_its_cure() {
        let folder = tempfile::tempdir().expect("folder");
        let text = log_file(folder.path(), "text");
        fs::write(&text, vec![b'x'; 4096]).expect("write");
        let foreign = log_file(folder.path(), "foreign");
        let connection = Connection::open(&foreign).expect("open");
        connection.execute_batch("CREATE TABLE other (a)").expect("create");
        for file in [text, foreign] {
            let error = open_for_writing(&file, Duration::ZERO).expect_err("refused");
            assert!(
                matches!(&error, LogError::Unfit { reason, .. } if reason.contains("move it away")),
                "{error}"
            );
            let error = open_for_reading(&file).expect_err("refused");
            assert!(matches!(error, LogError::Unfit { .. }), "{error}");
        }
    }

    #[test]
    fn a_reader_that_opens_the_file_while_it_is_made_waits_for_it() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().expect("folder");
            let file = log_file(folder.path(), "new");
            std::thread::scope(|scope| {
                scope.spawn(|| open_for_writing(&file, Duration::from_secs(10)).expect("made"));
                let made = || match open_for_reading(&file) {
                    Ok(connection) => connection.is_some(),
                    Err(LogError::Unavailable { .. }) => false,
                    Err(error) => panic!("{error}"),
                };
                while !file.exists() || !made() {}
            });
        }
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("write");
        for path in [file.clone(), file.join("below")] {
            let error = make_folder(&path).expect_err("refused").to_string();
            assert!(error.contains("not a folder"), "{error}");
        }
    }
}
