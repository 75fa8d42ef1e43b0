//! The differences that docs/DEBEZIUM.md explains. Each is as narrow as it can be told: it says by which rule the two
//! values belong together, and nothing else is forgiven.

use serde_json::Value;

use crate::compare::{Difference, Part};

/// A difference with a reason.
pub struct Known {
    /// The heading in docs/DEBEZIUM.md.
    pub heading: &'static str,
    pub covers: fn(&Difference) -> bool,
}

pub const KNOWN: &[Known] = &[
    Known { heading: "DROP TABLE", covers: drop_table },
    Known { heading: "Tables that are read again", covers: read_again },
    Known { heading: "JSON in a snapshot", covers: json_in_snapshot },
    Known { heading: "Negative times in JSON", covers: negative_time_in_json },
    Known { heading: "TIMESTAMP in a snapshot", covers: timestamp_in_snapshot },
    Known { heading: "FLOAT in a snapshot", covers: float_in_snapshot },
    Known { heading: "BIT in the key of a snapshot", covers: bit_in_key },
    Known { heading: "YEAR 0000", covers: year_zero },
    Known { heading: "Years before 100", covers: early_year },
    Known { heading: "Defaults of text and bytes", covers: default_as_written },
    Known { heading: "Defaults after a DDL in the stream", covers: default_after_ddl },
    Known { heading: "ENUM members with a comma", covers: enum_with_comma },
    Known { heading: "BOOLEAN and REAL in a statement", covers: type_by_statement },
];

fn drop_table(difference: &Difference) -> bool {
    difference.part == Part::Record
        && difference.topic.ends_with(".moves.dropped")
        && difference.ours == b"t"
        && difference.theirs.is_empty()
}

fn read_again(difference: &Difference) -> bool {
    const RENAMED: [&str; 8] =
        ["ghost", "new_name", "old_name", "old_shapes", "shapes", "shapes2", "swap_a", "swap_b"];
    let table = difference.topic.rsplit('.').next().unwrap_or_default();
    difference.part == Part::Record
        && difference.topic.contains(".moves.")
        && (RENAMED.contains(&table) || table == "of_parts")
        && (difference.ours == b"t" || difference.ours == b"r")
        && difference.theirs.is_empty()
}

fn json_in_snapshot(difference: &Difference) -> bool {
    let same = |ours: &str, theirs: &str| {
        let bare = theirs.strip_prefix("base64:type").and_then(|rest| rest.split_once(':'));
        bare.is_some_and(|(_, text)| text == ours)
            || theirs.ends_with("000") && trimmed(theirs) == ours
    };
    difference.snapshot && (json(difference, same) || json_numbers(difference))
}

/// Whether both are an array of the same numbers; serde_json does not take the longest ones.
fn json_numbers(difference: &Difference) -> bool {
    let numbers = |text: &str| -> Option<Vec<f64>> {
        let items = text.strip_prefix('[')?.strip_suffix(']')?;
        items.split(',').map(|number| number.trim().parse().ok()).collect()
    };
    let (ours, theirs) = texts(difference);
    difference.part == Part::Value
        && difference.kind.starts_with("json")
        && numbers(ours).is_some_and(|ours| Some(ours) == numbers(theirs))
}

fn negative_time_in_json(difference: &Difference) -> bool {
    let same = |ours: &str, theirs: &str| {
        // Each part of it is negated: -12:00:01 is thirteen hours less an hour and a second.
        ours.starts_with('-') && ours.contains(':') && theirs.matches(":0-").count() == 2
    };
    !difference.snapshot && json(difference, same)
}

/// Whether both are the same document, where strings may also be the same by a rule.
fn json(difference: &Difference, same: fn(&str, &str) -> bool) -> bool {
    fn equal(ours: &Value, theirs: &Value, same: fn(&str, &str) -> bool) -> bool {
        match (ours, theirs) {
            (Value::Array(ours), Value::Array(theirs)) => {
                ours.len() == theirs.len()
                    && ours.iter().zip(theirs).all(|(o, t)| equal(o, t, same))
            }
            (Value::Object(ours), Value::Object(theirs)) => {
                // The order of the keys counts as well.
                ours.len() == theirs.len()
                    && ours.iter().zip(theirs).all(|(o, t)| o.0 == t.0 && equal(o.1, t.1, same))
            }
            (Value::String(ours), Value::String(theirs)) => ours == theirs || same(ours, theirs),
            (Value::Number(ours), Value::Number(theirs)) => {
                ours == theirs || ours.as_f64().is_some() && ours.as_f64() == theirs.as_f64()
            }
            (ours, theirs) => ours == theirs,
        }
    }
    let document = |bytes| serde_json::from_str::<Value>(text(difference, bytes)?).ok();
    difference.part == Part::Value
        && difference.kind.starts_with("json")
        && match (document(&difference.ours), document(&difference.theirs)) {
            (Some(ours), Some(theirs)) => equal(&ours, &theirs, same),
            _ => false,
        }
}

fn timestamp_in_snapshot(difference: &Difference) -> bool {
    let (ours, theirs) = texts(difference);
    difference.part == Part::Value
        && difference.snapshot
        && difference.kind.starts_with("timestamp(")
        && ours.strip_suffix('Z').map(trimmed) == theirs.strip_suffix('Z')
}

/// A fraction without the zeros at its end.
fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn float_in_snapshot(difference: &Difference) -> bool {
    let float = |bytes: &[u8]| Some(f32::from_le_bytes(plain(difference, bytes).try_into().ok()?));
    let (Some(ours), Some(theirs)) = (float(&difference.ours), float(&difference.theirs)) else {
        return false;
    };
    let six_digits: Option<f32> = format!("{ours:.5e}").parse().ok();
    difference.part == Part::Value
        && difference.snapshot
        && (difference.kind == "float" || difference.kind == "float not null")
        && six_digits == Some(theirs)
}

fn bit_in_key(difference: &Difference) -> bool {
    let mut turned = difference.theirs.clone();
    if let Some((_length, bits)) = turned.split_first_mut() {
        bits.reverse();
    }
    matches!(difference.part, Part::Key | Part::Value)
        && difference.snapshot
        && difference.kind.starts_with("bit(")
        && difference.topic.contains(".p_")
        && turned == difference.ours
}

fn year_zero(difference: &Difference) -> bool {
    difference.part == Part::Value
        && difference.snapshot
        && difference.kind.starts_with("year")
        && number(difference, &difference.ours) == Some(1900)
        && number(difference, &difference.theirs) == Some(2000)
}

fn early_year(difference: &Difference) -> bool {
    const DAY_MS: i64 = 86_400_000;
    let unit = match difference.kind.trim_end_matches(" not null") {
        "date" => 1,
        "datetime" => DAY_MS,
        _ => return false,
    };
    let numbers = (number(difference, &difference.ours), number(difference, &difference.theirs));
    let (Some(ours), Some(theirs)) = numbers else { return false };
    let (year, day_of_year) = year_of_day(ours.div_euclid(unit));
    let moved_to = match year {
        0..=69 => year + 2000,
        70..=99 => year + 1900,
        _ => return false,
    };
    let moved = (first_day(moved_to) + day_of_year) * unit + ours.rem_euclid(unit);
    difference.part == Part::Value && theirs == moved
}

/// The year of a day since 1970, and the day's number in it.
fn year_of_day(day: i64) -> (i64, i64) {
    let mut year = 1970 + day.div_euclid(366) - 1;
    while first_day(year + 1) <= day {
        year += 1;
    }
    while first_day(year) > day {
        year -= 1;
    }
    (year, day - first_day(year))
}

/// The first of January since 1970, in the calendar that MySQL counts by.
fn first_day(year: i64) -> i64 {
    let before = year - 1;
    365 * (year - 1970) + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400)
        - 477
}

/// The schema's default, and a NULL, which is written as the default.
fn default_as_written(difference: &Difference) -> bool {
    let column = match difference.kind.replace(" not null", "") {
        kind if kind.starts_with("binary(4) default 0x") => [".kinds.d47", ".kinds.d48"],
        kind if kind == "varbinary(4) default 0x01FF" => [".kinds.d49", ".kinds.d49"],
        kind if kind.starts_with("varchar(30) default it's") => [".kinds.d43", ".kinds.d43"],
        _ => return false,
    };
    let of_table = column.iter().any(|table| difference.topic.ends_with(table));
    of_table && matches!(difference.part, Part::ValueSchema | Part::Value)
}

fn default_after_ddl(difference: &Difference) -> bool {
    let (ours, theirs) = (&difference.ours, &difference.theirs);
    let of_table = [".moves.grows", ".moves.like_grows", ".moves.made"]
        .iter()
        .any(|t| difference.topic.ends_with(t));
    let told = |schema: &[u8]| String::from_utf8_lossy(schema).contains("connect.default");
    let same_but_for_the_default = match difference.part {
        Part::ValueSchema => told(theirs) != told(ours),
        // The branches of the union are the other way round.
        Part::Value => {
            let branches = [ours.first(), theirs.first()];
            (branches == [Some(&2), Some(&0)] || branches == [Some(&0), Some(&2)])
                && ours[1..] == theirs[1..]
        }
        _ => false,
    };
    of_table && !difference.snapshot && same_but_for_the_default
}

fn enum_with_comma(difference: &Difference) -> bool {
    let (ours, theirs) = texts(difference);
    difference.part == Part::Value
        && !difference.snapshot
        && difference.kind.starts_with("enum(")
        && ours.contains(',')
        && theirs == ours.replace(',', "\\,")
}

fn type_by_statement(difference: &Difference) -> bool {
    matches!(difference.part, Part::Value | Part::ValueSchema)
        && !difference.snapshot
        && difference.topic.ends_with(".moves.real_and_bool")
        && matches!(difference.kind.as_str(), "double" | "tinyint(1)")
}

/// A column's bytes without the branch of its union.
fn plain<'a>(difference: &Difference, bytes: &'a [u8]) -> &'a [u8] {
    let required = difference.kind.contains(" not null");
    if required { bytes } else { bytes.get(1..).unwrap_or_default() }
}

fn number(difference: &Difference, bytes: &[u8]) -> Option<i64> {
    let mut rest = plain(difference, bytes);
    let value = schemas::avro_write::read_long(&mut rest)?;
    rest.is_empty().then_some(value)
}

fn text<'a>(difference: &Difference, bytes: &'a [u8]) -> Option<&'a str> {
    let mut rest = plain(difference, bytes);
    let text = schemas::avro_write::read_bytes(&mut rest)?;
    rest.is_empty().then_some(())?;
    std::str::from_utf8(text).ok()
}

fn texts(difference: &Difference) -> (&str, &str) {
    let text = |bytes| text(difference, bytes).unwrap_or_default();
    (text(&difference.ours), text(&difference.theirs))
}
