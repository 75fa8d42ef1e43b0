//! Every column type from Avro, written by another encoder, to the lake and to canonical values.

mod support;

use std::collections::HashSet;

use apache_avro::types::Value;
use schemas::row_digest::row_digest;
use sink_lake::{digests, rows_by_key};
use support::{Change, ColumnType, RunningSink, SourceTable, World, decimal, text};

/// Column type, a value in Avro, and its canonical form.
fn cases() -> Vec<(&'static str, ColumnType, Value, Vec<u8>)> {
    let geometry = Value::Record(vec![
        ("wkb".into(), Value::Bytes(b"wkb".to_vec())),
        ("srid".into(), Value::Union(1, Box::new(Value::Int(4326)))),
    ]);
    let optional = |value| Value::Union(1, Box::new(value));
    let point = Value::Record(vec![
        ("x".into(), Value::Double(1.0)),
        ("y".into(), Value::Double(2.0)),
        ("wkb".into(), optional(Value::Bytes(b"pt".to_vec()))),
        ("srid".into(), Value::Union(0, Box::new(Value::Null))),
    ]);
    // 12 bytes more than 128 bits hold: 10^60 and 7 cents.
    let mut wide = vec![0x00];
    let mut digits = [0u8; 26];
    for digit in format!("1{}7", "0".repeat(60)).bytes() {
        let mut carry = u32::from(digit - b'0');
        for byte in digits.iter_mut().rev() {
            let value = u32::from(*byte) * 10 + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
    }
    wide.extend(digits);
    let wide_text = format!("1{}.{}7", "0".repeat(59), "0");
    let members = || vec!["a".to_owned(), "b".to_owned()];
    vec![
        ("tiny", ColumnType::TinyInt { unsigned: true }, Value::Int(255), b"255".to_vec()),
        ("small", ColumnType::SmallInt { unsigned: false }, Value::Int(-32768), b"-32768".to_vec()),
        ("usmall", ColumnType::SmallInt { unsigned: true }, Value::Int(65535), b"65535".to_vec()),
        (
            "medium",
            ColumnType::MediumInt { unsigned: true },
            Value::Int(1 << 23),
            b"8388608".to_vec(),
        ),
        ("int", ColumnType::Int { unsigned: false }, Value::Int(i32::MIN), b"-2147483648".to_vec()),
        (
            "uint",
            ColumnType::Int { unsigned: true },
            Value::Long(4_294_967_295),
            b"4294967295".to_vec(),
        ),
        (
            "big",
            ColumnType::BigInt { unsigned: false },
            Value::Long(i64::MIN),
            b"-9223372036854775808".to_vec(),
        ),
        (
            "ubig",
            ColumnType::BigInt { unsigned: true },
            decimal(u64::MAX.into()),
            b"18446744073709551615".to_vec(),
        ),
        ("float", ColumnType::Float, Value::Float(1.1), b"1.100000023841858".to_vec()),
        ("double", ColumnType::Double, Value::Double(-1e300), format!("{}", -1e300).into_bytes()),
        (
            "dec",
            ColumnType::Decimal { precision: 12, scale: 2 },
            decimal(-1250),
            b"-12.50".to_vec(),
        ),
        (
            "dec38",
            ColumnType::Decimal { precision: 38, scale: 30 },
            decimal(5),
            format!("0.{}5", "0".repeat(29)).into_bytes(),
        ),
        (
            "dec65",
            ColumnType::Decimal { precision: 65, scale: 2 },
            Value::Decimal(apache_avro::Decimal::from(wide)),
            wide_text.into_bytes(),
        ),
        ("bit1", ColumnType::Bit { width: 1 }, Value::Boolean(true), b"1".to_vec()),
        ("bit9", ColumnType::Bit { width: 9 }, Value::Bytes(vec![1, 1]), vec![1, 1]),
        ("date", ColumnType::Date, Value::Int(-1), b"1969-12-31".to_vec()),
        (
            "time",
            ColumnType::Time { digits: 6 },
            Value::Long(-3_020_399_000_000),
            b"-838:59:59.000000".to_vec(),
        ),
        (
            "dt3",
            ColumnType::DateTime { digits: 3 },
            Value::Long(1),
            b"1970-01-01 00:00:00.001000".to_vec(),
        ),
        (
            "dt6",
            ColumnType::DateTime { digits: 6 },
            Value::Long(-1),
            b"1969-12-31 23:59:59.999999".to_vec(),
        ),
        (
            "ts",
            ColumnType::Timestamp { digits: 2 },
            text("2018-06-20T13:37:03.25Z"),
            b"2018-06-20 13:37:03.250000".to_vec(),
        ),
        ("year", ColumnType::Year, Value::Int(2026), b"2026".to_vec()),
        ("text", ColumnType::Text, text("grüß 🍜"), "grüß 🍜".as_bytes().to_vec()),
        (
            "binary",
            ColumnType::Binary { length: 3 },
            Value::Bytes(vec![0, 255, 0]),
            vec![0, 255, 0],
        ),
        ("blob", ColumnType::Bytes, Value::Bytes(vec![]), vec![]),
        ("enum", ColumnType::Enum { members: members() }, text("b"), b"b".to_vec()),
        ("set", ColumnType::Set { members: members() }, text("a,b"), b"a,b".to_vec()),
        ("json", ColumnType::Json, text(r#"{"a":1}"#), br#"{"a":1}"#.to_vec()),
        ("geo", ColumnType::Geometry, geometry, [&4326i32.to_le_bytes()[..], b"wkb"].concat()),
        ("point", ColumnType::Point, point, [&0i32.to_le_bytes()[..], b"pt"].concat()),
        (
            "vector",
            ColumnType::Vector,
            Value::Array(vec![Value::Float(1.5), Value::Float(-2.0)]),
            [1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_it_was() {
    let mut world = World::new();
    let cases = cases();
    let mut columns = vec![("id", ColumnType::Int { unsigned: false })];
    columns.extend(cases.iter().map(|(name, column_type, _, _)| (*name, column_type.clone())));
    let table = SourceTable::new("all_types", &columns, &[0]);
    let full: Vec<Value> =
        [Value::Int(1)].into_iter().chain(cases.iter().map(|case| case.2.clone())).collect();
    let empty: Vec<Value> =
        [Value::Int(2)].into_iter().chain(cases.iter().map(|_| Value::Null)).collect();
    let sink = RunningSink::start(&world, vec![]);
    world.write(&table, &[Change::Insert(full.clone()), Change::Insert(empty)]);
    sink.caught_up(&world, &table).await;
    // A rewrite copies values of every type.
    world.write(&table, &[Change::Insert([vec![Value::Int(3)], full[1..].to_vec()].concat())]);
    sink.caught_up(&world, &table).await;
    world.write(&table, &[Change::Delete([vec![Value::Int(3)], full[1..].to_vec()].concat())]);
    sink.caught_up(&world, &table).await;
    sink.stop().await;

    let names: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let lake = world.lake_config();
    let digest = |values: &[Option<&[u8]>]| row_digest(values.iter().copied());
    let keys = HashSet::from([digest(&[Some(b"1")]), digest(&[Some(b"2")])]);
    let rows = rows_by_key(&table.schema.id, &lake, &names, &names[..1], keys).await;
    let rows = rows.expect("reads");
    let found = &rows[&digest(&[Some(b"1")])];
    for ((name, column_type, _, canonical), value) in cases.iter().zip(&found[1..]) {
        assert_eq!(value.as_deref(), Some(&canonical[..]), "{name} {column_type:?}");
    }
    assert!(rows[&digest(&[Some(b"2")])][1..].iter().all(Option::is_none));

    let all = digests(&table.schema.id, &lake, &names, &names[..1]).await;
    let all = all.expect("reads").expect("is there");
    assert_eq!((all.len(), all.doubled), (2, 0));
    let mut expected = vec![Some(&b"1"[..])];
    expected.extend(cases.iter().map(|case| Some(&case.3[..])));
    assert_eq!(all.get(digest(&[Some(b"1")])), Some(digest(&expected)));
    assert_eq!(all.get(digest(&[Some(b"3")])), None);
    let sql = "select tiny, ubig, dec, bit1, date, time, ts from t where id = 1";
    let row = world.query(&table, sql).await;
    let expected = "| 255  | 18446744073709551615 | -12.50 | true | 1969-12-31 | -838:59:59.000000 | 2018-06-20T13:37:03.250Z |";
    assert!(row.contains(expected), "{row}");
}
