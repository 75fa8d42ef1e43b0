//! A record of either reader, and its parts: every byte of a datum belongs to one named leaf.

use std::sync::Arc;

use serde_json::Value;

/// What one of the two readers wrote.
#[derive(Clone, Debug)]
pub struct Record {
    pub topic: String,
    /// Without framing; `None` for a table without a key.
    pub key: Option<Vec<u8>>,
    /// Without framing; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    pub key_schema: Option<Arc<str>>,
    pub value_schema: Option<Arc<str>>,
    /// Names and values.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The key and its schema's text.
    pub fn key_datum(&self) -> Option<(&[u8], &str)> {
        self.key.as_deref().zip(self.key_schema.as_deref())
    }

    /// The value and its schema's text.
    pub fn value_datum(&self) -> Option<(&[u8], &str)> {
        self.value.as_deref().zip(self.value_schema.as_deref())
    }
}

/// A part of a datum: a column of `before` or `after`, a field of `source`, or a field of the envelope.
#[derive(Debug, PartialEq, Eq)]
pub struct Leaf {
    /// `after.id`, `source.file`, `op`; for a union of a record also `after?`, its branch.
    pub path: String,
    /// With the branch of its union.
    pub bytes: Vec<u8>,
}

/// Splits a datum; a sentence when it is not one of this schema or has bytes left over.
pub fn leaves(schema: &Value, datum: &[u8]) -> Result<Vec<Leaf>, String> {
    let mut walk = Walk { named: Vec::new(), rest: datum };
    walk.define(schema, "");
    let mut leaves = Vec::new();
    for field in fields(schema) {
        let name = field["name"].as_str().unwrap_or_default();
        walk.field(name, &field["type"], &mut leaves)?;
    }
    if walk.rest.is_empty() {
        Ok(leaves)
    } else {
        Err(format!("{} bytes too many", walk.rest.len()))
    }
}

fn fields(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["fields"].as_array().into_iter().flatten()
}

struct Walk<'a> {
    /// Records that were defined, for later uses by name.
    named: Vec<(String, &'a Value)>,
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn field(&mut self, name: &str, schema: &'a Value, leaves: &mut Vec<Leaf>) -> Result<(), String>
    where
        'a: 'a,
    {
        let start = self.rest;
        let (kind, branched) = match schema {
            Value::Array(branches) if matches!(name, "before" | "after") => {
                let branch = self.long()?;
                let chosen = usize::try_from(branch).ok().and_then(|i| branches.get(i));
                (self.resolved(chosen.ok_or("no such branch")?), true)
            }
            other => (self.resolved(other), false),
        };
        let leaf = |path: String, start: &[u8], rest: &[u8]| Leaf {
            path,
            bytes: start[..start.len() - rest.len()].to_vec(),
        };
        let inside = kind["type"] == "record" && (branched || name == "source");
        if !inside {
            if branched {
                leaves.push(leaf(format!("{name}?"), start, self.rest));
                return self.skip(kind);
            }
            self.skip(kind)?;
            leaves.push(leaf(name.to_owned(), start, self.rest));
            return Ok(());
        }
        if branched {
            leaves.push(leaf(format!("{name}?"), start, self.rest));
        }
        for field in fields(kind) {
            let start = self.rest;
            self.skip(&field["type"])?;
            let path = format!("{name}.{}", field["name"].as_str().unwrap_or_default());
            leaves.push(leaf(path, start, self.rest));
        }
        Ok(())
    }

    /// Enters every record of a schema, since the first use may be in a branch that a datum does not take.
    fn define(&mut self, schema: &'a Value, outer: &str) {
        match schema {
            Value::Array(branches) => branches.iter().for_each(|branch| self.define(branch, outer)),
            Value::Object(_) if schema["type"] == "record" => {
                let namespace = schema["namespace"].as_str().unwrap_or(outer);
                let name = schema["name"].as_str().unwrap_or_default();
                self.named.push((format!("{namespace}.{name}"), schema));
                fields(schema).for_each(|field| self.define(&field["type"], namespace));
            }
            _ => {}
        }
    }

    /// The definition of a name; a record of the enclosing namespace goes by its short one.
    fn resolved(&self, schema: &'a Value) -> &'a Value {
        let Some(name) = schema.as_str() else { return schema };
        let same = |full: &str| full == name || full.rsplit('.').next() == Some(name);
        self.named.iter().find(|(full, _)| same(full)).map_or(schema, |(_, schema)| *schema)
    }

    fn skip(&mut self, schema: &'a Value) -> Result<(), String> {
        let schema = self.resolved(schema);
        if let Value::Array(branches) = schema {
            let branch = self.long()?;
            let chosen = usize::try_from(branch).ok().and_then(|i| branches.get(i));
            return self.skip(chosen.ok_or("no such branch")?);
        }
        let kind = schema.as_str().or(schema["type"].as_str()).unwrap_or_default();
        match kind {
            "null" => Ok(()),
            "boolean" => self.take(1),
            "int" | "long" => self.long().map(|_| ()),
            "float" => self.take(4),
            "double" => self.take(8),
            "bytes" | "string" => {
                let length = self.long()?;
                self.take(usize::try_from(length).map_err(|_| "a negative length")?)
            }
            "record" => fields(schema).try_for_each(|field| self.skip(&field["type"])),
            "array" => loop {
                let items = self.long()?;
                if items == 0 {
                    return Ok(());
                }
                if items < 0 {
                    self.long()?;
                }
                (0..items.unsigned_abs()).try_for_each(|_| self.skip(&schema["items"]))?;
            },
            other => Err(format!("type {other} is not known here")),
        }
    }

    fn long(&mut self) -> Result<i64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.rest.first().ok_or("ends inside a number")?;
            self.rest = &self.rest[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err("a number of more than 64 bits".into())
    }

    fn take(&mut self, length: usize) -> Result<(), String> {
        self.rest = self.rest.get(length..).ok_or("ends inside a value")?;
        Ok(())
    }
}
