//! A TABLE_MAP event's body: parsed, and made into a plan and schemas.
#![no_main]

use cdc_reader::{binlog::table_map, encode::plan::EncodePlan};
use libfuzzer_sys::fuzz_target;
use schemas::avro_schema::AvroOptions;

fuzz_target!(|body: &[u8]| {
    let _ = table_map::table_id(body);
    let _ = table_map::table_name(body);
    let Ok(map) = table_map::parse(body) else { return };
    for debezium_compat in [false, true] {
        let Ok(plan) = EncodePlan::new(&map, "s", &[], AvroOptions { debezium_compat }) else {
            continue;
        };
        let texts = plan.schemas.key.iter().chain([&plan.schemas.value]);
        for schema in texts {
            serde_json::from_str::<serde_json::Value>(&schema.text).expect("a schema is JSON");
        }
    }
});
