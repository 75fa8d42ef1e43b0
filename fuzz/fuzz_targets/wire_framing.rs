//! A record as a consumer gets it: the framing, the numbers and strings of a datum, the headers.
#![no_main]

use change_log::headers;
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
    let read: Result<Vec<_>, _> = headers::iter(record).collect();
    if let Ok(read) = read {
        let mut again = Vec::new();
        for (name, value) in read {
            let Ok(name) = str::from_utf8(name) else { return };
            headers::write(&mut again, name, value).expect("what was read can be written");
        }
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
