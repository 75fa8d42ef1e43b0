//! Under which subject a schema is registered.

use serde::{Deserialize, Serialize};

/// Confluent's strategies of naming subjects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectNames {
    /// TopicNameStrategy: `<topic>-key`, `<topic>-value`.
    #[default]
    Topic,
    /// RecordNameStrategy: the record's full name.
    Record,
    /// TopicRecordNameStrategy: `<topic>-<the record's full name>`.
    TopicRecord,
}

/// What a schema is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaUse<'a> {
    /// The topic.
    pub topic: &'a str,
    /// For the records' keys; otherwise for their values.
    pub is_key: bool,
}

impl SubjectNames {
    /// The subject of a schema. One that is no record has no name, and goes by the topic.
    pub fn subject(self, wanted: &SchemaUse<'_>, text: &str) -> String {
        let topic = wanted.topic;
        let by_topic = || format!("{topic}-{}", if wanted.is_key { "key" } else { "value" });
        match (self, record_name(text)) {
            (Self::Record, Some(name)) => name,
            (Self::TopicRecord, Some(name)) => format!("{topic}-{name}"),
            (Self::Topic, _) | (_, None) => by_topic(),
        }
    }
}

fn record_name(text: &str) -> Option<String> {
    let schema: serde_json::Value = serde_json::from_str(text).ok()?;
    let part = |name: &str| schema.get(name).and_then(serde_json::Value::as_str);
    let name = part("name")?;
    // Avro specification, "Names": a name with dots is a full name.
    match part("namespace") {
        Some(namespace) if !namespace.is_empty() && !name.contains('.') => {
            Some(format!("{namespace}.{name}"))
        }
        _ => Some(name.to_owned()),
    }
}

/// A subject as a part of a path.
pub fn encode(subject: &str) -> String {
    let mut out = String::with_capacity(subject.len());
    for byte in subject.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_follow_the_strategies() {
        let record =
            r#"{"type":"record","name":"Envelope","namespace":"udon.shop.orders","fields":[]}"#;
        let full = r#"{"type":"record","name":"a.b.Key","namespace":"other","fields":[]}"#;
        let wanted = SchemaUse { topic: "udon.shop.orders", is_key: false };
        let key = SchemaUse { is_key: true, ..wanted };
        for (names, wanted, text, subject) in [
            (SubjectNames::Topic, wanted, record, "udon.shop.orders-value"),
            (SubjectNames::Topic, key, record, "udon.shop.orders-key"),
            (SubjectNames::Record, wanted, record, "udon.shop.orders.Envelope"),
            (SubjectNames::Record, key, full, "a.b.Key"),
            (
                SubjectNames::TopicRecord,
                wanted,
                record,
                "udon.shop.orders-udon.shop.orders.Envelope",
            ),
            (SubjectNames::Record, key, "\"string\"", "udon.shop.orders-key"),
        ] {
            assert_eq!(names.subject(&wanted, text), subject, "{names:?}");
        }
    }

    #[test]
    fn a_subject_is_one_part_of_a_path() {
        assert_eq!(encode("a.b_c-value"), "a.b_c-value");
        assert_eq!(encode("a/b c?\u{fc}"), "a%2Fb%20c%3F%C3%BC");
    }
}
