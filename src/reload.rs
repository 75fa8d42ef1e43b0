//! The configuration file of a running process: looked at again and again, and at SIGHUP. Which tables are captured, and
//! the rules of tables that are new to the lake, change while the process runs; for every other key it is said that a
//! restart is needed. A file that cannot be used changes nothing.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Duration,
};

use cdc_reader::table_filter::TableFilter;
use serde::Serialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, interval},
};
use toml::{Table, Value};
use tracing::{error, info, warn};

use crate::config::Config;

/// How often the file is looked at. Its content is compared, because a mounted config map is replaced as a whole.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The file, and what of it holds.
pub struct ConfigFile {
    file: PathBuf,
    text: String,
    /// With the tables and rules of the file as it is now, and the rest of the file as it was at the start.
    holds: Config,
    /// Keys of which it was said that they need a restart.
    told: Vec<String>,
    /// Why the file cannot be used, as it was told.
    finding: String,
    looks: Interval,
    hang_up: Option<Signal>,
}

impl ConfigFile {
    /// Begins with what was read from `file` at the start.
    pub fn new(file: &Path, config: Config) -> std::io::Result<Self> {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.into());
        // A terminal that is closed hangs up too: then the process is to end, as it does by itself.
        let hang_up = match std::io::stderr().is_terminal() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        // A change since the start is seen at the first look.
        let text = String::new();
        let looks = interval(LOOK_INTERVAL);
        Ok(Self {
            file,
            text,
            holds: config,
            told: Vec::new(),
            finding: String::new(),
            looks,
            hang_up,
        })
    }

    /// Waits for a change that holds without a restart. May be dropped and called again.
    pub async fn changed(&mut self) -> &Config {
        loop {
            let asked = next_look(&mut self.looks, &mut self.hang_up).await;
            match tokio::fs::read_to_string(&self.file).await {
                Ok(text) if text == self.text => {
                    if asked {
                        info!(file = %self.file.display(), "configuration has not changed");
                    }
                }
                Ok(text) => {
                    let read = read(&text, &self.file);
                    self.text = text;
                    match read {
                        Ok(new) => {
                            self.finding.clear();
                            if self.take(new) {
                                info!(file = %self.file.display(), "configuration read again");
                                return &self.holds;
                            }
                        }
                        Err(finding) => self.tell(finding),
                    }
                }
                Err(error) => {
                    self.text.clear();
                    self.tell(format!("cannot read {}: {error}", self.file.display()));
                }
            }
        }
    }

    fn tell(&mut self, finding: String) {
        if self.finding != finding {
            error!("{finding}; going on with the configuration as it was");
            self.finding = finding;
        }
    }

    /// Answers whether something holds now that did not before.
    fn take(&mut self, new: Config) -> bool {
        let keys = needs_restart(&self.holds, &new);
        if !keys.is_empty() && keys != self.told {
            warn!(keys = keys.join(", "), "changed in the configuration; holds after a restart");
        }
        self.told = keys;
        let mut changed = self.holds.tables != new.tables;
        self.holds.tables = new.tables;
        for source in &mut self.holds.sources {
            let same = new.sources.iter().find(|other| other.name == source.name);
            if let Some(other) = same.filter(|other| other.tables != source.tables) {
                source.tables.clone_from(&other.tables);
                changed = true;
            }
        }
        changed
    }
}

/// Answers whether somebody asked for it.
async fn next_look(looks: &mut Interval, hang_up: &mut Option<Signal>) -> bool {
    let Some(hang_up) = hang_up else {
        looks.tick().await;
        return false;
    };
    tokio::select! {
        _ = looks.tick() => false,
        _ = hang_up.recv() => true,
    }
}

fn read(text: &str, file: &Path) -> Result<Config, String> {
    let config = Config::parse(text, file, std::env::vars()).map_err(|error| error.to_string())?;
    for source in &config.sources {
        TableFilter::new(&source.tables)
            .map_err(|error| format!("{}: source {}: {error}", file.display(), source.name))?;
    }
    Ok(config)
}

/// The keys whose change does not hold before a restart.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    for (section, old, new) in [
        ("[change_log]", section(&old.log), section(&new.log)),
        ("[lake]", section(&old.lake), section(&new.lake)),
        ("[console]", section(&old.console), section(&new.console)),
    ] {
        keys.extend(differences(&old, &new).map(|key| format!("{section} {key}")));
    }
    if old.exports != new.exports {
        keys.push("[[export]]".into());
    }
    for source in &new.sources {
        match old.sources.iter().find(|other| other.name == source.name) {
            None => keys.push(format!("[[source]] {} (new)", source.name)),
            Some(other) => {
                let (old, new) = (section(other), section(source));
                let others = differences(&old, &new).filter(|key| *key != "tables");
                keys.extend(others.map(|key| format!("[[source]] {} {key}", source.name)));
            }
        }
    }
    for source in &old.sources {
        if !new.sources.iter().any(|other| other.name == source.name) {
            keys.push(format!("[[source]] {} (removed)", source.name));
        }
    }
    keys
}

fn section(config: &impl Serialize) -> Table {
    match Value::try_from(config) {
        Ok(Value::Table(table)) => table,
        _ => Table::new(),
    }
}

fn differences<'a>(old: &'a Table, new: &'a Table) -> impl Iterator<Item = &'a str> {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let others = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    gone.chain(others.map(|(key, _)| key)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(tables: &str, more: &str) -> Config {
        let text = format!(
            "[[source]]\nname = \"udon\"\nurl = \"mysql://u@h\"\ntables = [{tables}]\n{more}\n"
        );
        read(&text, Path::new("/etc/b/binlake.toml")).expect("reads")
    }

    fn file(config: Config) -> ConfigFile {
        let looks = interval(LOOK_INTERVAL);
        ConfigFile {
            file: "/etc/b/binlake.toml".into(),
            text: String::new(),
            holds: config,
            told: Vec::new(),
            finding: String::new(),
            looks,
            hang_up: None,
        }
    }

    #[tokio::test]
    async fn tables_and_rules_hold_at_once_and_other_keys_are_named() {
        let mut file = file(config("\"a.*\"", ""));
        assert!(!file.take(config("\"a.*\"", "")));
        assert!(file.take(config("\"a.*\", \"b.*\"", "")));
        assert_eq!(file.holds.sources[0].tables, ["a.*", "b.*"]);
        assert!(file.told.is_empty());
        let rule = "[[table]]\nmatch = \"*\"\nmode = \"history\"";
        assert!(file.take(config("\"a.*\", \"b.*\"", rule)) && file.holds.tables.len() == 1);
        let more = "server_id = 7\n[lake]\nfreshness = \"1s\"\n[[source]]\nname = \"x\"\nurl = \"mysql://u@h\"";
        assert!(file.take(config("\"a.*\"", more)));
        assert_eq!(
            file.told,
            ["[lake] freshness", "[[source]] udon server_id", "[[source]] x (new)"]
        );
        assert_eq!(file.holds.sources.len(), 1);
        // What was put back needs nothing.
        assert!(!file.take(config("\"a.*\"", "")) && file.told.is_empty());
    }

    #[test]
    fn file_that_cannot_be_used_is_one_sentence() {
        for (text, words) in [
            ("[[source]]\nname = 1\n", "line 2"),
            (
                "[[source]]\nname = \"a\"\nurl = \"mysql://u@h\"\ntables = [\"orders\"]\n",
                "'orders'",
            ),
            ("", "there is no [[source]]"),
        ] {
            let error = read(text, Path::new("/b.toml")).expect_err("refused");
            assert!(error.contains(words) && !error.contains('\n'), "{error}");
        }
    }
}
