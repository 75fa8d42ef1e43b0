//! What librdkafka alone does: transactions of records of one size, with the reader's settings and nothing before it.
//! `bare_producer HOST:PORT RECORDS BYTES`; prints the seconds. The yardstick of tests/bench/stream.sh.

use std::{
    env,
    error::Error,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
    util::Timeout,
};

/// The reader commits about as often.
const TRANSACTION_BYTES: usize = 16 << 20;
const KEY_BYTES: usize = 13;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [servers, records, bytes] = &arguments[..] else {
        return Err("usage: bare_producer HOST:PORT RECORDS BYTES".into());
    };
    let (records, bytes): (usize, usize) = (records.parse()?, bytes.parse()?);
    let name = format!("bare{}", std::process::id());
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("transactional.id", &name)
        .set("compression.codec", "lz4")
        .set("linger.ms", "50")
        .set("batch.num.messages", "100000")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.kbytes", "32768")
        .set("queue.buffering.max.messages", "1000000")
        .set("delivery.report.only.error", "true")
        .create()?;
    producer.init_transactions(Timeout::After(Duration::from_secs(30)))?;
    let topic = format!("{name}.records");
    // As compressible as orders are: a third of each value is its own.
    let mut random = fastrand::Rng::with_seed(1);
    let mut value = vec![b'x'; bytes.saturating_sub(KEY_BYTES)];
    let own = value.len() / 3;
    let began = Instant::now();
    let mut open = 0;
    for number in 0..records {
        if open == 0 {
            producer.begin_transaction()?;
        }
        let key = number.to_be_bytes();
        value[..own].fill_with(|| random.u8(b'0'..=b'9'));
        let mut record = BaseRecord::to(&topic).partition(0).key(&key[..]).payload(&value[..]);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    producer.poll(Duration::from_millis(2));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
        open += bytes;
        if open >= TRANSACTION_BYTES || number + 1 == records {
            producer.commit_transaction(Timeout::Never)?;
            open = 0;
        }
    }
    println!("{:.3}", began.elapsed().as_secs_f64());
    Ok(())
}
