//! `binlake.toml`: read, laid over with the environment, checked, and turned into the configurations of the parts.

mod environment;
pub mod export;
mod keys;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use cdc_reader::SourceConfig;
use change_log::LogConfig;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sink_lake::{LakeConfig, Share, TableRule};
use thiserror::Error;
use toml::{Table, Value};

use export::ExportConfig;
use keys::Lines;

/// Everything a command needs to know. Paths are absolute.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `[[source]]`s, at least one.
    pub sources: Vec<SourceConfig>,
    /// `[change_log]`.
    pub log: LogConfig,
    /// `[lake]`.
    pub lake: LakeConfig,
    /// The `[[table]]` rules in the file's order.
    pub tables: Vec<TableRule>,
    /// The `[[export]]`s in the file's order.
    pub exports: Vec<ExportConfig>,
    /// `[console]`.
    pub console: ConsoleConfig,
    /// Which tables this sink takes; from the command line, not from the file, which all sinks share.
    pub share: Share,
}

/// `[console]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleConfig {
    /// Where the console listens. Only this machine by default: the console has no login.
    #[serde(default = "listen")]
    pub listen: String,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self { listen: listen() }
    }
}

fn listen() -> String {
    "127.0.0.1:8642".into()
}

/// What is wrong with the configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}; `binlake init mysql://...` writes one, --config names another", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// A key that nothing reads.
    #[error("{place}: unknown key `{key}` in {section}; {advice}")]
    UnknownKey {
        /// File and line, or the environment variable.
        place: String,
        /// The key.
        key: String,
        /// `[lake]`, `[[source]]` or `the file`.
        section: String,
        /// `did you mean ...?`, or the known keys.
        advice: String,
    },
    /// A value that does not fit its key.
    #[error("{place}: {section}: {reason}")]
    Value {
        /// The file, with a line when it is known.
        place: String,
        /// The section.
        section: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Values that do not fit each other.
    #[error("{}: {reason}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl Config {
    /// Reads `file` and lays `environment` over it.
    pub fn load(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Unreadable { file: file.into(), source })?;
        let file = std::path::absolute(file).unwrap_or_else(|_| file.into());
        Self::parse(&text, &file, environment)
    }

    /// Reads the text of `file` (an absolute path; it stands in messages and relative paths start in its folder).
    pub fn parse(
        text: &str,
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let lines = Lines::read(text, file)?;
        let mut root: Table = toml::from_str(text).map_err(|e| ConfigError::Syntax {
            file: file.into(),
            line: keys::line_of(text, e.span()),
            message: keys::one_line(e.message()),
        })?;
        lines.refuse_unknown_keys(&root)?;
        environment::apply(&mut root, environment)?;
        fill_and_resolve(&mut root, file.parent().unwrap_or(Path::new("/")));

        let config = Self {
            sources: list(&root, "source", &lines)?,
            log: section(&root, "change_log", &lines)?,
            lake: section(&root, "lake", &lines)?,
            tables: list(&root, "table", &lines)?,
            exports: list(&root, "export", &lines)?,
            console: section(&root, "console", &lines)?,
            share: Share::default(),
        };
        match finding(&config) {
            None => Ok(config),
            Some(reason) => Err(ConfigError::Unusable { file: file.into(), reason }),
        }
    }

    /// The source names, in the file's order.
    pub fn source_names(&self) -> Vec<String> {
        self.sources.iter().map(|source| source.name.clone()).collect()
    }

    /// How the sink is to run.
    pub fn sink(&self) -> sink_lake::SinkConfig {
        sink_lake::SinkConfig {
            lake: self.lake.clone(),
            tables: self.tables.clone(),
            share: self.share,
        }
    }
}

fn section<T: DeserializeOwned>(root: &Table, name: &str, lines: &Lines) -> Result<T, ConfigError> {
    let value = root.get(name).cloned().unwrap_or_else(|| Value::Table(Table::new()));
    value.try_into().map_err(|e| lines.value_error(name, 0, &e))
}

fn list<T: DeserializeOwned>(
    root: &Table,
    name: &str,
    lines: &Lines,
) -> Result<Vec<T>, ConfigError> {
    let Some(value) = root.get(name) else { return Ok(Vec::new()) };
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |(i, item): (usize, &Value)| {
        item.clone().try_into().map_err(|e| lines.value_error(name, i, &e))
    };
    items.iter().enumerate().map(read).collect()
}

/// Puts the defaults that depend on the file's place, and makes every path absolute.
fn fill_and_resolve(root: &mut Table, folder: &Path) {
    let absolute = |text: &str| folder.join(text).components().collect::<PathBuf>();
    let log = root.entry("change_log").or_insert_with(|| Value::Table(Table::new()));
    if let Some(log) = log.as_table_mut() {
        let kind = log.entry("kind").or_insert_with(|| "embedded".into());
        if kind.as_str() == Some("embedded") {
            log.entry("path").or_insert_with(|| "./change-log".into());
        }
        for key in LOG_FILES {
            resolve(log, key, |text| absolute(text).display().to_string());
        }
    }
    let lake = root.entry("lake").or_insert_with(|| Value::Table(Table::new()));
    if let Some(lake) = lake.as_table_mut() {
        lake.entry("url").or_insert_with(|| "file:./lake".into());
        resolve(lake, "url", |text| lake_url(text, folder));
    }
    for source in root.get_mut("source").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(source) = source.as_table_mut() {
            resolve(source, "password_file", |text| absolute(text).display().to_string());
        }
    }
}

/// The keys of `[change_log]` that name files.
const LOG_FILES: [&str; 11] = [
    "path",
    "ssl_ca",
    "ssl_cert",
    "ssl_key",
    "sasl_password_file",
    "sasl_token_file",
    "schema_registry_password_file",
    "schema_registry_token_file",
    "schema_registry_ssl_ca",
    "schema_registry_ssl_cert",
    "schema_registry_ssl_key",
];

fn resolve(table: &mut Table, key: &str, change: impl Fn(&str) -> String) {
    if let Some(Value::String(text)) = table.get_mut(key) {
        *text = change(text);
    }
}

/// `file:./lake`, `./lake` and `/lake` become `file:///...`; other urls stay as they are.
fn lake_url(text: &str, folder: &Path) -> String {
    let path = match text.split_once(':') {
        Some(("file", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some((scheme, _)) if !scheme.contains(['/', '.']) => return text.into(),
        _ => text,
    };
    // Nothing is percent-encoded: the sink takes the path as it stands.
    format!("file://{}", folder.join(path).components().collect::<PathBuf>().display())
}

/// The first thing that does not fit, as a sentence.
fn finding(config: &Config) -> Option<String> {
    if config.sources.is_empty() {
        return Some("there is no [[source]]; add one with `name` and `url`".into());
    }
    let mut seen = HashSet::new();
    for source in &config.sources {
        let name = &source.name;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(legal) {
            return Some(format!("source name '{name}' may hold only letters, digits, _ and -"));
        }
        if !seen.insert(name) {
            return Some(format!("two sources are named '{name}'; each needs a name of its own"));
        }
        if source.password_env.is_some() && source.password_file.is_some() {
            return Some(format!("source {name} has password_env and password_file; keep one"));
        }
        if let Some(reason) = server_url_finding(&source.url) {
            return Some(format!("source {name}: url {reason}"));
        }
        if let Some(reason) =
            source.snapshot_replicas.iter().find_map(|url| server_url_finding(url))
        {
            return Some(format!("source {name}: an url of snapshot_replicas {reason}"));
        }
        if let Some(reason) = source.limits_finding() {
            return Some(format!("source {name}: {reason}"));
        }
    }
    if let LogConfig::Kafka(kafka) = &config.log
        && let Some(reason) = kafka.finding()
    {
        return Some(format!("[change_log]: {reason}"));
    }
    if let Err(error) = config.lake.folder() {
        return Some(error.to_string());
    }
    if let Some(reason) = export::finding(&config.exports, &config.source_names()) {
        return Some(reason);
    }
    listen_finding(&config.console.listen).map(|reason| format!("[console] listen {reason}"))
}

/// Why a text is no address to listen on.
pub fn listen_finding(text: &str) -> Option<String> {
    let wrong = |_| format!("'{text}' is not address:port, for example 127.0.0.1:8642");
    text.parse::<std::net::SocketAddr>().err().map(wrong)
}

/// Why a text is not a server's url; never repeats the text, which may hold a password.
pub fn server_url_finding(text: &str) -> Option<String> {
    match url::Url::parse(text) {
        Err(e) => Some(format!("is not mysql://user@host:port: {e}")),
        Ok(url) if url.scheme() != "mysql" => {
            Some(format!("must start with mysql://, not {}://", url.scheme()))
        }
        Ok(url) if url.host_str().is_none_or(str::is_empty) => Some("names no host".into()),
        Ok(url) if url.username().is_empty() => Some("names no user (mysql://user@host)".into()),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "[[source]]\nname = \"udon\"\nurl = \"mysql://root@127.0.0.1:3306\"\n";
    const LAKE: &str = "[lake]\nurl = \"file:./lake\"\n";

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        Config::parse(text, Path::new("/etc/b/binlake.toml"), environment)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn small_file_gets_defaults_and_absolute_paths() {
        let config = parse(&format!("{SOURCE}{LAKE}"), &[]).expect("reads");
        assert_eq!(config.sources[0].tables, ["*.*"]);
        let LogConfig::Embedded { path, .. } = &config.log else { panic!("embedded by default") };
        assert_eq!(path, Path::new("/etc/b/change-log"));
        assert_eq!(config.lake.url, "file:///etc/b/lake");
        assert_eq!(config.console.listen, "127.0.0.1:8642");
    }

    #[test]
    fn unknown_key_names_the_nearest_one_and_its_line() {
        let error = parse(&format!("{SOURCE}{LAKE}freshnes = \"1s\"\n"), &[]).expect_err("refused");
        assert_eq!(
            error,
            "/etc/b/binlake.toml, line 6: unknown key `freshnes` in [lake]; did you mean `freshness`?"
        );
        let error = parse(&format!("{SOURCE}tabels = []\n{LAKE}"), &[]).expect_err("refused");
        assert!(
            error.contains("line 4: unknown key `tabels` in [[source]]; did you mean `tables`?")
        );
        let error = parse(&format!("{SOURCE}{LAKE}[leak]\n"), &[]).expect_err("refused");
        assert!(error.contains("unknown key `leak` in the file; did you mean `lake`?"), "{error}");
        let log = "[change_log]\nkind = \"kafka\"\nbootstrap_server = \"x\"\n";
        let error = parse(&format!("{SOURCE}{LAKE}{log}"), &[]).expect_err("refused");
        assert!(error.contains("did you mean `bootstrap_servers`?"), "{error}");
        let log = "[change_log]\nkind = \"kafak\"\n";
        let error = parse(&format!("{SOURCE}{LAKE}{log}"), &[]).expect_err("refused");
        assert!(error.contains("kafak") && error.contains("kafka"), "{error}");
    }

    #[test]
    fn wrong_value_names_its_line_and_key() {
        let error = parse(&format!("{SOURCE}server_id = \"x\"\n{LAKE}"), &[]).expect_err("refused");
        assert!(error.starts_with("/etc/b/binlake.toml, line 4: [[source]]: "), "{error}");
        assert!(error.contains("server_id"), "{error}");
        let error = parse(&format!("{SOURCE}x = = 1\n{LAKE}"), &[]).expect_err("refused");
        assert!(error.starts_with("/etc/b/binlake.toml, line 4: "), "{error}");
        let error = parse(&format!("{SOURCE}snapshot = false\n{LAKE}"), &[]).expect_err("refused");
        assert!(error.starts_with("/etc/b/binlake.toml, line 4: [[source]]: "), "{error}");
        assert!(error.contains("snapshot is a mode, not false: write \"never\""), "{error}");
        let error = parse(LAKE, &[]).expect_err("refused");
        assert!(error.contains("there is no [[source]]"), "{error}");
        let lake = "[lake]\nfreshness = \"soon\"\n";
        let error = parse(&format!("{SOURCE}{lake}"), &[]).expect_err("refused");
        assert!(error.contains("line 5: [lake]: freshness: `soon` is no duration"), "{error}");
    }

    #[test]
    fn environment_overrides_every_scalar() {
        let text = format!("{SOURCE}{LAKE}");
        let set = [
            ("BINLAKE_SOURCE__UDON__URL", "mysql://u@db:1"),
            ("BINLAKE_SOURCE__UDON__SERVER_ID", "77"),
            ("BINLAKE_SOURCE__UDON__SNAPSHOT", "never"),
            ("BINLAKE_SOURCE__UDON__TABLES", "[\"a.*\"]"),
            ("BINLAKE_LAKE__URL", "/other lake"),
            ("BINLAKE_LAKE__FRESHNESS", "2s"),
            ("BINLAKE_LAKE__COMMIT_ROWS_MAX", "5"),
            ("BINLAKE_CHANGE_LOG__PATH", "/log"),
            ("BINLAKE_CONSOLE__LISTEN", "0.0.0.0:80"),
            ("BINLAKE_SERVERS", "not ours"),
        ];
        let config = parse(&text, &set).expect("reads");
        let source = &config.sources[0];
        assert_eq!((source.url.as_str(), source.server_id), ("mysql://u@db:1", 77));
        assert_eq!(source.snapshot, cdc_reader::config::SnapshotMode::Never);
        assert_eq!(source.tables, ["a.*"]);
        assert_eq!(config.lake.url, "file:///other lake");
        assert_eq!(config.lake.freshness, std::time::Duration::from_secs(2));
        assert_eq!(config.lake.commit_rows_max, 5);
        assert_eq!(config.console.listen, "0.0.0.0:80");
    }

    #[test]
    fn environment_variables_that_fit_nothing_are_refused() {
        let text = format!("{SOURCE}{LAKE}");
        for (name, sentence) in [
            ("BINLAKE_LAKE__FRESHNES", "did you mean `freshness`?"),
            ("BINLAKE_LEAK__URL", "did you mean `lake`?"),
            ("BINLAKE_SOURCE__SOBA__URL", "no source named soba"),
        ] {
            let error = parse(&text, &[(name, "1")]).expect_err("refused");
            assert!(error.contains(name) && error.contains(sentence), "{error}");
        }
    }

    #[test]
    fn sources_are_checked_and_passwords_not_echoed() {
        for (url, sentence) in [
            ("postgres://u:secret@h", "must start with mysql://"),
            ("mysql://h:1", "names no user"),
            ("u:secret@h:99999999", ""),
        ] {
            let text = format!("[[source]]\nname = \"a\"\nurl = \"{url}\"\n{LAKE}");
            let error = parse(&text, &[]).expect_err("refused");
            assert!(error.contains(sentence) && !error.contains("secret"), "{error}");
        }
        let error = parse(&format!("{SOURCE}{SOURCE}{LAKE}"), &[]).expect_err("refused");
        assert!(error.contains("two sources are named 'udon'"), "{error}");
    }

    #[test]
    fn lake_urls() {
        let folder = Path::new("/w");
        assert_eq!(lake_url("file:./lake", folder), "file:///w/lake");
        assert_eq!(lake_url("./a b", folder), "file:///w/a b");
        assert_eq!(lake_url("file:///x", folder), "file:///x");
        assert_eq!(lake_url("s3://b/p", folder), "s3://b/p");
        assert_eq!(lake_url("memory:///", folder), "memory:///");
    }
}
