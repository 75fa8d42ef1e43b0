//! The snapshot's hot path allocates nothing per row: from the packet to Avro none at all, and a whole SELECT over a
//! connection costs the same number of allocations whether it has 1,000 rows or 100,000.
//!
//! The rows are built here as MySQL builds them, for the 12 columns of the benchmarks' table, and sent by a server of
//! the test's own. A binary of its own, because a global allocator counts for all tests of a binary.

mod counting_allocator;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
};

use cdc_reader::{
    SourceConfig,
    encode::charset::Charset,
    mysql::{
        catalog::{CatalogTable, Estimate, TextColumn},
        rows::{Flow, RowConnection, ValueKind},
    },
    snapshot::avro_row::RowWriter,
};
use counting_allocator::allocations;
use schemas::{
    avro_schema::AvroOptions,
    column_type::ColumnType,
    table_id::TableId,
    table_schema::{Column, TableSchema},
};
use tokio_util::sync::CancellationToken;

/// Name, type code of the protocol, whether unsigned.
const DEFINITIONS: [(&str, u8, bool); 12] = [
    ("id", 8, true),
    ("user_id", 3, false),
    ("status", 8, true),
    ("price", 246, false),
    ("qty", 2, false),
    ("memo", 253, false),
    ("address", 252, false),
    ("ordered_at", 12, false),
    ("updated_at", 7, false),
    ("meta", 245, false),
    ("is_gift", 1, false),
    ("ratio", 5, false),
];

fn orders() -> CatalogTable {
    let members = ["created", "paid", "shipped", "done"].map(String::from).to_vec();
    let types = [
        ColumnType::BigInt { unsigned: true },
        ColumnType::Int { unsigned: false },
        ColumnType::Enum { members },
        ColumnType::Decimal { precision: 12, scale: 2 },
        ColumnType::SmallInt { unsigned: false },
        ColumnType::Text,
        ColumnType::Text,
        ColumnType::DateTime { digits: 6 },
        ColumnType::Timestamp { digits: 0 },
        ColumnType::Json,
        ColumnType::TinyInt { unsigned: false },
        ColumnType::Double,
    ];
    let texts = types.iter().map(|column_type| {
        (*column_type == ColumnType::Text).then(|| TextColumn {
            charset: "utf8mb4".into(),
            collation: "utf8mb4_0900_ai_ci".into(),
            decoding: Charset::Utf8,
        })
    });
    let texts = texts.collect();
    let columns = types.into_iter().zip(DEFINITIONS).map(|(column_type, (name, ..))| Column {
        name: name.into(),
        column_type,
        nullable: !matches!(name, "id" | "user_id" | "price"),
        details: Default::default(),
    });
    let schema = TableSchema {
        id: TableId::new("s", "market", "orders"),
        columns: columns.collect(),
        key: vec![0],
    };
    CatalogTable { schema: Arc::new(schema), key_index: None, texts, estimate: Estimate::default() }
}

/// A row as the server sends it. Every seventh has NULLs where they can be.
fn row(number: u64) -> Vec<u8> {
    let with_nulls = number.is_multiple_of(7);
    // Two bits are nobody's; id, user_id and price cannot be NULL.
    let mut row = if with_nulls { vec![0, 0b1101_0000, 0b11_1111] } else { vec![0, 0, 0] };
    let text = |row: &mut Vec<u8>, text: &[u8]| {
        row.push(text.len() as u8);
        row.extend_from_slice(text);
    };
    row.extend_from_slice(&number.to_le_bytes());
    row.extend_from_slice(&((number % 100_000) as u32).to_le_bytes());
    if !with_nulls {
        row.extend_from_slice(&(number % 4 + 1).to_le_bytes());
    }
    let sign = if number.is_multiple_of(3) { "-" } else { "" };
    text(&mut row, format!("{sign}{}.{:02}", number % 1_000_000, number % 100).as_bytes());
    if with_nulls {
        return row;
    }
    row.extend_from_slice(&(number as u16).to_le_bytes());
    text(&mut row, format!("memo {number} 우동").as_bytes());
    text(&mut row, b"Seoul Gangnam-gu Teheran-ro 1, apt 2");
    row.extend_from_slice(&[11, 0xea, 7, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    row.extend_from_slice(&[7, 0xea, 7, 2, 1, 3, 4, 5]);
    text(&mut row, format!("{{\"a\": {number}, \"b\": [1, 2.50]}}").as_bytes());
    row.push((number % 2) as u8);
    row.extend_from_slice(&(number as f64 / 3.0).to_le_bytes());
    row
}

fn definition((name, code, unsigned): (&str, u8, bool)) -> Vec<u8> {
    let mut packet = b"\x03def\x06market\x06orders\x06orders".to_vec();
    for _ in 0..2 {
        packet.push(name.len() as u8);
        packet.extend_from_slice(name.as_bytes());
    }
    packet.extend_from_slice(&[0x0c, 0xff, 0, 10, 0, 0, 0, code, if unsigned { 32 } else { 0 }]);
    packet.extend_from_slice(&[0, 0, 0, 0]);
    packet
}

/// Answers one client. The SELECT's text is the number of rows.
fn serve(mut client: TcpStream) -> std::io::Result<()> {
    const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
    const END: &[u8] = &[0xfe, 0, 0, 2, 0];
    let mut greeting = b"\x0a9.7.4\0\x08\0\0\0abcdefgh\0\x00\x82\xff\x02\0\x08\0\x15".to_vec();
    greeting.extend_from_slice(&[0; 10]);
    greeting.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
    let mut rows = 0;
    send(&mut client, 0, &[greeting.as_slice()])?;
    receive(&mut client)?;
    send(&mut client, 2, &[OK])?;
    loop {
        let command = receive(&mut client)?;
        match command.split_first() {
            Some((0x03, _)) => send(&mut client, 1, &[OK])?,
            Some((0x16, sql)) => {
                rows = String::from_utf8_lossy(sql).parse().expect("a number");
                let prepared: &[u8] = &[0, 1, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0];
                let definitions = DEFINITIONS.map(definition);
                let mut packets = vec![prepared];
                packets.extend(definitions.iter().map(Vec::as_slice));
                packets.push(END);
                send(&mut client, 1, &packets)?;
            }
            Some((0x17, _)) => {
                let definitions = DEFINITIONS.map(definition);
                let mut packets: Vec<Vec<u8>> = vec![vec![12]];
                packets.extend(definitions);
                packets.push(END.to_vec());
                packets.extend((0..rows).map(row));
                packets.push(END.to_vec());
                let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
                send(&mut client, 1, &packets)?;
            }
            Some((0x19, _)) => {}
            _ => return Ok(()),
        }
    }
}

fn send(client: &mut TcpStream, first: u8, packets: &[&[u8]]) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for (i, packet) in packets.iter().enumerate() {
        bytes.extend_from_slice(&(packet.len() as u32).to_le_bytes()[..3]);
        bytes.push(first.wrapping_add(i as u8));
        bytes.extend_from_slice(packet);
    }
    client.write_all(&bytes)
}

fn receive(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut header = [0; 4];
    client.read_exact(&mut header)?;
    let [a, b, c, _] = header;
    let mut packet = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
    client.read_exact(&mut packet)?;
    Ok(packet)
}

fn kinds() -> Vec<ValueKind> {
    let integer = |bytes, unsigned| ValueKind::Integer { bytes, unsigned };
    vec![
        integer(8, true),
        integer(4, false),
        integer(8, true),
        ValueKind::Bytes,
        integer(2, false),
        ValueKind::Bytes,
        ValueKind::Bytes,
        ValueKind::Instant,
        ValueKind::Instant,
        ValueKind::Bytes,
        integer(1, false),
        ValueKind::Double,
    ]
}

#[test]
fn packet_becomes_avro_without_an_allocation() {
    for debezium_compat in [false, true] {
        let mut writer = RowWriter::new(&orders(), AvroOptions { debezium_compat });
        writer.expect(&kinds()).expect("fits");
        let rows: Vec<Vec<u8>> = (0..2000).map(row).collect();
        let mut out = Vec::with_capacity(1 << 20);
        writer.write(&rows[1], &mut out).expect("is written");
        let before = allocations();
        for row in &rows {
            writer.write(row, &mut out).expect("is written");
        }
        assert_eq!(allocations() - before, 0);
        assert!(out.len() > 2000 * 80);
    }
}

#[test]
fn select_allocates_the_same_for_any_number_of_rows() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = std::thread::spawn(move || serve(listener.accept().expect("comes").0));
    let config: SourceConfig = serde_json::from_value(serde_json::json!({
        "name": "s", "url": format!("mysql://root@127.0.0.1:{port}"), "tables": [],
    }))
    .expect("a source");
    let mut connection =
        RowConnection::connect(&config, CancellationToken::new()).expect("connects");
    let mut writer = RowWriter::new(&orders(), AvroOptions::default());
    let mut out = Vec::with_capacity(1 << 20);
    let mut counted = |rows: u64| {
        let sql = rows.to_string();
        let before = allocations();
        let mut seen = 0;
        connection
            .select(&sql, |row| {
                if seen == 0 {
                    writer.expect(row.kinds).expect("fits");
                }
                seen += 1;
                out.clear();
                writer.write(row.bytes, &mut out).expect("is written");
                Flow::Go
            })
            .expect("reads");
        assert_eq!(seen, rows);
        allocations() - before
    };
    // Memory is warm after the first.
    counted(1000);
    let few = counted(1000);
    assert_eq!(counted(100_000), few, "for 100,000 rows");
    drop(connection);
    server.join().expect("no panic").expect("is told that it ends");
}
