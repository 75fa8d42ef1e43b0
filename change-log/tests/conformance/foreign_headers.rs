//! Headers that another program wrote into a topic of Kafka.
#![allow(unsafe_code)]

use std::{ptr, time::Duration};

use change_log::{LogConfig, LogError, headers};
use rdkafka::{
    ClientConfig,
    bindings::{rd_kafka_header_add, rd_kafka_headers_t},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaRespErr,
};

use crate::test_log::{PATIENCE, TestLog, data_topic, kafka, next_records};

fn produce(log: &TestLog, topic: &str, headers: OwnedHeaders) {
    let LogConfig::Kafka(kafka) = &log.config else { unreachable!("it is kafka") };
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        .create()
        .expect("a producer");
    let record = BaseRecord::to(topic).partition(0).key("k").payload("v").headers(headers);
    producer.send(record).map_err(|(error, _)| error).expect("send");
    producer.flush(PATIENCE).expect("flush");
}

#[test]
fn names_that_are_not_text_and_missing_values_are_read() {
    let Some(log) = kafka("foreign-headers") else { return };
    let topic = log.topic("t");
    data_topic(&mut *log.writer(), &topic);
    let without_value: Option<&[u8]> = None;
    let list = OwnedHeaders::new().insert(Header { key: "none", value: without_value });
    let (name, value) = ([0xff_u8, 0xfe, b'x'], [1_u8, 0, 2]);
    let native: *mut rd_kafka_headers_t = ptr::from_ref(list.as_borrowed()).cast_mut().cast();
    // SAFETY: the list is alive, `OwnedHeaders` owns it alone, and librdkafka copies both parts.
    let added =
        unsafe { rd_kafka_header_add(native, name.as_ptr().cast(), 3, value.as_ptr().cast(), 3) };
    assert_eq!(added, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
    produce(&log, &topic, list);
    let mut reader = log.reader();
    reader.assign(&topic, 0, 0).expect("assign");
    let consumed = next_records(&mut *reader);
    let found: Result<Vec<_>, _> = headers::iter(consumed.headers(&consumed.records[0])).collect();
    let wanted: [(&[u8], &[u8]); 2] = [(b"none", b""), (&name, &value)];
    assert_eq!(found.as_deref(), Ok(wanted.as_slice()));
}

#[test]
fn a_name_that_is_too_long_is_named_with_its_offset() {
    let Some(log) = kafka("long-header") else { return };
    let topic = log.topic("t");
    data_topic(&mut *log.writer(), &topic);
    let name = "n".repeat(256);
    produce(&log, &topic, OwnedHeaders::new().insert(Header { key: &name, value: Some("1") }));
    let mut reader = log.reader();
    reader.assign(&topic, 0, 0).expect("assign");
    let error = (0..300)
        .find_map(|_| reader.poll(Duration::from_millis(200)).err())
        .expect("the header is refused");
    let LogError::Unfit { place, reason } = &error else { panic!("{error}") };
    assert!(place.contains(&topic) && reason.contains("at offset 0"), "{error}");
}
