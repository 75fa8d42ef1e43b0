//! Whether a server can be captured: its kind, its settings and the user's grants, each checked and each with its
//! cure. Grants are tried, not read: roles, wildcards and partial revokes make the text of SHOW GRANTS a poor judge.

use std::collections::HashMap;

use mysql_async::{Conn, prelude::Queryable};
use serde::Serialize;

use crate::{
    config::SourceConfig,
    error::ReaderError,
    mysql::{
        catalog::{self, Catalog, CatalogTable},
        connect::{self, Server, classify, server_code},
        flavor::Kind,
        limit_checks::replica_lines,
        privileges::{Privileges, privileges, split_list},
        replica_id::{id_line, list_replicas},
        settings,
    },
    table_filter::TableFilter,
};

/// What `binlake check` prints about one source.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The source's name.
    pub source: String,
    /// `host:port`.
    pub place: String,
    /// The server's version text.
    pub version: String,
    /// Everything that was checked.
    pub settings: Vec<CheckLine>,
    /// The captured tables.
    pub tables: Vec<TableCheck>,
    /// The least privileges, and those beyond; not known of a server that cannot be captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Privileges>,
}

/// One setting or grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckLine {
    /// The variable or the grant.
    pub name: String,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub actual: String,
    /// Whether that is right.
    pub ok: bool,
    /// Whether capturing is refused until it is.
    pub required: bool,
    /// What is wrong and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableCheck {
    /// `database.table`.
    pub name: String,
    /// The key's columns; empty without a key.
    pub key: Vec<String>,
    /// Whether it will be captured.
    pub captured: bool,
    /// The server's estimate.
    pub rows_estimated: u64,
    /// What is special about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl CheckReport {
    /// What has to be cured before capturing can start.
    pub fn findings(&self) -> Vec<String> {
        let lines = self.settings.iter().filter(|line| !line.ok && line.required);
        lines.filter_map(|line| line.cure.clone()).collect()
    }
}

/// Connects and checks everything. Only a failure to connect is an error; findings are in the report.
pub async fn check(config: &SourceConfig) -> Result<CheckReport, ReaderError> {
    config.ensure_limits()?;
    let mut connection = connect::connect(config).await?;
    let server = connect::server(&mut connection, &connect::place(config)).await?;
    let (mut report, catalog) = examine(&mut connection, &server, config).await?;
    if server.flavor.finding().is_none() {
        let user = current_user(&mut connection, &server).await?;
        let lag = replica_lines(&mut connection, &server, config, &user).await?;
        report.settings.extend(lag);
        let ids = catalog.tables.iter().map(|table| &table.schema.id);
        let tables: Vec<_> = ids.map(|id| (id.database.as_str(), id.table.as_str())).collect();
        let held = privileges(&mut connection, &server, config, &tables, &user).await?;
        report.privileges = Some(held);
    }
    // A server that is gone by now was fit to be checked.
    let _ = connection.disconnect().await;
    Ok(report)
}

/// Refuses a server that cannot be captured; answers its tables otherwise. Warnings are logged.
pub async fn ensure_ready(
    connection: &mut Conn,
    server: &Server,
    config: &SourceConfig,
) -> Result<Catalog, ReaderError> {
    let (report, catalog) = examine(connection, server, config).await?;
    let findings = report.findings();
    if !findings.is_empty() {
        return Err(ReaderError::Preflight { place: server.place.clone(), findings });
    }
    for line in report.settings.iter().filter(|line| !line.ok) {
        let warning = line.cure.as_deref().unwrap_or_default();
        tracing::warn!(source = %config.name, setting = %line.name, "{warning}");
    }
    Ok(catalog)
}

async fn examine(
    connection: &mut Conn,
    server: &Server,
    config: &SourceConfig,
) -> Result<(CheckReport, Catalog), ReaderError> {
    let mut report = CheckReport {
        source: config.name.clone(),
        place: server.place.clone(),
        version: server.flavor.to_string(),
        settings: Vec::new(),
        tables: Vec::new(),
        privileges: None,
    };
    if let Some(finding) = server.flavor.finding() {
        report.settings.push(CheckLine {
            name: "version".into(),
            expected: "MySQL 8.0 or MariaDB 10.11, or newer".into(),
            actual: server.flavor.to_string(),
            ok: false,
            required: true,
            cure: Some(finding),
        });
        return Ok((report, Catalog::default()));
    }
    let filter = TableFilter::new(&config.tables).map_err(|error| ReaderError::Config {
        source_name: config.name.clone(),
        reason: error.to_string(),
    })?;
    report.settings = setting_lines(connection, server).await?;
    let user = current_user(connection, server).await?;
    let log_bin = report.settings.iter().any(|line| line.name == "log_bin" && line.ok);
    report.settings.extend(replication_grants(connection, server, &user, log_bin).await?);
    report.settings.extend(id_line(connection, server, config).await?);
    let catalog = catalog::load(connection, server, &config.name, &filter).await?;
    report.settings.push(visible_tables(connection, server, config, &catalog, &user).await?);
    for table in &catalog.tables {
        report.settings.extend(select_grant(connection, server, table, &user).await?);
    }
    report.tables = table_checks(&catalog);
    Ok((report, catalog))
}

async fn setting_lines(
    connection: &mut Conn,
    server: &Server,
) -> Result<Vec<CheckLine>, ReaderError> {
    let names: Vec<String> = settings::NAMES.iter().map(|name| format!("'{name}'")).collect();
    let query = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", names.join(", "));
    let rows: Vec<(String, String)> =
        connection.query(query).await.map_err(|error| classify(error, &server.place))?;
    let values: HashMap<String, String> = rows.into_iter().collect();
    let lines = settings::NAMES.iter().filter_map(|name| {
        let value = values.get(*name).map(String::as_str).unwrap_or_default();
        if !values.contains_key(*name) && server.flavor.kind == Kind::MariaDb {
            return None;
        }
        let mut requirement = settings::judge(name, value)?;
        if server.flavor.kind == Kind::MariaDb {
            requirement.finding =
                requirement.finding.map(|finding| settings::for_mariadb(&finding));
        }
        Some(CheckLine {
            name: (*name).into(),
            expected: requirement.expected.into(),
            actual: value.into(),
            ok: requirement.finding.is_none(),
            required: requirement.required,
            cure: requirement.finding,
        })
    });
    let mut lines: Vec<CheckLine> = lines.collect();
    let value = |name: &str| values.get(name).map(String::as_str).unwrap_or_default();
    let (image, options) = (value("binlog_row_image"), value("binlog_row_value_options"));
    if let Some(cure) = settings::ensure_row_is_known(server.flavor.kind, image, options) {
        lines.retain(|line| line.name != "binlog_row_image");
        lines.push(CheckLine {
            name: "binlog_row_image".into(),
            expected: "FULL".into(),
            actual: format!("{image} {options}").trim_end().into(),
            ok: false,
            required: true,
            cure: Some(cure),
        });
    }
    Ok(lines)
}

/// The account as GRANT names it: `'binlake'@'%'`.
async fn current_user(connection: &mut Conn, server: &Server) -> Result<String, ReaderError> {
    let user: Option<String> = connection
        .query_first("SELECT CURRENT_USER()")
        .await
        .map_err(|error| classify(error, &server.place))?;
    let user = user.unwrap_or_default();
    let (name, host) = user.rsplit_once('@').unwrap_or((&user, "%"));
    Ok(format!("'{}'@'{}'", name.replace('\'', "''"), host.replace('\'', "''")))
}

/// Tries a statement that needs the two replication grants each.
async fn replication_grants(
    connection: &mut Conn,
    server: &Server,
    user: &str,
    log_bin: bool,
) -> Result<Vec<CheckLine>, ReaderError> {
    let mut lines = Vec::new();
    for (grant, statement) in [
        ("REPLICATION SLAVE", list_replicas(server)),
        ("REPLICATION CLIENT", server.flavor.binlog_status_statement()),
    ] {
        // Without a binlog the second one fails for another reason, which has its own line.
        if grant == "REPLICATION CLIENT" && !log_bin {
            continue;
        }
        let allowed = match (server.flavor.kind, grant) {
            // No statement of MariaDB's needs exactly this one.
            (Kind::MariaDb, "REPLICATION SLAVE") => {
                granted(connection, server, &["REPLICATION SLAVE", "REPLICATION REPLICA"]).await?
            }
            _ => try_statement(connection, server, statement).await?,
        };
        let cure = format!(
            "{user} lacks {grant}: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}"
        );
        lines.push(grant_line(grant.into(), allowed, cure));
    }
    Ok(lines)
}

/// Whether SHOW GRANTS names one of the global privileges, or all of them.
async fn granted(
    connection: &mut Conn,
    server: &Server,
    names: &[&str],
) -> Result<bool, ReaderError> {
    let grants: Vec<String> =
        connection.query("SHOW GRANTS").await.map_err(|error| classify(error, &server.place))?;
    Ok(grants.iter().filter_map(|grant| grant.split_once(" ON *.* ")).any(|(privileges, _)| {
        let list = split_list(privileges.strip_prefix("GRANT ").unwrap_or(privileges));
        let has = |name: &str| list.contains(&name);
        has("ALL PRIVILEGES") || names.iter().any(|name| has(name))
    }))
}

/// Tables without a grant are invisible, so that their absence has to be told by the pattern.
async fn visible_tables(
    connection: &mut Conn,
    server: &Server,
    config: &SourceConfig,
    catalog: &Catalog,
    user: &str,
) -> Result<CheckLine, ReaderError> {
    let found = catalog.tables.len() + catalog.unsupported.len();
    let mut line = CheckLine {
        name: "captured tables".into(),
        expected: "at least one".into(),
        actual: found.to_string(),
        ok: found > 0,
        required: false,
        cure: None,
    };
    if line.ok {
        return Ok(line);
    }
    let grants: Vec<String> =
        connection.query("SHOW GRANTS").await.map_err(|error| classify(error, &server.place))?;
    let reads = |grant: &String| {
        let before_on = grant.split(" ON ").next().unwrap_or_default();
        before_on.contains("SELECT") || before_on.contains("ALL PRIVILEGES")
    };
    let patterns = config.tables.join(", ");
    line.cure = Some(if grants.iter().any(reads) {
        format!(
            "no table matches `tables` ({patterns}) yet: check the patterns of source {}",
            config.name
        )
    } else {
        line.required = true;
        format!(
            "{user} may read no table: GRANT SELECT ON *.* TO {user}, or on the captured databases only"
        )
    });
    Ok(line)
}

/// A line only when the table cannot be read: one line per table would bury the others.
async fn select_grant(
    connection: &mut Conn,
    server: &Server,
    table: &CatalogTable,
    user: &str,
) -> Result<Option<CheckLine>, ReaderError> {
    let id = &table.schema.id;
    let quoted = crate::snapshot::chunk_plan::quoted_table(id);
    let allowed =
        try_statement(connection, server, &format!("SELECT 1 FROM {quoted} LIMIT 0")).await?;
    let cure = format!("{user} may not read {}: GRANT SELECT ON {quoted} TO {user}", table.name());
    Ok((!allowed).then(|| grant_line(format!("SELECT on {}", table.name()), false, cure)))
}

fn grant_line(name: String, allowed: bool, cure: String) -> CheckLine {
    CheckLine {
        name,
        expected: "granted".into(),
        actual: if allowed { "granted" } else { "missing" }.into(),
        ok: allowed,
        required: true,
        cure: (!allowed).then_some(cure),
    }
}

/// Whether the statement is allowed; any other failure is an error.
async fn try_statement(
    connection: &mut Conn,
    server: &Server,
    statement: &str,
) -> Result<bool, ReaderError> {
    match connection.query_drop(statement).await {
        Ok(()) => Ok(true),
        // Access denied: to a database, to a table or column, for want of a global privilege.
        Err(error) if matches!(server_code(&error), Some(1044 | 1142 | 1143 | 1227 | 1370)) => {
            Ok(false)
        }
        // The table went while we looked.
        Err(error) if server_code(&error) == Some(1146) => Ok(true),
        Err(error) => Err(classify(error, &server.place)),
    }
}

fn table_checks(catalog: &Catalog) -> Vec<TableCheck> {
    let captured = catalog.tables.iter().map(|table| TableCheck {
        name: table.name(),
        key: table.key_names(),
        captured: true,
        rows_estimated: table.rows_estimated(),
        note: table.schema.key.is_empty().then(|| {
            "no primary key and no unique key of whole NOT NULL columns: kept as history".into()
        }),
    });
    let others = catalog.unsupported.iter().map(|(name, reason)| TableCheck {
        name: name.clone(),
        key: Vec::new(),
        captured: false,
        rows_estimated: 0,
        note: Some(reason.clone()),
    });
    captured.chain(others).collect()
}
