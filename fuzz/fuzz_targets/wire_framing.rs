//! A record as a consumer gets it: the framing, and the numbers and strings of a datum.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schemas::{
    avro_write::{read_bytes, read_long, write_bytes, write_long},
    wire_format::{read_framing, write_framing},
};

fuzz_target!(|record: &[u8]| {
    if let Ok((reference, datum)) = read_framing(record) {
        let mut again = Vec::new();
        write_framing(&mut again, reference);
        again.extend_from_slice(datum);
        assert_eq!(again, record);
    }
    let mut rest = record;
    while let Some(number) = read_long(&mut rest) {
        let mut again = Vec::new();
        write_long(&mut again, number);
        assert_eq!(read_long(&mut &again[..]), Some(number));
    }
    let mut rest = record;
    while let Some(value) = read_bytes(&mut rest) {
        let mut again = Vec::new();
        write_bytes(&mut again, value);
        assert_eq!(read_bytes(&mut &again[..]), Some(value));
    }
});
