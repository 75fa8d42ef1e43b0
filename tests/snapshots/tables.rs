//! Random tables, and random statements on them. Each row has a number that no other row ever has (`rid`) and counts its
//! versions (`v`): whatever is read later tells which row it is and how old.

use std::sync::atomic::{AtomicU32, Ordering};

use fastrand::Rng;

use super::{harness::Session, keys::KeyKind};

/// What tells a table's rows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Primary,
    /// A unique key without NULL.
    Unique,
    /// A unique key that can hold NULL, which tells nothing apart.
    NullableUnique,
    None,
}

pub struct Table {
    pub name: String,
    pub key: Key,
    columns: Vec<KeyKind>,
    /// The first column has one value in nine rows out of ten.
    skewed: Option<String>,
    next_rid: AtomicU32,
}

impl Table {
    pub fn random(name: String, key: Key, random: &mut Rng) -> Self {
        let columns: Vec<KeyKind> =
            (0..[1, 1, 2, 2, 3][random.usize(..5)]).map(|_| KeyKind::random(random)).collect();
        let skewed = (columns.len() > 1 && random.bool()).then(|| columns[0].literal(random));
        Self { name, key, columns, skewed, next_rid: AtomicU32::new(1) }
    }

    pub fn has_key(&self) -> bool {
        matches!(self.key, Key::Primary | Key::Unique)
    }

    pub fn create(&self) -> String {
        let null = if self.key == Key::NullableUnique { "null" } else { "not null" };
        let columns: String = self
            .columns
            .iter()
            .enumerate()
            .map(|(number, kind)| format!("k{number} {} {null}, ", kind.declared))
            .collect();
        let key = match self.key {
            Key::Primary => format!("primary key ({}), ", self.key_names()),
            Key::Unique | Key::NullableUnique => format!("unique key ({}), ", self.key_names()),
            Key::None => String::new(),
        };
        format!(
            "create table {} ({columns}rid int unsigned not null, v int not null, pad varchar(200), {key}key (rid))",
            self.name
        )
    }

    fn key_names(&self) -> String {
        let names: Vec<String> =
            (0..self.columns.len()).map(|number| format!("k{number}")).collect();
        names.join(", ")
    }

    /// Rows that are there before anything is read; some of them collide, and are fewer then.
    pub fn fill(&self, session: &mut Session, rows: usize, random: &mut Rng) {
        const AT_ONCE: usize = 250;
        for first in (0..rows).step_by(AT_ONCE) {
            let insert = self.insert(AT_ONCE.min(rows - first), random);
            session.exec(&format!("insert ignore into {insert}"));
        }
    }

    /// A random change.
    pub fn statement(&self, random: &mut Rng) -> String {
        let name = &self.name;
        match random.u8(..16) {
            0..=3 => {
                let rows = random.usize(1..=8);
                format!("insert ignore into {}", self.insert(rows, random))
            }
            4 => format!(
                "insert into {} on duplicate key update {name}.v = {name}.v + 1",
                self.insert(1, random)
            ),
            5 if self.has_key() => format!("replace into {}", self.insert(2, random)),
            5..=9 => {
                let pad = random.u32(..);
                format!("update {name} set v = v + 1, pad = '{pad}' where {}", self.some(6, random))
            }
            10..=12 => format!("delete from {name} where {}", self.some(7, random)),
            _ => {
                let column = random.usize(..self.columns.len());
                let value = self.value(column, random);
                let some = self.some(3, random);
                format!("update ignore {name} set k{column} = {value}, v = v + 1 where {some}")
            }
        }
    }

    fn some(&self, rows_max: u32, random: &mut Rng) -> String {
        let first = random.u32(..self.next_rid.load(Ordering::Relaxed));
        format!("rid between {first} and {}", first + random.u32(..rows_max))
    }

    fn insert(&self, rows: usize, random: &mut Rng) -> String {
        let rows: Vec<String> = (0..rows)
            .map(|_| {
                let key: String = (0..self.columns.len())
                    .map(|column| format!("{}, ", self.value(column, random)))
                    .collect();
                let rid = self.next_rid.fetch_add(1, Ordering::Relaxed);
                format!("({key}{rid}, 1, repeat('x', {}))", random.u8(..60))
            })
            .collect();
        format!("{} ({}, rid, v, pad) values {}", self.name, self.key_names(), rows.join(", "))
    }

    fn value(&self, column: usize, random: &mut Rng) -> String {
        match &self.skewed {
            _ if self.key == Key::NullableUnique && random.u8(..4) == 0 => "null".into(),
            Some(value) if column == 0 && random.u8(..10) != 0 => value.clone(),
            _ => self.columns[column].literal(random),
        }
    }
}
