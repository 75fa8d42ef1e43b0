//! From a source's configuration to a connection in a known state, and from a driver's error to one sentence.
//!
//! The session is set so that a SELECT gives the values that the binlog holds, whatever the server's defaults:
//! - `time_zone = '+00:00'`: TIMESTAMP comes in UTC;
//! - `sql_mode = ''`: zero dates can be compared, CHAR is not padded, `\` and `"` mean what our SQL expects;
//! - `REPEATABLE READ`: one statement is one consistent read in every level but READ UNCOMMITTED, and a
//!   `START TRANSACTION WITH CONSISTENT SNAPSHOT` takes its view at once only in this one;
//! - long network time-outs, because a chunk may wait for the log; a short lock wait, because a table that someone
//!   locked is better tried again; no limits of rows and time that an administrator set for interactive users.
//!
//! `/*!80000 */` is run by MySQL from 8.0 on and passed over by MariaDB and older servers; `/*M! */` is run by MariaDB
//! alone.

use std::{path::Path, time::Duration};

use mysql_async::{
    Conn, DriverError, Error, IoError, Opts, OptsBuilder, ServerError, UrlError, prelude::Queryable,
};

use crate::{
    binlog::consumed::Coordinates,
    config::{SourceConfig, SslMode},
    error::ReaderError,
    mysql::{
        flavor::{Flavor, Kind},
        tls, tunnel,
    },
};

/// A server that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `host:port`.
    pub place: String,
    /// What it is.
    pub flavor: Flavor,
    /// `@@server_uuid`, MariaDB's `@@server_uid`; empty on a server that has none.
    pub uuid: String,
    /// How it names places in its binlog.
    pub coordinates: Coordinates,
}

/// The statements that set a session up.
pub(super) const SESSION: [&str; 2] = [
    "SET NAMES utf8mb4",
    "SET SESSION time_zone = '+00:00', sql_mode = '', autocommit = 1, net_write_timeout = 3600, \
     net_read_timeout = 600, wait_timeout = 28800, lock_wait_timeout = 60, \
     sql_select_limit = 18446744073709551615 \
     /*!80000 , transaction_isolation = 'REPEATABLE-READ', information_schema_stats_expiry = 0, \
     max_execution_time = 0 */ \
     /*!80030 , show_gipk_in_create_table_and_information_schema = ON */ \
     /*M! , tx_isolation = 'REPEATABLE-READ', max_statement_time = 0, idle_transaction_timeout = 0, \
     idle_readonly_transaction_timeout = 0 */",
];

/// Longer than a slow name server or a busy accept queue takes; shorter than a person's patience.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Finds out about a peer that vanished without a word.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(30);
/// The protocol's largest: an event or a row above the driver's default would break the connection for ever.
const MAX_PACKET: usize = 1 << 30;

/// `host:port` of a source, for messages.
pub fn place(config: &SourceConfig) -> String {
    match Opts::from_url(&config.url) {
        Ok(opts) => format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port()),
        Err(_) => config.name.clone(),
    }
}

/// The driver's options for a source, with the password filled in and the session's state.
pub fn opts(config: &SourceConfig) -> Result<Opts, ReaderError> {
    let wrong = |reason: String| ReaderError::Config { source_name: config.name.clone(), reason };
    let from_url = Opts::from_url(&config.url).map_err(|error| wrong(url_reason(&error)))?;
    let password = password(config).map_err(wrong)?.or(from_url.pass().map(String::from));
    if from_url.user().is_none_or(str::is_empty) {
        return Err(wrong("url names no user: write mysql://user@host:3306".into()));
    }
    if from_url.ssl_opts().is_some() {
        return Err(wrong("url sets TLS: set ssl_mode beside the url instead".into()));
    }
    // A unix socket does not leave the machine.
    let ssl_opts = match from_url.socket() {
        None => tls::driver_options(config).map_err(wrong)?,
        Some(_) => None,
    };
    let builder = OptsBuilder::from_opts(from_url)
        .pass(password)
        .ssl_opts(ssl_opts)
        // The default changes to a unix socket on a local server, whose accounts are others.
        .prefer_socket(false)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEPALIVE))
        .max_allowed_packet(Some(MAX_PACKET))
        .wait_timeout(Some(28_800))
        .stmt_cache_size(Some(0))
        .setup(SESSION.to_vec());
    Ok(builder.into())
}

/// Connects for the first time: whatever goes wrong is told as a [`ReaderError::Connect`].
pub async fn connect(config: &SourceConfig) -> Result<Conn, ReaderError> {
    let options = opts(config)?;
    let place = format!("{}:{}", options.ip_or_hostname(), options.tcp_port());
    match tokio::time::timeout(CONNECT_TIMEOUT, open(options, config)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let reason = connect_reason(&error, config);
            Err(ReaderError::Connect { place, reason })
        }
        Err(_) => Err(ReaderError::Connect {
            place,
            reason: format!(
                "no answer within {} s: check the host, the port and the firewall",
                CONNECT_TIMEOUT.as_secs()
            ),
        }),
    }
}

async fn open(options: Opts, config: &SourceConfig) -> Result<Conn, Error> {
    if config.ssl_mode == SslMode::VerifyCa && options.socket().is_none() {
        return tunnel::open(options, config).await;
    }
    match Conn::new(options.clone()).await {
        Err(Error::Driver(DriverError::NoClientSslFlagFromServer))
            if config.ssl_mode == SslMode::Preferred =>
        {
            Conn::new(OptsBuilder::from_opts(options).ssl_opts(None)).await
        }
        result => result,
    }
}

/// Connects to a server that was there before: one that does not answer now may come back.
pub async fn reconnect(config: &SourceConfig) -> Result<Conn, ReaderError> {
    let options = opts(config)?;
    let place = format!("{}:{}", options.ip_or_hostname(), options.tcp_port());
    match tokio::time::timeout(CONNECT_TIMEOUT, open(options, config)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(connect_error(&error, config)),
        Err(_) => Err(ReaderError::Transient { place, reason: "no answer to connecting".into() }),
    }
}

/// Sorts an error of connecting to a server that was there before.
pub(crate) fn connect_error(error: &Error, config: &SourceConfig) -> ReaderError {
    let place = place(config);
    if tls::driver_finding(error, config).is_none() && is_transient(error) {
        return ReaderError::Transient { place, reason: driver_text(error) };
    }
    ReaderError::Connect { place, reason: connect_reason(error, config) }
}

/// Asks a connection which server it is.
pub async fn server(connection: &mut Conn, place: &str) -> Result<Server, ReaderError> {
    let version: Option<String> =
        connection.query_first("SELECT VERSION()").await.map_err(|error| classify(error, place))?;
    let flavor = Flavor::parse(&version.unwrap_or_default());
    let variables: Vec<(String, String)> = connection
        .query(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_uuid', 'server_uid', 'gtid_mode')",
        )
        .await
        .map_err(|error| classify(error, place))?;
    let value = |wanted: fn(&str) -> bool| {
        variables.iter().find(|(name, _)| wanted(name)).map(|(_, value)| value.as_str())
    };
    let uuid = value(|name| name.starts_with("server")).unwrap_or_default().to_owned();
    let coordinates = match (flavor.kind, value(|name| name == "gtid_mode")) {
        (Kind::MariaDb, _) => Coordinates::MariaDb,
        // In between, transactions without a GTID are possible.
        (Kind::MySql, Some(mode)) if mode.eq_ignore_ascii_case("ON") => Coordinates::GtidSet,
        (Kind::MySql, _) => Coordinates::Place,
    };
    Ok(Server { place: place.into(), flavor, uuid, coordinates })
}

/// Sorts an error of a connection that worked: what may pass is [`ReaderError::Transient`].
pub fn classify(error: Error, place: &str) -> ReaderError {
    let place = place.to_owned();
    let reason = driver_text(&error);
    if is_transient(&error) {
        ReaderError::Transient { place, reason }
    } else {
        ReaderError::Query { place, reason }
    }
}

/// The server's error number, when the error is the server's.
pub fn server_code(error: &Error) -> Option<u16> {
    match error {
        Error::Server(ServerError { code, .. }) => Some(*code),
        Error::Driver(_) | Error::Io(_) | Error::Other(_) | Error::Url(_) => None,
    }
}

fn is_transient(error: &Error) -> bool {
    match error {
        Error::Io(_) => true,
        Error::Driver(driver) => {
            matches!(driver, DriverError::ConnectionClosed | DriverError::PoolDisconnected)
        }
        // Too many connections (1040, 1203, 1226), shutting down (1053, 1077, 1079), packets broken off (1152 to
        // 1161), waits and deadlocks (1205, 1213, 3024), killed (1317, 1927, 3169, 4031), a table rebuilt under a
        // view (1412), a server that is starting (3032, 1836 is read-only and does not concern reads).
        Error::Server(ServerError { code, .. }) => matches!(
            code,
            1040 | 1053 | 1077 | 1079 | 1152
                ..=1161
                    | 1203
                    | 1205
                    | 1213
                    | 1226
                    | 1317
                    | 1412
                    | 1927
                    | 3024
                    | 3032
                    | 3169
                    | 4031
        ),
        Error::Other(_) | Error::Url(_) => false,
    }
}

/// What the driver or the server said, on one line and without its quoting.
pub(crate) fn driver_text(error: &Error) -> String {
    match error {
        Error::Server(ServerError { code, message, .. }) => {
            format!("error {code}: {}", message.trim_end_matches('.'))
        }
        Error::Io(IoError::Io(io)) => format!("connection lost ({io})"),
        Error::Driver(DriverError::ConnectionClosed) => "connection lost".into(),
        other => other.to_string().trim_end_matches('.').to_owned(),
    }
}

fn connect_reason(error: &Error, config: &SourceConfig) -> String {
    if let Some(finding) = tls::driver_finding(error, config) {
        return finding;
    }
    match error {
        Error::Server(ServerError { code, message, .. }) => server_reason(*code, message, config),
        Error::Io(IoError::Io(io)) => match io.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                "nothing listens there (connection refused): check host and port, and that the server runs"
                    .into()
            }
            std::io::ErrorKind::TimedOut => {
                "no answer (timed out): check the host and the firewall".into()
            }
            _ if io.raw_os_error().is_none() && io.to_string().contains("lookup") => {
                format!("the host name cannot be resolved: check the url ({io})")
            }
            _ => format!("{io}: check host, port and network"),
        },
        Error::Driver(DriverError::UnknownAuthPlugin { name }) => format!(
            "the user logs in with '{name}', which is not supported: ALTER USER ... IDENTIFIED WITH \
             caching_sha2_password BY '...'"
        ),
        other => driver_text(other),
    }
}

fn server_reason(code: u16, message: &str, config: &SourceConfig) -> String {
    let message = message.trim_end_matches('.');
    match code {
        1045 | 1698 => {
            let password = match (&config.password_env, &config.password_file) {
                (Some(variable), _) => format!("the password in ${variable} (password_env)"),
                (None, Some(file)) => {
                    format!("the password in {} (password_file)", file.display())
                }
                (None, None) => "the password: name it by password_env or password_file".into(),
            };
            format!(
                "{message}: check the user in the url, the host it may log in from, and {password}"
            )
        }
        1049 => format!("{message}: the url may end after the port, no database is needed"),
        1044 => format!("{message}: leave the database out of the url, or grant it to the user"),
        1040 | 1203 | 1226 => format!("{message}: raise the limit or close other connections"),
        1129 => {
            format!("{message}: unblock it by TRUNCATE TABLE performance_schema.host_cache")
        }
        1130 => format!("{message}: create the user for this host, for example 'binlake'@'%'"),
        1820 | 1862 => format!("{message}: set a new password for the user"),
        3118 => format!("{message}: ALTER USER ... ACCOUNT UNLOCK"),
        3159 => format!("{message}: set ssl_mode = \"required\" for this source"),
        _ => format!("error {code}: {message}"),
    }
}

fn url_reason(error: &UrlError) -> String {
    match error {
        UrlError::UnknownParameter { param } => {
            format!("url has the unknown parameter '{param}': write mysql://user@host:3306")
        }
        UrlError::FeatureRequired { param, .. } => {
            format!("url asks for '{param}', which this release does not have")
        }
        UrlError::InvalidParamValue { param, .. } => {
            format!("url has a value that cannot be used for '{param}'")
        }
        UrlError::UnsupportedScheme { scheme } => {
            format!("url starts with '{scheme}': write mysql://user@host:3306")
        }
        UrlError::Parse(_) | UrlError::Invalid | UrlError::InvalidPoolConstraints { .. } => {
            "url cannot be read: write mysql://user@host:3306, and percent-encode special characters"
                .into()
        }
    }
}

fn password(config: &SourceConfig) -> Result<Option<String>, String> {
    if let Some(variable) = &config.password_env {
        return match std::env::var(variable) {
            Ok(password) => Ok(Some(password)),
            Err(_) => Err(format!("password_env names ${variable}, which is not set")),
        };
    }
    config.password_file.as_deref().map(password_from_file).transpose()
}

fn password_from_file(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("password_file {} cannot be read ({error})", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> SourceConfig {
        let mut json = serde_json::json!({ "name": "udon" });
        for line in toml.lines() {
            let (key, value) = line.split_once('=').expect("key=value");
            json[key.trim()] = serde_json::Value::from(value.trim());
        }
        serde_json::from_value(json).expect("a source")
    }

    #[test]
    fn url_is_percent_decoded_and_local_servers_are_reached_by_tcp() {
        let options =
            opts(&config("url=mysql://bin%40lake:p%3Aw@localhost:3307/shop")).expect("ok");
        assert_eq!(options.user(), Some("bin@lake"));
        assert_eq!(options.pass(), Some("p:w"));
        assert_eq!((options.ip_or_hostname(), options.tcp_port()), ("localhost", 3307));
        assert!(!options.prefer_socket());
    }

    #[test]
    fn password_file_wins_over_the_url_and_loses_its_line_break() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "s3cret \n").expect("written");
        let text = format!("url=mysql://root:other@h\npassword_file={}", file.display());
        assert_eq!(opts(&config(&text)).expect("ok").pass(), Some("s3cret "));
    }

    #[test]
    fn what_is_wrong_with_the_configuration_is_said_without_the_secret() {
        let cases = [
            ("url=mysql://u:hidden@h/?foo=1", "unknown parameter 'foo'"),
            ("url=mysql://u:hidden@h/?require_ssl=true", "set ssl_mode beside the url"),
            ("url=postgres://u:hidden@h", "mysql://user@host:3306"),
            ("url=hidden", "cannot be read"),
            ("url=mysql://h", "names no user"),
            ("url=mysql://u@h\npassword_env=BINLAKE_NOT_SET", "$BINLAKE_NOT_SET, which is not set"),
            ("url=mysql://u@h\npassword_file=/nowhere/x", "/nowhere/x cannot be read"),
        ];
        for (text, wanted) in cases {
            let error = opts(&config(text)).expect_err(text).to_string();
            assert!(error.contains(wanted), "{text}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn lost_connections_and_deadlocks_pass_and_unknown_columns_do_not() {
        let server = |code| {
            Error::Server(ServerError { code, message: "said so.".into(), state: "HY000".into() })
        };
        let lost = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let passes = |error| matches!(classify(error, "h:1"), ReaderError::Transient { .. });
        assert!(passes(server(1213)) && passes(server(1053)));
        assert!(passes(Error::Io(IoError::Io(lost()))));
        assert!(passes(Error::Driver(DriverError::ConnectionClosed)));
        assert!(!passes(server(1054)) && !passes(server(1142)));
        assert_eq!(classify(server(1054), "h:1").to_string(), "MySQL at h:1: error 1054: said so");
    }
}
