//! Values of every type, and packets that are none.

use schemas::{
    table_id::TableId,
    table_schema::{Column, TableSchema},
};

use proptest::prelude::*;

use super::*;
use crate::mysql::{
    catalog::Estimate,
    rows::{
        RowValue,
        value::tests::{any_kind, date, packet_of},
    },
};

fn table(column_type: ColumnType, nullable: bool) -> CatalogTable {
    let key = Column {
        name: "id".into(),
        column_type: ColumnType::Int { unsigned: false },
        nullable: false,
        details: Default::default(),
    };
    CatalogTable {
        schema: std::sync::Arc::new(TableSchema {
            id: TableId::new("s", "d", "t"),
            columns: vec![
                Column { name: "c".into(), column_type, nullable, details: Default::default() },
                key,
            ],
            key: vec![1],
        }),
        key_index: None,
        texts: vec![None, None],
        estimate: Estimate::default(),
    }
}

fn written(column_type: ColumnType, value: RowValue<'_>) -> Result<Vec<u8>, String> {
    let mut writer = RowWriter::new(&table(column_type, false), AvroOptions::default());
    let mut out = Vec::new();
    let (mut kinds, packet) = packet_of(&[value, RowValue::Int(3)]);
    if value == RowValue::Null {
        kinds[0] = ValueKind::Bytes;
    }
    writer.expect(&kinds)?;
    let places = writer.write(&packet, &mut out)?;
    assert_eq!(writer.key_bytes(), [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(out[places.key.clone()], [6]);
    assert_eq!(places.row.end, places.key.start);
    let row = &out[places.row];
    Ok(row[..row.len() - 1].to_vec())
}

#[test]
fn values_have_the_bytes_of_the_binlog_path() {
    let point =
        [&[0xe6, 0x10, 0, 0, 1, 1, 0, 0, 0][..], &1.5f64.to_le_bytes(), &2.0f64.to_le_bytes()]
            .concat();
    let mut point_bytes = [&1.5f64.to_le_bytes()[..], &2.0f64.to_le_bytes(), &[2, 42]].concat();
    point_bytes.extend_from_slice(&point[4..]);
    point_bytes.extend_from_slice(&[2, 0xcc, 0x43]);
    let at = DateParts {
        year: 2018,
        month: 6,
        day: 20,
        hour: 13,
        minute: 37,
        second: 3,
        micros: 500_000,
    };
    let members = || vec!["a".to_owned(), "b,c".to_owned()];
    let cases: Vec<(ColumnType, RowValue<'_>, Vec<u8>)> = vec![
        (
            ColumnType::BigInt { unsigned: true },
            RowValue::UInt(u64::MAX),
            [&[18, 0][..], &[0xff; 8]].concat(),
        ),
        (ColumnType::Bit { width: 1 }, RowValue::Bytes(&[1]), vec![1]),
        (ColumnType::Bit { width: 9 }, RowValue::Bytes(&[1, 2]), vec![4, 2, 1]),
        (ColumnType::Binary { length: 3 }, RowValue::Bytes(&[7]), vec![6, 7, 0, 0]),
        (ColumnType::Enum { members: members() }, RowValue::Int(0), vec![0]),
        (ColumnType::Set { members: members() }, RowValue::Int(3), b"\x0aa,b,c".to_vec()),
        (ColumnType::Json, RowValue::Bytes(b"[1, 2]"), b"\x0a[1,2]".to_vec()),
        (ColumnType::Decimal { precision: 5, scale: 2 }, RowValue::Bytes(b"-1.00"), vec![2, 0x9c]),
        (ColumnType::Date, date(1970, 1, 3), vec![2, 4]),
        (ColumnType::DateTime { digits: 0 }, date(0, 0, 0), vec![0]),
        (
            ColumnType::Timestamp { digits: 1 },
            RowValue::Instant(at),
            b"\x02\x2c2018-06-20T13:37:03.5Z".to_vec(),
        ),
        (ColumnType::Point, RowValue::Bytes(&point), point_bytes),
        (ColumnType::Vector, RowValue::Bytes(&[0, 0, 128, 63]), vec![2, 0, 0, 128, 63, 0]),
    ];
    for (column_type, value, expected) in cases {
        assert_eq!(written(column_type.clone(), value), Ok(expected), "{column_type:?}");
    }
}

#[test]
fn broken_texts_are_counted() {
    let mut writer = RowWriter::new(&table(ColumnType::Text, false), AvroOptions::default());
    for text in ["whole".as_bytes(), b"br\xffken"] {
        let (kinds, packet) = packet_of(&[RowValue::Bytes(text), RowValue::Int(3)]);
        writer.expect(&kinds).expect("fits");
        writer.write(&packet, &mut Vec::new()).expect("is written");
    }
    assert_eq!(writer.invalid_texts, 1);
}

#[test]
fn value_of_another_kind_names_its_column() {
    let error = written(ColumnType::Year, RowValue::Bytes(&[1])).expect_err("no number");
    assert!(error.starts_with("column c holds a value of an unexpected kind"), "{error}");
    let error = written(ColumnType::Text, RowValue::Null).expect_err("no NULL");
    assert!(error.contains("declared NOT NULL"), "{error}");
    let mut writer = RowWriter::new(&table(ColumnType::Year, true), AvroOptions::default());
    assert!(writer.expect(&[]).expect_err("none").starts_with("0 columns instead of 2"));
}

fn any_type() -> impl Strategy<Value = ColumnType> {
    let members = || vec!["a".to_owned(), "b".to_owned()];
    prop_oneof![
        any::<bool>().prop_map(|unsigned| ColumnType::TinyInt { unsigned }),
        any::<bool>().prop_map(|unsigned| ColumnType::BigInt { unsigned }),
        Just(ColumnType::Year),
        Just(ColumnType::Float),
        Just(ColumnType::Double),
        Just(ColumnType::Decimal { precision: 65, scale: 30 }),
        Just(ColumnType::Bit { width: 1 }),
        Just(ColumnType::Bit { width: 64 }),
        Just(ColumnType::Date),
        (0u8..7).prop_map(|digits| ColumnType::DateTime { digits }),
        (0u8..7).prop_map(|digits| ColumnType::Timestamp { digits }),
        Just(ColumnType::Time { digits: 6 }),
        Just(ColumnType::Text),
        Just(ColumnType::Binary { length: 7 }),
        Just(ColumnType::Bytes),
        Just(ColumnType::Enum { members: members() }),
        Just(ColumnType::Set { members: members() }),
        Just(ColumnType::Json),
        Just(ColumnType::Geometry),
        Just(ColumnType::Point),
        Just(ColumnType::Vector),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn foreign_packets_are_refused_without_a_panic(
        column_type in any_type(),
        nullable: bool,
        debezium_compat: bool,
        kinds in [any_kind(), any_kind()],
        rows in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..4),
    ) {
        let options = AvroOptions { debezium_compat };
        let mut writer = RowWriter::new(&table(column_type, nullable), options);
        let _ = writer.expect(&kinds);
        let mut out = b"before".to_vec();
        for mut row in rows {
            if let Some(first) = row.first_mut() {
                *first = 0;
            }
            if let Some(nulls) = row.get_mut(1) {
                *nulls &= 0b0100;
            }
            let length = out.len();
            match writer.write(&row, &mut out) {
                Ok(places) => prop_assert_eq!(places.key.end, out.len()),
                Err(_) => prop_assert_eq!(length, out.len()),
            }
        }
    }
}
