//! `binlake init`: looks at a server and writes a configuration to start from.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use cdc_reader::{
    SourceConfig,
    mysql::preflight::{self, TableCheck},
};
use clap::Args;
use url::Url;

use crate::{config::server_url_finding, output::print_line};

/// Looks at a server, proposes how each table is kept, and writes binlake.toml
#[derive(Args, Debug)]
#[command(after_help = "Example: binlake init mysql://binlake:secret@db.example:3306 --name shop")]
pub struct InitArgs {
    /// `mysql://user[:password]@host[:port][/database]`; the password is not written down
    url: String,
    /// The source's name: the first part of SQL names and of the lake's folders
    #[arg(long, default_value = "mysql")]
    name: String,
}

/// Runs the command.
pub async fn run(file: &Path, args: &InitArgs) -> anyhow::Result<()> {
    if let Some(finding) = server_url_finding(&args.url) {
        bail!("the address {finding}");
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if args.name.is_empty() || !args.name.chars().all(legal) {
        bail!("--name may hold only letters, digits, _ and -");
    }
    if file.exists() {
        return Err(there_already(file));
    }
    let mut url = Url::parse(&args.url).context("the address is not a url")?;
    let database = url.path().trim_matches('/').to_owned();
    let tables = if database.is_empty() { "*.*".to_owned() } else { format!("{database}.*") };
    let source: SourceConfig = serde_json::from_value(serde_json::json!({
        "name": args.name, "url": args.url, "tables": [tables],
    }))?;
    let report = preflight::check(&source).await?;
    let has_password = url.password().is_some();
    if url.set_password(None).is_err() {
        bail!("the address has no host");
    }
    let captured: Vec<&TableCheck> = report.tables.iter().filter(|table| table.captured).collect();
    let text = configuration(&args.name, url.as_str(), &tables, has_password, &captured);
    let mut out = match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(out) => out,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(there_already(file));
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot write {}", file.display()));
        }
    };
    out.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", file.display()))?;
    print_line(format_args!(
        "wrote {} for {} tables of MySQL {}",
        file.display(),
        captured.len(),
        report.version
    ));
    if has_password {
        print_line(
            "the password was not written: put it into the environment variable MYSQL_PASSWORD",
        );
    }
    let findings = report.findings();
    if findings.is_empty() {
        print_line("next: `binlake check`, then `binlake up`");
    } else {
        print_line("the server is not ready yet:");
        findings.iter().for_each(|finding| print_line(format_args!("  {finding}")));
    }
    Ok(())
}

fn there_already(file: &Path) -> anyhow::Error {
    anyhow!("{} is there already; move it away, or name another with --config", file.display())
}

fn configuration(
    name: &str,
    url: &str,
    tables: &str,
    has_password: bool,
    captured: &[&TableCheck],
) -> String {
    let mut text = String::new();
    let password = if has_password { "password_env = \"MYSQL_PASSWORD\"\n" } else { "" };
    let _ = write!(
        text,
        "# Written by `binlake init`. Several [[source]]s may stand here, one per MySQL server.\n\
         [[source]]\nname = \"{name}\"\nurl = \"{url}\"\n{password}\
         # Patterns of database.table; \"!shop.tmp_*\" takes tables out again.\ntables = [\"{tables}\"]\n\n\
         # One machine needs nothing more; kind = \"kafka\" with bootstrap_servers = \"host:9092\" uses Kafka.\n\
         [change_log]\nkind = \"embedded\"\npath = \"./change-log\"\n\n\
         [lake]\nurl = \"file:./lake\"\n# How old the lake may be.\nfreshness = \"10s\"\n\n\
         # \"history\" tables only grow: what MySQL purges stays. All others mirror MySQL (\"state\").\n"
    );
    for table in captured.iter().filter(|table| looks_like_history(table)) {
        let _ =
            write!(text, "[[table]]\nmatch = \"{name}.{}\"\nmode = \"history\"\n\n", table.name);
    }
    text
}

/// Events and logs by their name; a table without a key cannot be mirrored.
fn looks_like_history(table: &TableCheck) -> bool {
    let short = table.name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let ends = ["_events", "_event", "_log", "_logs", "_history", "_audit"];
    table.key.is_empty()
        || ends.iter().any(|end| short.ends_with(end))
        || short.starts_with("audit")
        || ["events", "logs", "history"].contains(&short.as_str())
}
