//! The parts of Debezium's envelope around the row: constant within an event but for the row's number.

use schemas::avro_write::{write_bytes, write_long};

/// What a rows event's source block tells.
#[derive(Clone, Debug)]
pub struct SourceBlock<'a> {
    /// `source.version`.
    pub version: &'a str,
    /// The source's name.
    pub source: &'a str,
    /// "false" in the stream; "true" for rows of a snapshot, "incremental" when they are
    /// read once more.
    pub snapshot: &'a str,
    /// The MySQL schema.
    pub database: &'a str,
    /// The table.
    pub table: &'a str,
    /// When the source committed, in microseconds since 1970.
    pub committed_at_us: i64,
    /// Which server wrote it.
    pub server_id: u32,
    /// `uuid:number`; "" without GTIDs.
    pub gtid: &'a str,
    /// The binlog file.
    pub file: &'a str,
    /// Where the rows event starts in it.
    pub offset: u64,
    /// The connection that made the change; 0 when it is not known.
    pub thread: u32,
}

/// Everything before and after the `row` field of `source`, for one event.
#[derive(Debug, Default)]
pub struct EnvelopeParts {
    before_row: Vec<u8>,
    after_row: Vec<u8>,
    op_at: usize,
    /// Where `transaction` stands in `after_row`: one byte, null.
    transaction_at: usize,
    /// `None`: `transaction` is null.
    order: Option<TransactionOrder>,
    transaction_id: Vec<u8>,
}

/// How many records of the transaction have been written: of all tables, and of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionOrder {
    /// `total_order` of the last record.
    pub total: i64,
    /// `data_collection_order` of the last record.
    pub data_collection: i64,
}

/// The version that our records carry in `source.version`.
pub const SOURCE_VERSION: &str = env!("CARGO_PKG_VERSION");

impl EnvelopeParts {
    /// Fills the parts. `now_us` is the reader's clock, for the envelope's own time stamps.
    pub fn fill(&mut self, block: &SourceBlock<'_>, now_us: i64) {
        let out = &mut self.before_row;
        out.clear();
        write_bytes(out, block.version.as_bytes());
        write_bytes(out, b"mysql");
        write_bytes(out, block.source.as_bytes());
        write_long(out, block.committed_at_us.div_euclid(1000));
        out.push(0);
        write_bytes(out, block.snapshot.as_bytes());
        write_bytes(out, block.database.as_bytes());
        out.push(0);
        out.push(2);
        write_long(out, block.committed_at_us);
        out.push(2);
        write_long(out, block.committed_at_us.saturating_mul(1000));
        out.push(2);
        write_bytes(out, block.table.as_bytes());
        write_long(out, block.server_id.into());
        if block.gtid.is_empty() {
            out.push(0);
        } else {
            out.push(2);
            write_bytes(out, block.gtid.as_bytes());
        }
        write_bytes(out, block.file.as_bytes());
        write_long(out, block.offset as i64);

        let out = &mut self.after_row;
        out.clear();
        if block.thread == 0 {
            out.push(0);
        } else {
            out.push(2);
            write_long(out, block.thread.into());
        }
        // query and transaction are null.
        out.extend_from_slice(&[0, 0]);
        self.transaction_at = out.len() - 1;
        self.order = None;
        self.op_at = out.len() + 1;
        write_bytes(out, b"c");
        for now in [now_us.div_euclid(1000), now_us, now_us.saturating_mul(1000)] {
            out.push(2);
            write_long(out, now);
        }
    }

    /// Sets the operation of the envelopes that follow: `c`, `u`, `d`, `r` or `t`.
    pub fn set_op(&mut self, op: u8) {
        if let Some(byte) = self.after_row.get_mut(self.op_at) {
            *byte = op;
        }
    }

    /// Gives the envelopes that follow, until the next `fill`, a `transaction` that goes on counting after `order`.
    pub fn set_transaction(&mut self, id: &str, order: TransactionOrder) {
        self.transaction_id.clear();
        write_bytes(&mut self.transaction_id, id.as_bytes());
        self.order = Some(order);
    }

    /// How far `transaction` has counted; `None` when it is null.
    pub fn order(&self) -> Option<TransactionOrder> {
        self.order
    }

    /// Appends `source`, `transaction`, `op` and the time stamps.
    #[inline(always)]
    pub fn write(&mut self, out: &mut Vec<u8>, row: i64) {
        out.extend_from_slice(&self.before_row);
        write_long(out, row);
        if self.order.is_some() {
            self.write_after_row_with_transaction(out);
        } else {
            out.extend_from_slice(&self.after_row);
        }
    }

    fn write_after_row_with_transaction(&mut self, out: &mut Vec<u8>) {
        let order = self.order.get_or_insert_default();
        order.total += 1;
        order.data_collection += 1;
        let (before, after) = self.after_row.split_at(self.transaction_at);
        out.extend_from_slice(before);
        out.push(2);
        out.extend_from_slice(&self.transaction_id);
        write_long(out, order.total);
        write_long(out, order.data_collection);
        out.extend_from_slice(&after[1..]);
    }

    /// Appends a `source` alone.
    pub fn write_source(&self, out: &mut Vec<u8>, row: i64) {
        out.extend_from_slice(&self.before_row);
        write_long(out, row);
        // `transaction` is no part of it.
        out.extend_from_slice(&self.after_row[..self.transaction_at]);
    }

    /// About how many bytes `write` appends.
    pub fn length(&self) -> usize {
        let transaction = if self.order.is_some() { self.transaction_id.len() + 20 } else { 0 };
        self.before_row.len() + self.after_row.len() + transaction + 10
    }
}
