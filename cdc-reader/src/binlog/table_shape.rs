//! What table maps leave out when the server sends no names (`binlog_row_metadata = MINIMAL`): a table's columns by
//! name, kept from one event to the next, changed by each DDL, and checked against every table map.

use schemas::{column_type::ColumnType, table_schema::TableSchema};
use serde::{Deserialize, Serialize};

use super::{
    column_changes::{ColumnChange, Place},
    table_map::{TableMap, WireColumn, WireType},
};
use crate::{
    encode::charset::{Charset, of_collation},
    mysql::catalog::CatalogTable,
};

/// The collation numbers of `binary` and `utf8mb4_general_ci`.
const BINARY: u16 = 63;
const UTF8: u16 = 45;

/// One column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedColumn {
    /// The name.
    pub name: String,
    /// The kind of type, one word for all types that are told apart by the table map: `int`, `decimal`, `text`, `enum`;
    /// `any` when it is not known.
    pub kind: String,
    /// Precision and scale, fraction digits, or bits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<u16>,
    /// UNSIGNED.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsigned: bool,
    /// The collation's number for text; 0 when it is not known.
    #[serde(default)]
    pub collation: u16,
    /// Of ENUM and SET.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// A table's columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableShape {
    /// In the server's order.
    pub columns: Vec<NamedColumn>,
    /// The key's columns by name, in key order.
    pub key: Vec<String>,
    /// The key is the primary key: other keys do not matter.
    pub primary: bool,
}

impl TableShape {
    /// What the catalog says.
    pub fn of(table: &CatalogTable) -> Self {
        let columns = table.schema.columns.iter().zip(&table.texts).map(|(column, text)| {
            let (kind, numbers) = kind_of(&column.column_type);
            let (unsigned, members) = match &column.column_type {
                ColumnType::TinyInt { unsigned }
                | ColumnType::SmallInt { unsigned }
                | ColumnType::MediumInt { unsigned }
                | ColumnType::Int { unsigned }
                | ColumnType::BigInt { unsigned } => (*unsigned, Vec::new()),
                ColumnType::Enum { members } | ColumnType::Set { members } => {
                    (false, members.clone())
                }
                _ => (false, Vec::new()),
            };
            NamedColumn {
                name: column.name.clone(),
                kind: kind.to_owned(),
                numbers,
                unsigned,
                collation: text.as_ref().map_or(0, |text| collation_of(text.decoding)),
                members,
            }
        });
        Self {
            columns: columns.collect(),
            key: table.key_names(),
            primary: table.key_index.as_deref() == Some("PRIMARY"),
        }
    }

    /// What a table map with names said.
    pub fn of_schema(schema: &TableSchema, map: &TableMap) -> Self {
        let columns = schema.columns.iter().zip(&map.columns).map(|(column, wire)| {
            let (kind, numbers) = kind_of(&column.column_type);
            let members = match &column.column_type {
                ColumnType::Enum { members } | ColumnType::Set { members } => members.clone(),
                _ => Vec::new(),
            };
            NamedColumn {
                name: column.name.clone(),
                kind: kind.to_owned(),
                numbers,
                unsigned: matches!(wire.wire, WireType::Integer { unsigned: true, .. }),
                collation: wire.collation,
                members,
            }
        });
        Self {
            columns: columns.collect(),
            key: schema.key_columns().map(|column| column.name.clone()).collect(),
            primary: !map.primary_key.is_empty(),
        }
    }

    /// Whether a table map without names can be of this shape.
    pub fn fits(&self, map: &TableMap) -> bool {
        self.columns.len() == map.columns.len()
            && self.columns.iter().zip(&map.columns).all(|(column, wire)| {
                column.fits(wire)
                    && (!map.signs_told
                        || is_unsigned(wire.wire).is_none_or(|u| u == column.unsigned))
            })
            && self
                .key
                .iter()
                .all(|key| self.position(key).is_some_and(|i| !map.columns[i].nullable))
    }

    /// Completes a table map that fits.
    pub fn fill(&self, map: &mut TableMap) {
        for (column, wire) in self.columns.iter().zip(&mut map.columns) {
            wire.name.clone_from(&column.name);
            match &mut wire.wire {
                WireType::Integer { unsigned, .. } if !map.signs_told => {
                    *unsigned = column.unsigned
                }
                WireType::Geometry { point, .. } => *point |= column.kind == "point",
                WireType::Enum { .. } | WireType::Set { .. } => {
                    wire.collation = UTF8;
                    wire.members = column.members.iter().map(|m| m.as_bytes().to_vec()).collect();
                }
                WireType::Short { .. } | WireType::Blob { .. } | WireType::Compressed { .. }
                    if wire.collation == 0 =>
                {
                    let bytes = matches!(&*column.kind, "bytes" | "binary");
                    wire.collation = if bytes { BINARY } else { column.collation };
                }
                _ => {}
            }
        }
        map.primary_key = self.key.iter().filter_map(|key| self.position(key)).collect();
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| is_same(&column.name, name))
    }

    /// Does what an ALTER TABLE did. `None`: what it did is not certain.
    pub fn altered(&self, changes: &[ColumnChange]) -> Option<Self> {
        let renamed = |key: &String| {
            let new = changes.iter().find_map(|change| match change {
                ColumnChange::Rename { old, new } if is_same(old, key) => Some(new),
                ColumnChange::Change { old, column, .. } if is_same(old, key) => Some(&column.name),
                _ => None,
            });
            new.unwrap_or(key).clone()
        };
        let key = self.key.iter().map(renamed).collect();
        let mut shape = Self { columns: Vec::new(), key, primary: self.primary };
        // As the server does: first the columns that were there stay, go or become others, by the names before; then
        // those with a place of their own are put in, one after the other, by the names after.
        for column in &self.columns {
            let mut now = Some(column.clone());
            for change in changes {
                match change {
                    ColumnChange::Drop { name, .. } if is_same(name, &column.name) => {
                        if self.key.iter().any(|key| is_same(key, name)) {
                            return None;
                        }
                        now = None;
                    }
                    ColumnChange::Rename { old, new } if is_same(old, &column.name) => {
                        now = Some(NamedColumn { name: new.clone(), ..column.clone() });
                    }
                    ColumnChange::Change { old, column: new, place }
                        if is_same(old, &column.name) =>
                    {
                        now = place.is_none().then(|| new.clone());
                    }
                    _ => {}
                }
            }
            shape.columns.extend(now);
        }
        for change in changes {
            match change {
                ColumnChange::Add { column, place, if_absent } => {
                    if self.position(&column.name).is_some() {
                        if *if_absent {
                            continue;
                        }
                        // It may be dropped and added in one statement.
                        if shape.position(&column.name).is_some() {
                            return None;
                        }
                    }
                    shape.put(column.clone(), place.as_ref())?;
                }
                ColumnChange::Change { old, column, place } => {
                    self.position(old)?;
                    if place.is_some() {
                        shape.put(column.clone(), place.as_ref())?;
                    }
                }
                ColumnChange::Drop { name, if_present } => {
                    if self.position(name).is_none() && !if_present {
                        return None;
                    }
                }
                ColumnChange::Rename { old, .. } => {
                    self.position(old)?;
                }
                ColumnChange::PrimaryKey(key) => {
                    shape.key.clone_from(key);
                    shape.primary = true;
                }
                ColumnChange::OtherKeys => {
                    if !shape.primary {
                        return None;
                    }
                }
                ColumnChange::DropPrimaryKey => {
                    let again = changes.iter().any(|c| matches!(c, ColumnChange::PrimaryKey(_)));
                    if !again {
                        return None;
                    }
                }
                ColumnChange::Unclear => return None,
            }
        }
        Some(shape)
    }

    fn put(&mut self, column: NamedColumn, place: Option<&Place>) -> Option<()> {
        let at = match place {
            None => self.columns.len(),
            Some(Place::First) => 0,
            Some(Place::After(name)) => self.position(name)? + 1,
        };
        self.columns.insert(at, column);
        Some(())
    }
}

/// A collation of the character set: any one, for all of them are read in the same way.
fn collation_of(charset: Charset) -> u16 {
    (1..1024).find(|&id| id != BINARY && of_collation(id) == Some(charset)).unwrap_or(0)
}

/// Column names do not differ by case.
fn is_same(one: &str, other: &str) -> bool {
    one == other || one.to_lowercase() == other.to_lowercase()
}

impl NamedColumn {
    fn fits(&self, column: &WireColumn) -> bool {
        let numbers = |wanted: &[u8]| {
            self.numbers.iter().zip(wanted).all(|(&known, &told)| known == u16::from(told))
        };
        // Where the server sends no character sets, text whose set is not known cannot be read.
        let readable = column.collation != 0 || self.kind != "text" || self.collation != 0;
        let kind = |kinds: &[&str]| self.kind == "any" || kinds.contains(&&*self.kind);
        match column.wire {
            WireType::Integer { bytes: 1, .. } => kind(&["tinyint"]),
            WireType::Integer { bytes: 2, .. } => kind(&["smallint"]),
            WireType::Integer { bytes: 3, .. } => kind(&["mediumint"]),
            WireType::Integer { bytes: 4, .. } => kind(&["int"]),
            WireType::Integer { .. } => kind(&["bigint"]),
            WireType::Float => kind(&["float", "real"]),
            WireType::Double => kind(&["double", "real"]),
            WireType::Decimal { precision, scale } => {
                kind(&["decimal"]) && numbers(&[precision, scale])
            }
            WireType::Year => kind(&["year"]),
            WireType::Date => kind(&["date"]),
            WireType::Time { digits } => kind(&["time"]) && numbers(&[digits]),
            WireType::DateTime { digits } => kind(&["datetime"]) && numbers(&[digits]),
            WireType::Timestamp { digits } => kind(&["timestamp"]) && numbers(&[digits]),
            WireType::Short { .. } => kind(&["text", "bytes", "binary"]) && readable,
            // MariaDB's JSON is a LONGTEXT.
            WireType::Blob { .. } => kind(&["text", "bytes", "json"]) && readable,
            WireType::Compressed { .. } => kind(&["text", "bytes"]) && readable,
            WireType::Json { .. } => kind(&["json"]),
            WireType::Geometry { .. } => kind(&["point", "geometry"]),
            WireType::Vector { .. } => kind(&["vector"]),
            WireType::Enum { bytes } => {
                kind(&["enum"]) && bytes == if self.members.len() > 255 { 2 } else { 1 }
            }
            WireType::Set { bytes } => {
                let needed = match self.members.len().div_ceil(8) {
                    0 => return false,
                    needed @ 1..=4 => needed,
                    _ => 8,
                };
                kind(&["set"]) && usize::from(bytes) == needed
            }
            WireType::Bit { width } => kind(&["bit"]) && numbers(&[width]),
            WireType::Unknown(_) => true,
        }
    }
}

fn is_unsigned(wire: WireType) -> Option<bool> {
    match wire {
        WireType::Integer { unsigned, .. } => Some(unsigned),
        _ => None,
    }
}

fn kind_of(column_type: &ColumnType) -> (&'static str, Vec<u16>) {
    let kind = match column_type {
        ColumnType::TinyInt { .. } => "tinyint",
        ColumnType::SmallInt { .. } => "smallint",
        ColumnType::MediumInt { .. } => "mediumint",
        ColumnType::Int { .. } => "int",
        ColumnType::BigInt { .. } => "bigint",
        ColumnType::Float => "float",
        ColumnType::Double => "double",
        ColumnType::Decimal { precision, scale } => {
            return ("decimal", vec![u16::from(*precision), u16::from(*scale)]);
        }
        ColumnType::Bit { width } => return ("bit", vec![u16::from(*width)]),
        ColumnType::Date => "date",
        ColumnType::Time { digits } => return ("time", vec![u16::from(*digits)]),
        ColumnType::DateTime { digits } => return ("datetime", vec![u16::from(*digits)]),
        ColumnType::Timestamp { digits } => return ("timestamp", vec![u16::from(*digits)]),
        ColumnType::Year => "year",
        ColumnType::Text => "text",
        ColumnType::Binary { .. } => "binary",
        ColumnType::Bytes => "bytes",
        ColumnType::Enum { .. } => "enum",
        ColumnType::Set { .. } => "set",
        ColumnType::Json => "json",
        ColumnType::Point => "point",
        ColumnType::Geometry => "geometry",
        ColumnType::Vector => "vector",
        // Types of MariaDB's that its table maps do not tell apart.
        ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => "any",
    };
    (kind, Vec::new())
}
