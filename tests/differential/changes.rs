//! Random tables and random changes of their rows.

use fastrand::Rng;

use super::{
    avro_text,
    harness::Session,
    kinds::{Flavor, Form, Kind},
    log_rows::LogRows,
};

/// A table with a number `rid` in each row, by which changes find their rows.
pub struct RandomTable {
    pub name: String,
    columns: Vec<Column>,
    /// What follows the columns in the declaration: the key.
    key: String,
    next_rid: u32,
}

struct Column {
    name: String,
    kind: Kind,
    nullable: bool,
}

impl RandomTable {
    pub fn new(name: String, flavor: Flavor, zero_dates: bool, random: &mut Rng) -> Self {
        let columns: Vec<Column> = (0..random.usize(1..=12))
            .map(|number| Column {
                name: format!("c{number}"),
                kind: Kind::random(flavor, zero_dates, random),
                nullable: random.u8(..4) != 0,
            })
            .collect();
        let in_key: Vec<&str> = columns
            .iter()
            .filter(|column| column.kind.in_key && !column.nullable)
            .map(|column| column.name.as_str())
            .take(random.usize(0..=2))
            .collect();
        let mut parts = in_key.clone();
        parts.insert(random.usize(..=parts.len()), "rid");
        let key = match random.u8(..6) {
            0 => String::new(),
            1 => format!(", unique key ({})", parts.join(", ")),
            2 => ", primary key (rid)".into(),
            _ => format!(", primary key ({})", parts.join(", ")),
        };
        Self { name, columns, key, next_rid: 1 }
    }

    pub fn create(&self) -> String {
        let columns: String = self
            .columns
            .iter()
            .map(|column| {
                let null = if column.nullable { "null" } else { "not null" };
                format!(", {} {} {null}", column.name, column.kind.declared)
            })
            .collect();
        format!("create table {} (rid int not null{columns}{})", self.name, self.key)
    }

    /// Each row as text, in the order of `rid`, as the server has it.
    pub fn server_rows(&self, session: &mut Session) -> Vec<Vec<Option<String>>> {
        let oracles: String = self
            .columns
            .iter()
            .map(|column| format!(", {}", column.kind.oracle(&column.name)))
            .collect();
        let rows = session.rows(&format!("select rid{oracles} from {} order by rid", self.name));
        let text = |form, text: Option<String>| text.map(|text| avro_text::server_text(text, form));
        rows.into_iter()
            .map(|row| {
                let forms =
                    std::iter::once(Form::Integer).chain(self.columns.iter().map(|c| c.kind.form));
                row.into_iter().zip(forms).map(|(value, form)| text(form, value)).collect()
            })
            .collect()
    }

    /// The same from the log.
    pub fn our_rows(&self, log: &LogRows) -> Vec<Vec<Option<String>>> {
        let mut rows: Vec<Vec<Option<String>>> = log
            .rows
            .values()
            .map(|row| {
                let rid = avro_text::text(&row["rid"], Form::Integer).expect("a number");
                let columns = self.columns.iter();
                let texts = columns.map(|column| {
                    let text = avro_text::text(&row[&column.name], column.kind.form);
                    text.unwrap_or_else(|what| {
                        panic!("{} of {}: {what}", column.name, self.create())
                    })
                });
                std::iter::once(rid).chain(texts).collect()
            })
            .collect();
        rows.sort_by_key(|row| row[0].as_deref().and_then(|rid| rid.parse::<i64>().ok()));
        rows
    }

    fn value(&self, column: &Column, random: &mut Rng) -> String {
        if column.nullable && random.u8(..4) == 0 {
            "null".into()
        } else {
            column.kind.literal(random)
        }
    }

    fn insert(&mut self, random: &mut Rng) -> String {
        let rows: Vec<String> = (0..random.usize(1..=8))
            .map(|_| {
                let values: String = self
                    .columns
                    .iter()
                    .map(|column| format!(", {}", self.value(column, random)))
                    .collect();
                self.next_rid += 1;
                format!("({}{values})", self.next_rid)
            })
            .collect();
        format!("insert into {} values {}", self.name, rows.join(", "))
    }

    fn some_rids(&self, random: &mut Rng) -> String {
        let first = random.u32(..=self.next_rid);
        format!("rid between {first} and {}", first + random.u32(..4))
    }

    fn update(&self, random: &mut Rng) -> String {
        let count = random.usize(1..=self.columns.len());
        let mut columns: Vec<&Column> = self.columns.iter().collect();
        random.shuffle(&mut columns);
        let set: Vec<String> = columns[..count]
            .iter()
            .map(|column| format!("{} = {}", column.name, self.value(column, random)))
            .collect();
        format!("update {} set {} where {}", self.name, set.join(", "), self.some_rids(random))
    }

    fn statement(&mut self, random: &mut Rng) -> String {
        match random.u8(..8) {
            0..=2 => self.insert(random),
            3..=5 => self.update(random),
            6 => format!("delete from {} where {}", self.name, self.some_rids(random)),
            _ => format!(
                "update {} set rid = rid + 100000 where {}",
                self.name,
                self.some_rids(random)
            ),
        }
    }
}

/// One random change: a statement or a transaction of several, over one or more tables, in one of the ways that a session
/// can have it written into the binlog. A statement that the server refuses (a value that its mode does not take, a key
/// that is there) changes nothing, and neither does it here.
pub fn change(session: &mut Session, tables: &mut [RandomTable], flavor: Flavor, random: &mut Rng) {
    if flavor == Flavor::MySql {
        let image = ["FULL", "MINIMAL", "NOBLOB"][random.usize(..3)];
        // A difference needs the document before it.
        let options = if image != "MINIMAL" && random.bool() { "PARTIAL_JSON" } else { "" };
        session.exec(&format!(
            "set session binlog_row_image = {image}, session binlog_row_value_options = '{options}',
             session binlog_transaction_compression = {}",
            random.u8(..2)
        ));
    }
    let mut statement = |session: &mut Session, random: &mut Rng| {
        let table = random.usize(..tables.len());
        let _ = session.try_exec(&tables[table].statement(random));
    };
    if random.bool() {
        return statement(session, random);
    }
    session.exec("begin");
    for _ in 0..random.usize(1..=5) {
        match random.u8(..6) {
            0 => session.exec("savepoint a"),
            // There may be none yet.
            1 => drop(session.try_exec("rollback to savepoint a")),
            _ => statement(session, random),
        }
    }
    session.exec(if random.u8(..5) == 0 { "rollback" } else { "commit" });
}
