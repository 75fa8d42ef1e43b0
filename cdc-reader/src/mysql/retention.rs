//! How long a server keeps its binlog, by every rule that removes files: MySQL's and MariaDB's expiry, RDS's own clock,
//! and limits of size. `PURGE BINARY LOGS` by hand obeys none of them.

use std::collections::HashMap;

use mysql_async::{Conn, prelude::Queryable};

use super::{
    connect::{Server, classify, server_code},
    flavor::Kind,
};
use crate::error::ReaderError;

const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_expire_logs_seconds', \
     'expire_logs_days', 'binlog_expire_logs_auto_purge', 'max_binlog_total_size', 'binlog_space_limit', 'basedir')";
const RDS_TABLE: &str =
    "SELECT name, value FROM mysql.rds_configuration WHERE name = 'binlog retention hours'";
const RDS_PROCEDURE: &str = "CALL mysql.rds_show_configuration";
const RDS_HOURS: &str = "binlog retention hours";

/// When binlog files are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// By their age, which counts from the last write into a file.
    pub by_time: ByTime,
    /// When all files together are larger than this.
    pub by_space: Option<SpaceLimit>,
}

/// Removal by age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ByTime {
    /// Not at all.
    Never,
    /// After these seconds.
    After {
        /// Seconds; 0: as soon as the server likes.
        seconds: u64,
        /// What says so.
        clock: Clock,
    },
    /// The user may not ask; with the grant that lets it.
    NotTold(String),
}

/// Which setting an age comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// `binlog_expire_logs_seconds` of MySQL.
    Seconds,
    /// `expire_logs_days` of MySQL 8.0.
    Days,
    /// `binlog_expire_logs_seconds` of MariaDB, which has no SET PERSIST.
    MariaDb,
    /// `binlog retention hours` of Amazon RDS, whatever the variables say.
    Rds,
}

/// Removal by size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceLimit {
    /// Bytes of all files.
    pub bytes: u64,
    /// Whether it can be set while the server runs (MariaDB's `max_binlog_total_size`); Percona's
    /// `binlog_space_limit` cannot.
    pub dynamic: bool,
}

impl Clock {
    /// The setting as it is.
    pub fn setting(self, seconds: u64) -> String {
        match self {
            Self::Seconds | Self::MariaDb => format!("binlog_expire_logs_seconds = {seconds}"),
            Self::Days => format!("expire_logs_days = {}", seconds / 86_400),
            Self::Rds if seconds == 0 => format!("'{RDS_HOURS}' is not set"),
            Self::Rds => format!("'{RDS_HOURS}' = {}", seconds / 3600),
        }
    }

    /// The statement that keeps the binlog for at least so long.
    pub fn cure(self, seconds: u64) -> String {
        match self {
            Self::Seconds | Self::Days => {
                format!("SET PERSIST binlog_expire_logs_seconds = {seconds}")
            }
            Self::MariaDb => format!(
                "SET GLOBAL binlog_expire_logs_seconds = {seconds} (and write it into the server's my.cnf)"
            ),
            Self::Rds => format!(
                "CALL mysql.rds_set_configuration('{RDS_HOURS}', {})",
                seconds.div_ceil(3600)
            ),
        }
    }
}

impl SpaceLimit {
    /// The setting as it is.
    pub fn setting(&self) -> String {
        format!("{} = {}", self.name(), self.bytes)
    }

    /// What keeps so many bytes of the binlog.
    pub fn cure(&self, bytes: u64) -> String {
        if self.dynamic {
            format!("SET GLOBAL {} = {bytes} (and write it into the server's my.cnf)", self.name())
        } else {
            format!(
                "write {} = {bytes} into the server's my.cnf and restart the server",
                self.name()
            )
        }
    }

    fn name(&self) -> &'static str {
        if self.dynamic { "max_binlog_total_size" } else { "binlog_space_limit" }
    }
}

/// Asks the server.
pub async fn retention(connection: &mut Conn, server: &Server) -> Result<Retention, ReaderError> {
    let rows: Vec<(String, String)> =
        connection.query(VARIABLES).await.map_err(|error| classify(error, &server.place))?;
    let variables: HashMap<String, String> =
        rows.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let mut retention = by_variables(&variables, server.flavor.kind);
    if is_rds(&variables) {
        retention.by_time = rds_retention(connection, server).await?;
    }
    Ok(retention)
}

fn is_rds(variables: &HashMap<String, String>) -> bool {
    variables.get("basedir").is_some_and(|folder| folder.starts_with("/rdsdbbin"))
}

fn by_variables(variables: &HashMap<String, String>, kind: Kind) -> Retention {
    let number = |name: &str| {
        variables.get(name).and_then(|value| value.parse::<f64>().ok()).map_or(0, |n| n as u64)
    };
    let auto_purge = variables
        .get("binlog_expire_logs_auto_purge")
        .is_none_or(|v| !v.eq_ignore_ascii_case("OFF"));
    let clock = if kind == Kind::MariaDb { Clock::MariaDb } else { Clock::Seconds };
    // The days count where no seconds are set.
    let by_time = match (number("binlog_expire_logs_seconds"), number("expire_logs_days")) {
        (0, 0) => ByTime::Never,
        _ if !auto_purge => ByTime::Never,
        (0, days) => ByTime::After { seconds: days * 86_400, clock: Clock::Days },
        (seconds, _) => ByTime::After { seconds, clock },
    };
    // MariaDB knows its limit by both names.
    let (total, limit) = (number("max_binlog_total_size"), number("binlog_space_limit"));
    let by_space = match (total, limit) {
        (0, 0) => None,
        (0, bytes) => Some(SpaceLimit { bytes, dynamic: kind == Kind::MariaDb }),
        (bytes, _) => Some(SpaceLimit { bytes, dynamic: true }),
    };
    Retention { by_time, by_space }
}

/// What RDS's own table says, or its procedure, whichever the user may use.
pub async fn rds_retention(connection: &mut Conn, server: &Server) -> Result<ByTime, ReaderError> {
    for query in [RDS_TABLE, RDS_PROCEDURE] {
        match connection.query::<mysql_async::Row, _>(query).await {
            Ok(rows) => {
                let hours = rows.iter().find_map(|row| {
                    let name = row.get_opt::<String, _>(0)?.ok()?;
                    let value = row.get_opt::<Option<String>, _>(1)?.ok()?;
                    (name == RDS_HOURS).then_some(value)
                });
                return Ok(rds_hours(hours.flatten().as_deref()));
            }
            Err(error) if server_code(&error).is_some() => {}
            Err(error) => return Err(classify(error, &server.place)),
        }
    }
    Ok(ByTime::NotTold("GRANT EXECUTE ON PROCEDURE mysql.rds_show_configuration".into()))
}

/// Without a number RDS removes a file as soon as it has a copy.
fn rds_hours(value: Option<&str>) -> ByTime {
    let hours: u64 = value.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
    ByTime::After { seconds: hours * 3600, clock: Clock::Rds }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)], kind: Kind) -> Retention {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        by_variables(&variables.iter().map(own).collect(), kind)
    }

    #[test]
    fn variables_of_each_server_are_understood() {
        let after = |seconds, clock| ByTime::After { seconds, clock };
        let seconds = ("binlog_expire_logs_seconds", "3600");
        assert_eq!(of(&[seconds], Kind::MySql).by_time, after(3600, Clock::Seconds));
        assert_eq!(of(&[seconds], Kind::MariaDb).by_time, after(3600, Clock::MariaDb));
        let off = ("binlog_expire_logs_auto_purge", "OFF");
        assert_eq!(of(&[seconds, off], Kind::MySql).by_time, ByTime::Never);
        let days = ("expire_logs_days", "2");
        assert_eq!(of(&[seconds, days], Kind::MySql).by_time, after(3600, Clock::Seconds));
        let none = ("binlog_expire_logs_seconds", "0");
        assert_eq!(of(&[none, days], Kind::MySql).by_time, after(172_800, Clock::Days));
        // MariaDB's days are a fraction when they come from seconds.
        let fraction = ("expire_logs_days", "0.041667");
        assert_eq!(of(&[none, fraction], Kind::MariaDb).by_time, ByTime::Never);
        assert_eq!(of(&[], Kind::MySql), Retention { by_time: ByTime::Never, by_space: None });
    }

    #[test]
    fn limits_of_size_are_understood() {
        let space = |variables: &[(&str, &str)], kind| of(variables, kind).by_space;
        let percona = [("binlog_space_limit", "1000")];
        let limit = space(&percona, Kind::MySql).expect("a limit");
        assert_eq!(limit, SpaceLimit { bytes: 1000, dynamic: false });
        assert!(limit.cure(4000).contains("binlog_space_limit = 4000 into the server's my.cnf"));
        let both = [("binlog_space_limit", "1000"), ("max_binlog_total_size", "1000")];
        let limit = space(&both, Kind::MariaDb).expect("a limit");
        assert!(limit.cure(4000).starts_with("SET GLOBAL max_binlog_total_size = 4000"));
        assert_eq!(space(&[("max_binlog_total_size", "0")], Kind::MariaDb), None);
    }

    #[test]
    fn rds_without_a_number_keeps_nothing() {
        let after = |seconds| ByTime::After { seconds, clock: Clock::Rds };
        assert_eq!(rds_hours(None), after(0));
        assert_eq!(rds_hours(Some("24")), after(86_400));
        let cure = Clock::Rds.cure(90_000);
        assert_eq!(cure, "CALL mysql.rds_set_configuration('binlog retention hours', 25)");
    }
}
