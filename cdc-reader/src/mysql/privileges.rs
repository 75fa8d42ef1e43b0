//! The least privileges that a source's configuration needs, as the statements that grant them, and what the user may do
//! beyond them. Whether a needed one is missing is tried, not read: see `preflight`.

use mysql_async::{Conn, prelude::Queryable};
use serde::Serialize;

use super::{
    connect::{Server, classify},
    flavor::Kind,
    retention::{ByTime, retention},
};
use crate::{
    binlog::consumed::Coordinates, config::SourceConfig, error::ReaderError,
    snapshot::chunk_plan::quoted,
};

/// What is never more than needed: to read, to follow the binlog, and to ask about the server.
const HARMLESS: [&str; 11] = [
    "USAGE",
    "SELECT",
    "SHOW VIEW",
    "SHOW DATABASES",
    "REPLICATION SLAVE",
    "REPLICATION CLIENT",
    "REPLICATION REPLICA",
    "BINLOG MONITOR",
    "SLAVE MONITOR",
    "REPLICA MONITOR",
    "XA_RECOVER_ADMIN",
];
/// Longer lists are cut: whoever may do so much may do everything.
const NAMED_MAX: usize = 6;

/// The user's privileges against what is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Privileges {
    /// The statements that grant everything that is needed, and nothing more.
    pub least: Vec<String>,
    /// What the user may do beyond reading, one sentence for each place where it may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more_than_needed: Vec<String>,
}

/// A captured table that the user can see.
pub type DatabaseAndTable<'a> = (&'a str, &'a str);

/// Asks what the user may do; `user` as GRANT names it.
pub async fn privileges(
    connection: &mut Conn,
    server: &Server,
    config: &SourceConfig,
    tables: &[DatabaseAndTable<'_>],
    user: &str,
) -> Result<Privileges, ReaderError> {
    let mut least = least(server, config, tables, user);
    if let ByTime::NotTold(grant) = retention(connection, server).await?.by_time {
        least.push(format!("{grant} TO {user}"));
    }
    let grants = grants(connection, server).await?;
    Ok(Privileges { least, more_than_needed: more_than_needed(&grants, user) })
}

/// SHOW GRANTS, with what active roles bring.
async fn grants(connection: &mut Conn, server: &Server) -> Result<Vec<String>, ReaderError> {
    let failed = |error| classify(error, &server.place);
    let mut statement = "SHOW GRANTS".to_owned();
    if server.flavor.kind == Kind::MySql {
        let roles: Option<Option<String>> =
            connection.query_first("SELECT CURRENT_ROLE()").await.map_err(failed)?;
        if let Some(roles) = roles.flatten().filter(|roles| roles != "NONE") {
            statement = format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}");
        }
    }
    connection.query(statement).await.map_err(failed)
}

fn least(
    server: &Server,
    config: &SourceConfig,
    tables: &[DatabaseAndTable<'_>],
    user: &str,
) -> Vec<String> {
    let lag = config.snapshot_pause_replica_lag_seconds > 0;
    let monitor = if lag && server.flavor.kind == Kind::MariaDb { ", SLAVE MONITOR" } else { "" };
    let mut grants =
        vec![format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT{monitor} ON *.* TO {user}")];
    let scopes = select_scopes(&config.tables, tables);
    grants.extend(scopes.iter().map(|scope| format!("GRANT SELECT ON {scope} TO {user}")));
    if server.flavor.kind == Kind::MySql && server.coordinates == Coordinates::Place {
        // Without GTIDs it is seen there when a transaction of the binlog is committed: `mysql::visible`.
        grants.push(format!("GRANT SELECT ON performance_schema.* TO {user}"));
    }
    grants
}

/// What SELECT is needed on: whole databases where the patterns take all of one, else table by table.
fn select_scopes(patterns: &[String], tables: &[DatabaseAndTable<'_>]) -> Vec<String> {
    let parts = |text: &str| {
        let (database, table) = text.trim().split_once('.')?;
        Some((database.to_owned(), table.to_owned()))
    };
    let is_pattern = |text: &str| text.contains(['*', '?']);
    let taken_out: Vec<_> =
        patterns.iter().filter_map(|text| text.strip_prefix('!')).filter_map(parts).collect();
    let taken: Vec<_> = patterns
        .iter()
        .filter(|text| !text.starts_with('!'))
        .filter_map(|text| parts(text))
        .collect();
    if taken_out.is_empty() && taken.iter().any(|(d, t)| d == "*" && t == "*") {
        return vec!["*.*".into()];
    }
    let is_whole = |database: &str| {
        !taken_out.iter().any(|(d, _)| d == database || is_pattern(d))
            && taken.iter().any(|(d, t)| (d == database || d == "*") && t == "*")
    };
    let mut scopes = Vec::new();
    let mut add = |database: &str, table: &str| {
        let scope = if is_whole(database) {
            // The only place where a name is a pattern.
            format!("{}.*", quoted(&database.replace('_', "\\_").replace('%', "\\%")))
        } else {
            format!("{}.{}", quoted(database), quoted(table))
        };
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    };
    // Those that are named need not be visible yet.
    for (database, table) in taken.iter().filter(|(database, _)| !is_pattern(database)) {
        if is_whole(database) || !is_pattern(table) {
            add(database, table);
        }
    }
    tables.iter().for_each(|(database, table)| add(database, table));
    scopes
}

/// One sentence for each line of SHOW GRANTS that allows more than reading.
fn more_than_needed(grants: &[String], user: &str) -> Vec<String> {
    grants.iter().filter_map(|grant| excess(grant, user)).collect()
}

fn excess(grant: &str, user: &str) -> Option<String> {
    let (privileges, rest) = grant.strip_prefix("GRANT ")?.split_once(" ON ")?;
    let (scope, rest) = rest.split_once(" TO ")?;
    let is_asked = scope.contains("rds_show_configuration");
    let harmless = |name: &str| {
        let name = name.split('(').next().unwrap_or_default().trim();
        HARMLESS.contains(&name) || is_asked && name == "EXECUTE"
    };
    let mut names: Vec<&str> =
        split_list(privileges).into_iter().filter(|name| !harmless(name)).collect();
    if rest.contains("WITH GRANT OPTION") {
        names.push("GRANT OPTION");
    }
    if names.is_empty() {
        return None;
    }
    if names.iter().any(|name| name.starts_with("ALL")) || names.len() > NAMED_MAX {
        let more = match names.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = names[..names.len().min(NAMED_MAX)].join(", ");
        return Some(format!(
            "{user} has {named}{more} on {scope}, of which nothing is used: a user of its own with the grants above is enough"
        ));
    }
    let named = names.join(", ");
    Some(format!(
        "{user} has {named} on {scope}, which is never used: REVOKE {named} ON {scope} FROM {user}"
    ))
}

/// The parts between commas that are not in brackets.
pub(super) fn split_list(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let outside = |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(outside).map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(patterns: &[&str]) -> Vec<String> {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).into()).collect();
        select_scopes(&patterns, &[("shop_1", "a"), ("shop_1", "b"), ("stock", "c")])
    }

    #[test]
    fn select_is_granted_on_no_more_than_the_patterns_take() {
        assert_eq!(scopes(&["*.*"]), ["*.*"]);
        assert_eq!(scopes(&["shop_1.*", "stock.c"]), [r"`shop\_1`.*", "`stock`.`c`"]);
        assert_eq!(
            scopes(&["shop_1.*", "!shop_1.tmp", "stock.*"]),
            ["`stock`.*", "`shop_1`.`a`", "`shop_1`.`b`"]
        );
        assert_eq!(scopes(&["*.*", "!stock.x"]), [r"`shop\_1`.*", "`stock`.`c`"]);
        assert_eq!(scopes(&["s*.*"]), ["`shop_1`.`a`", "`shop_1`.`b`", "`stock`.`c`"]);
        // What cannot be seen yet is granted by name.
        assert_eq!(select_scopes(&["new.t`x".into()], &[]), ["`new`.`t``x`"]);
    }

    #[test]
    fn reading_is_no_excess_and_writing_is() {
        let excess = |grant: &str| excess(grant, "'b'@'%'");
        for grant in [
            "GRANT USAGE ON *.* TO `b`@`%`",
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `b`@`%`",
            "GRANT REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR ON *.* TO `b`@`%` IDENTIFIED BY PASSWORD '*AB'",
            "GRANT SELECT ON `shop`.* TO `b`@`%`",
            "GRANT SELECT (`a`, `b`) ON `shop`.`t` TO `b`@`%`",
            "GRANT XA_RECOVER_ADMIN ON *.* TO `b`@`%`",
            "GRANT EXECUTE ON PROCEDURE `mysql`.`rds_show_configuration` TO `b`@`%`",
            "GRANT `reader`@`%` TO `b`@`%`",
        ] {
            assert_eq!(excess(grant), None, "{grant}");
        }
        let text = excess("GRANT SELECT, INSERT, UPDATE (`a`, `b`) ON `shop`.* TO `b`@`%`");
        let text = text.expect("an excess");
        assert!(
            text.ends_with("REVOKE INSERT, UPDATE (`a`, `b`) ON `shop`.* FROM 'b'@'%'"),
            "{text}"
        );
        let text = excess("GRANT ALL PRIVILEGES ON *.* TO `b`@`%` WITH GRANT OPTION");
        let text = text.expect("an excess");
        assert!(text.contains("has ALL PRIVILEGES, GRANT OPTION on *.*"), "{text}");
        let text = excess("GRANT SELECT, A, B, C, D, E, F, G, H ON *.* TO `b`@`%`");
        let text = text.expect("an excess");
        assert!(text.contains("A, B, C, D, E, F and 2 more on *.*"), "{text}");
        assert!(excess("GRANT EXECUTE ON `shop`.* TO `b`@`%`").is_some());
    }
}
