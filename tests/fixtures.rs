//! Tables of the kinds that other readers of binlogs keep as their regression tests, through the whole way into the lake
//! and back: once read by the snapshot, once by the stream.
//!
//! `tests/fixtures/*.sql` make the tables, in the project's own words. The oracle is MySQL: `binlake verify` finds all
//! tables equal, and each column's text in the lake is the server's.

mod harness;
mod scenario;

use harness::{MySql, Session, plain_json};
use scenario::Scenario;
use schemas::table_id::TableId;

const FIXTURES: [(&str, &str); 5] = [
    ("numbers", include_str!("fixtures/numbers.sql")),
    ("moments", include_str!("fixtures/moments.sql")),
    ("texts", include_str!("fixtures/texts.sql")),
    ("documents", include_str!("fixtures/documents.sql")),
    ("every_type", include_str!("fixtures/every_type.sql")),
];

#[test]
fn fixtures_come_back_from_the_lake_as_the_server_shows_them() {
    let Some(mysql) = MySql::shared() else { return };
    let read = mysql.new_database("fixtures_read");
    let followed = mysql.new_database("fixtures_followed");
    let mut session = mysql.session();
    session.exec("set time_zone = '+00:00', session group_concat_max_len = 1000000");
    make(&mut session, &read);
    let tables = [format!("{read}.*"), format!("{followed}.*")];
    let scenario = Scenario::new(mysql, "fixtures", &[&tables[0], &tables[1]], "");
    let _up = scenario.start("up");
    scenario.verify();
    make(&mut session, &followed);
    scenario.verify();
    for database in [&read, &followed] {
        let names = session.rows(&format!(
            "select table_name from information_schema.tables where table_schema = '{database}' order by 1"
        ));
        assert!(names.len() > 20, "{names:?}");
        for name in names.into_iter().flatten().flatten() {
            compare(&mut session, &scenario, database, &name);
        }
    }
}

fn make(session: &mut Session, database: &str) {
    session.exec(&format!("use `{database}`"));
    for (name, sql) in FIXTURES {
        if let Err(error) = session.try_exec(sql) {
            panic!("{name}.sql: {error}");
        }
    }
}

/// Asks both sides for each column in a form that has one text without commas, and compares the columns as sets.
fn compare(session: &mut Session, scenario: &Scenario, database: &str, table: &str) {
    let columns = session.rows(&format!(
        "select column_name, data_type, column_type from information_schema.columns
         where table_schema = '{database}' and table_name = '{}' order by ordinal_position",
        table.replace('\'', "''")
    ));
    let (mut named, mut server, mut lake) = (Vec::new(), Vec::new(), Vec::new());
    for column in columns {
        let [Some(column), Some(data_type), Some(column_type)] = &column[..] else {
            panic!("{column:?}")
        };
        let form = form(data_type, column_type == "bit(1)");
        let quoted = format!("`{}`", column.replace('`', "``"));
        server.push(form.server.replace("{}", &quoted));
        let quoted = format!("\"{}\"", column.replace('"', "\"\""));
        let text = form.lake.replace("{}", &quoted);
        // CSV does not tell NULL from the empty text.
        lake.push(format!("coalesce('=' || cast({text} as varchar), '')"));
        named.push((format!("{data_type} {table}.{column}"), form.read));
    }
    let quoted = table.replace('`', "``");
    let theirs =
        session.rows(&format!("select {} from `{database}`.`{quoted}`", server.join(", ")));
    let folder = TableId::new("fixtures", database, table).lake_path();
    let in_lake = folder.rsplit('/').next().unwrap_or_default();
    let sql = format!("select {} from fixtures.{database}.{in_lake}", lake.join(", "));
    let ours: Vec<String> = scenario.query(&sql);
    let ours: Vec<Vec<&str>> = ours.iter().map(|line| line.split(',').collect()).collect();
    for (at, (what, read)) in named.into_iter().enumerate() {
        let mut their: Vec<Option<String>> =
            theirs.iter().map(|row| row[at].clone().map(read)).collect();
        let mut our: Vec<Option<String>> = ours
            .iter()
            .map(|row| row[at].trim_matches('"').strip_prefix('=').map(|text| read(text.into())))
            .collect();
        their.sort();
        our.sort();
        assert_eq!(our, their, "the lake's, then MySQL's {what}");
    }
}

/// How both sides are asked for a type, and how their answer is brought into one form.
struct Form {
    server: &'static str,
    lake: &'static str,
    read: fn(String) -> String,
}

fn form(data_type: &str, one_bit: bool) -> Form {
    let same: fn(String) -> String = |text| text;
    let date = "if(year({}) = 0 or month({}) = 0 or dayofmonth({}) = 0, null, {})";
    let (server, lake, read) = match data_type {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => {
            ("cast({} + 0 as char)", "{}", same)
        }
        "decimal" => ("cast({} + 0 as char)", "{}", same),
        "float" | "double" => ("{} + 0e0", "cast({} as double)", double as fn(String) -> String),
        "bit" if one_bit => ("cast({} + 0 as char)", "cast({} as int)", same),
        "bit" => ("hex({} + 0)", "'LE ' || encode({}, 'hex')", bits as _),
        "year" => ("cast({} + 0 as char)", "{}", same),
        "date" => (date, "{}", same),
        "datetime" | "timestamp" => (
            "if(year({}) = 0 or month({}) = 0 or dayofmonth({}) = 0, null,
              timestampdiff(microsecond, '1970-01-01 00:00:00', {}))",
            "cast({} as bigint)",
            same,
        ),
        "time" => ("cast(cast({} as time(6)) as char)", "{}", same),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" => {
            ("hex(convert({} using utf8mb4))", "upper(encode({}, 'hex'))", same)
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            ("hex({})", "upper(encode({}, 'hex'))", same)
        }
        "json" => ("hex(cast({} as char))", "upper(encode({}, 'hex'))", json as _),
        "vector" => ("vector_to_string({})", "array_to_string({}, '|')", vector as _),
        // SRID in four bytes, then the WKB.
        _ => (
            "concat(cast(st_srid({}) as char), ' ', hex(substr({}, 5)))",
            "cast(coalesce({}['srid'], 0) as varchar) || ' ' || upper(encode({}['wkb'], 'hex'))",
            same,
        ),
    };
    Form { server, lake, read }
}

fn double(text: String) -> String {
    format!("{:?}", text.parse::<f64>().expect("a number"))
}

/// MySQL's number in hexadecimal; ours is its bytes, the least significant first.
fn bits(text: String) -> String {
    let Some(bytes) = text.strip_prefix("LE ") else { return text };
    let number = (0..bytes.len()).step_by(2).rev().map(|at| &bytes[at..at + 2]).collect::<String>();
    match number.trim_start_matches('0').to_ascii_uppercase() {
        zero if zero.is_empty() => "0".into(),
        number => number,
    }
}

fn json(text: String) -> String {
    let bytes: Option<Vec<u8>> = (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect();
    plain_json(std::str::from_utf8(&bytes.expect("hexadecimal digits")).expect("UTF-8"))
}

fn vector(text: String) -> String {
    let inner = text.trim_matches(['[', ']']);
    if inner.is_empty() {
        return text;
    }
    let items: Vec<String> = inner
        .split([',', '|'])
        .map(|item| {
            format!("{:?}", item.parse::<f32>().unwrap_or_else(|error| panic!("{text}: {error}")))
        })
        .collect();
    items.join(",")
}
