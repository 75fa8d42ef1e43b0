//! What Debezium writes besides the tables' records: transaction metadata, heartbeats, and the headers that name the
//! connector. The schema texts are what Confluent's AvroConverter prints of Debezium 3.6's Connect schemas.

use change_log::headers::{HeadersError, write as write_header};
use schemas::avro_write::{write_bytes, write_long};

/// The key of the transaction topic.
pub const TRANSACTION_KEY: &str = include_str!("../../schemas/transaction.key.avsc");
/// The value of the transaction topic.
pub const TRANSACTION_VALUE: &str = include_str!("../../schemas/transaction.value.avsc");
/// The key of the heartbeat topic.
pub const HEARTBEAT_KEY: &str = include_str!("../../schemas/heartbeat.key.avsc");
/// The value of the heartbeat topic.
pub const HEARTBEAT_VALUE: &str = include_str!("../../schemas/heartbeat.value.avsc");

/// The topic of a source's transaction metadata. Topics of tables have three parts.
pub fn transaction_topic(source: &str) -> String {
    format!("{source}.transaction")
}

/// The topic of a source's heartbeats.
pub fn heartbeat_topic(source: &str) -> String {
    format!("__debezium-heartbeat.{source}")
}

/// The headers of every record of one run of the reader.
pub fn context_headers(source: &str, run_id: &str) -> Result<Vec<u8>, HeadersError> {
    let mut out = Vec::new();
    for (name, value) in [
        ("__debezium.context.connectorLogicalName", source),
        ("__debezium.context.taskId", "0"),
        ("__debezium.context.connectorName", "mysql"),
        ("__debezium.context.runId", run_id),
    ] {
        write_header(&mut out, name, value.as_bytes())?;
    }
    Ok(out)
}

/// The value that says that a transaction began.
pub fn write_begin(out: &mut Vec<u8>, id: &str, ts_ms: i64) {
    write_bytes(out, b"BEGIN");
    write_bytes(out, id.as_bytes());
    out.extend_from_slice(&[0, 0]);
    write_long(out, ts_ms);
}

/// The value that says that a transaction ended: all its events, and those of each table (`database.table`).
pub fn write_end(out: &mut Vec<u8>, id: &str, tables: &[(&str, i64)], ts_ms: i64) {
    write_bytes(out, b"END");
    write_bytes(out, id.as_bytes());
    out.push(2);
    write_long(out, tables.iter().map(|(_, events)| events).sum());
    out.push(2);
    if !tables.is_empty() {
        write_long(out, tables.len() as i64);
        for (table, events) in in_hash_map_order(tables) {
            out.push(2);
            write_bytes(out, table.as_bytes());
            write_long(out, events);
        }
    }
    out.push(0);
    write_long(out, ts_ms);
}

/// Debezium lists the tables as Java's `HashMap` does: by the hash's bucket, within one in the order of insertion.
fn in_hash_map_order<'a>(tables: &[(&'a str, i64)]) -> Vec<(&'a str, i64)> {
    let mut buckets = 16_usize;
    while tables.len() > buckets * 3 / 4 {
        buckets *= 2;
    }
    let mut sorted = tables.to_vec();
    sorted.sort_by_key(|(table, _)| {
        let hash = table
            .encode_utf16()
            .fold(0_u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)));
        (hash ^ hash >> 16) as usize & (buckets - 1)
    });
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "a0ca88ad-e6cc-11f1-bc64-02fc00000001:7";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn transaction_records_are_debeziums_bytes() {
        let mut out = Vec::new();
        write_begin(&mut out, ID, 1_795_390_233_921);
        assert_eq!(
            hex(&out),
            "0a424547494e4c61306361383861642d653663632d313166312d626336342d3032666330303030303030313a37000082f5c6d9c068"
        );
        out.clear();
        write_end(&mut out, ID, &[("shop.nokey", 1), ("shop.orders", 6)], 1_795_390_233_921);
        assert_eq!(
            hex(&out),
            "06454e444c61306361383861642d653663632d313166312d626336342d3032666330303030303030313a37020e0204021673686f702e6f72646572730c021473686f702e6e6f6b6579020082f5c6d9c068"
        );
        out.clear();
        write_end(&mut out, &ID.replace(":7", ":8"), &[], 1_795_390_233_924);
        assert_eq!(
            hex(&out),
            "06454e444c61306361383861642d653663632d313166312d626336342d3032666330303030303030313a380200020088f5c6d9c068"
        );
    }

    #[test]
    fn tables_are_listed_in_the_order_of_javas_hash_map() {
        // Put into a java.util.HashMap in the order of their numbers, read back in this one.
        let names: Vec<String> = (0..30).map(|n| format!("shop.table_{n}")).collect();
        let order = |count: usize| -> String {
            let tables: Vec<_> = names[..count].iter().map(|name| (name.as_str(), 1)).collect();
            let listed = in_hash_map_order(&tables).into_iter();
            listed
                .map(|(name, _)| name.rsplit('_').next().unwrap_or_default())
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(order(12), "0,9,11,10,6,5,8,7,2,1,4,3");
        assert_eq!(order(13), "0,6,5,8,7,2,1,4,3,9,12,11,10");
        assert_eq!(
            order(30),
            "19,18,17,16,15,14,13,12,11,10,0,6,5,8,7,2,1,4,3,29,28,27,26,25,24,9,23,22,21,20"
        );
    }

    #[test]
    fn every_schema_parses() {
        for text in [TRANSACTION_KEY, TRANSACTION_VALUE, HEARTBEAT_KEY, HEARTBEAT_VALUE] {
            apache_avro::Schema::parse_str(text).expect("parses");
        }
    }
}
