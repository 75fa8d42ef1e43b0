//! A rows event to records: envelope values, keys, tombstones; a changed key becomes a delete and an insert.

use std::ops::Range;

use change_log::{EncodedBatch, EncodedRecord, TopicHandle, headers};

use super::{
    envelope::EnvelopeParts,
    key_header::{NEW_KEY, OLD_KEY},
    partial_rows::{Images, PartialRows},
    plan::{ColumnPlan, EncodePlan},
    row::{RowScratch, encode_row},
};
use crate::binlog::{
    byte_reader::{Malformed, bit, take, take_le, take_length},
    event::kind,
};

/// What encoding a rows event needs besides its bytes.
#[derive(Debug)]
pub struct RowsContext<'a> {
    /// The table's plan.
    pub plan: &'a EncodePlan,
    /// The table's topic.
    pub topic: TopicHandle,
    /// When the source committed, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// How many rows at the front are in the log already and are passed over.
    pub skip_rows: u64,
    /// The headers that every record carries, encoded; empty for none.
    pub headers: &'a [u8],
}

/// Whether the event inserts rows without columns whose defaults the plan does not have.
pub fn lacks_defaults(plan: &EncodePlan, event_kind: u8, body: &[u8]) -> bool {
    let present = || {
        let mut rest = body.get(8..)?;
        let extra = take_le(&mut rest, 2).ok()? as usize;
        take(&mut rest, extra.checked_sub(2)?).ok()?;
        take_length(&mut rest).ok()?;
        take(&mut rest, plan.columns.len().div_ceil(8)).ok()
    };
    event_kind == kind::WRITE_ROWS
        && present().is_some_and(|present| {
            let lacks =
                |(i, column): (usize, &ColumnPlan)| !bit(present, i) && column.default.is_none();
            plan.columns.iter().enumerate().any(lacks)
        })
}

/// What a rows event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowsKind {
    Write,
    Update,
    Delete,
}

/// Appends the records of a rows event to `batch`; answers how many rows it has. On an error the batch is as before.
/// `parts` is filled for this event; `on_key` sees each key datum (without framing) that the event touches.
pub fn encode_rows_event(
    context: &RowsContext<'_>,
    event_kind: u8,
    body: &[u8],
    parts: &mut EnvelopeParts,
    scratch: &mut RowScratch,
    batch: &mut EncodedBatch,
    mut on_key: impl FnMut(&[u8]),
) -> Result<u64, Malformed> {
    let (bytes_before, records_before) = (batch.bytes.len(), batch.records.len());
    let result = rows(context, event_kind, body, parts, scratch, batch, &mut on_key);
    if result.is_err() {
        batch.bytes.truncate(bytes_before);
        batch.records.truncate(records_before);
        scratch.lacking.clear();
    }
    result
}

fn rows(
    context: &RowsContext<'_>,
    event_kind: u8,
    mut body: &[u8],
    parts: &mut EnvelopeParts,
    scratch: &mut RowScratch,
    batch: &mut EncodedBatch,
    on_key: &mut dyn FnMut(&[u8]),
) -> Result<u64, Malformed> {
    let columns = context.plan.columns.len();
    let rows_kind = match event_kind {
        kind::WRITE_ROWS | kind::WRITE_ROWS_V1 => RowsKind::Write,
        kind::UPDATE_ROWS | kind::UPDATE_ROWS_V1 | kind::PARTIAL_UPDATE_ROWS => RowsKind::Update,
        _ => RowsKind::Delete,
    };
    take(&mut body, 8)?;
    if event_kind >= kind::WRITE_ROWS {
        // The length of the extra data counts its own two bytes.
        let extra = take_le(&mut body, 2)? as usize;
        take(&mut body, extra.checked_sub(2).ok_or(Malformed("its extra data has a bad length"))?)?;
    }
    if take_length(&mut body)? != columns {
        return Err(Malformed("it has another number of columns than its table map"));
    }
    let first = take(&mut body, columns.div_ceil(8))?;
    let second = match rows_kind {
        RowsKind::Update => take(&mut body, columns.div_ceil(8))?,
        _ => first,
    };
    let whole = |present: &[u8]| (0..columns).all(|i| bit(present, i));
    let json_differences = event_kind == kind::PARTIAL_UPDATE_ROWS;
    let mut partial = if json_differences || !whole(first) || !whole(second) {
        if event_kind < kind::WRITE_ROWS {
            return Err(Malformed(
                "it does not carry every column; set binlog_row_image = 'FULL' in every session",
            ));
        }
        let images = Images { kind: rows_kind, present: (first, second), json_differences };
        Some(PartialRows::new(context, images, scratch.snapshot_open, &mut batch.bytes)?)
    } else {
        None
    };
    scratch.key_parts.resize(context.plan.schemas.schema.key.len(), 0..0);
    parts.set_op(match rows_kind {
        RowsKind::Write => b'c',
        RowsKind::Update => b'u',
        RowsKind::Delete => b'd',
    });
    // Written once: all records of the event point at them.
    scratch.headers = push_headers(&mut batch.bytes, context.headers);
    let mut row = 0;
    while !body.is_empty() {
        let mark = (batch.bytes.len(), batch.records.len());
        // One reservation per row: text may grow threefold when it is transcoded, then the vector grows by itself.
        batch.bytes.reserve(body.len().min(1 << 16) + parts.length() + 64);
        let left = body.len();
        let change = match &mut partial {
            None => encode_change(context, rows_kind, &mut body, parts, row, scratch, batch)?,
            Some(partial) => partial.encode_row(context, &mut body, parts, row, scratch, batch)?,
        };
        if body.len() == left {
            // A table without columns: such rows would never end.
            return Err(Malformed("its rows have no bytes"));
        }
        if change.lacks_columns {
            // It does not stand for the row: whoever remembers keys as written must not remember this one.
            if scratch.snapshot_open {
                scratch.lacking_moved |= change.old_key.is_some();
                scratch.lacking.push(mark.1);
            }
        } else {
            for key in [change.key, change.old_key].into_iter().flatten() {
                on_key(&batch.bytes[key]);
            }
        }
        if (row as u64) < context.skip_rows {
            batch.bytes.truncate(mark.0);
            batch.records.truncate(mark.1);
            scratch.lacking.pop_if(|record| *record >= mark.1);
        }
        row += 1;
    }
    Ok(row as u64)
}

fn push_headers(bytes: &mut Vec<u8>, headers: &[u8]) -> Range<usize> {
    if headers.is_empty() {
        return 0..0;
    }
    let start = bytes.len();
    bytes.extend_from_slice(headers);
    start..bytes.len()
}

/// Where the key data of a change lie in the batch.
pub(super) struct Change {
    pub key: Option<Range<usize>>,
    pub old_key: Option<Range<usize>>,
    /// The change is not the whole row: the record lacks columns.
    pub lacks_columns: bool,
}

fn encode_change(
    context: &RowsContext<'_>,
    rows_kind: RowsKind,
    body: &mut &[u8],
    parts: &mut EnvelopeParts,
    row: i64,
    scratch: &mut RowScratch,
    batch: &mut EncodedBatch,
) -> Result<Change, Malformed> {
    let plan = context.plan;
    let value_start = batch.bytes.len();
    batch.bytes.extend_from_slice(&plan.schemas.value.framing);
    match rows_kind {
        RowsKind::Write => {
            batch.bytes.extend_from_slice(&[0, 2]);
            encode_row(plan, body, &mut batch.bytes, scratch)?;
        }
        RowsKind::Delete => {
            batch.bytes.push(2);
            encode_row(plan, body, &mut batch.bytes, scratch)?;
            batch.bytes.push(0);
        }
        RowsKind::Update => {
            batch.bytes.push(2);
            encode_row(plan, body, &mut batch.bytes, scratch)?;
            let after_branch = batch.bytes.len();
            std::mem::swap(&mut scratch.old_key_parts, &mut scratch.key_parts);
            scratch.key_parts.resize(scratch.old_key_parts.len(), 0..0);
            batch.bytes.push(2);
            encode_row(plan, body, &mut batch.bytes, scratch)?;
            let bytes = &batch.bytes;
            let same = scratch
                .old_key_parts
                .iter()
                .zip(&scratch.key_parts)
                .all(|(old, new)| bytes[old.clone()] == bytes[new.clone()]);
            if !same {
                let moved = KeyChange { value_start, after_branch };
                return split_key_change(context, moved, parts, row, scratch, batch);
            }
        }
    }
    parts.write(&mut batch.bytes, row);
    let value = value_start..batch.bytes.len();
    let key = write_key(plan, &scratch.key_parts, &mut batch.bytes);
    let record = EncodedRecord {
        topic: context.topic,
        key: key.as_ref().map(|key| key.framed.clone()),
        value: Some(value),
        headers: scratch.headers.clone(),
        timestamp_ms: context.timestamp_ms,
    };
    let tombstone = rows_kind == RowsKind::Delete && record.key.is_some();
    if tombstone {
        batch.records.push(record.clone());
        batch.records.push(EncodedRecord { value: None, ..record });
    } else {
        batch.records.push(record);
    }
    Ok(Change { key: key.map(|key| key.datum), old_key: None, lacks_columns: false })
}

struct KeyChange {
    value_start: usize,
    /// Where the branch index of `after` stands.
    after_branch: usize,
}

/// An update that changes the key: delete with tombstone under the old key, insert under the new one.
#[cold]
fn split_key_change(
    context: &RowsContext<'_>,
    change: KeyChange,
    parts: &mut EnvelopeParts,
    row: i64,
    scratch: &mut RowScratch,
    batch: &mut EncodedBatch,
) -> Result<Change, Malformed> {
    let plan = context.plan;
    let row_start = change.after_branch + 1;
    scratch.moved.clear();
    scratch.moved.extend_from_slice(&batch.bytes[row_start..]);
    batch.bytes.truncate(change.after_branch);
    parts.set_op(b'd');
    batch.bytes.push(0);
    parts.write(&mut batch.bytes, row);
    let deleted = change.value_start..batch.bytes.len();
    let old_key = write_key(plan, &scratch.old_key_parts, &mut batch.bytes);

    let inserted_start = batch.bytes.len();
    batch.bytes.extend_from_slice(&plan.schemas.value.framing);
    batch.bytes.extend_from_slice(&[0, 2]);
    let moved_to = batch.bytes.len();
    batch.bytes.extend_from_slice(&scratch.moved);
    parts.set_op(b'c');
    parts.write(&mut batch.bytes, row);
    let inserted = inserted_start..batch.bytes.len();
    for part in &mut scratch.key_parts {
        *part = part.start - row_start + moved_to..part.end - row_start + moved_to;
    }
    let key = write_key(plan, &scratch.key_parts, &mut batch.bytes);
    parts.set_op(b'u');

    let old_headers = key_change_headers(context, NEW_KEY, &key, scratch, &mut batch.bytes)?;
    let new_headers = key_change_headers(context, OLD_KEY, &old_key, scratch, &mut batch.bytes)?;
    let record = |key: &Option<Key>, value, headers: &Range<usize>| EncodedRecord {
        topic: context.topic,
        key: key.as_ref().map(|key| key.framed.clone()),
        value,
        headers: headers.clone(),
        timestamp_ms: context.timestamp_ms,
    };
    batch.records.push(record(&old_key, Some(deleted), &old_headers));
    if old_key.is_some() {
        batch.records.push(record(&old_key, None, &old_headers));
    }
    batch.records.push(record(&key, Some(inserted), &new_headers));
    let old_key = old_key.map(|key| key.datum);
    Ok(Change { key: key.map(|key| key.datum), old_key, lacks_columns: false })
}

/// Each side of a changed key tells the other one, before the headers that every record carries.
pub(super) fn key_change_headers(
    context: &RowsContext<'_>,
    name: &str,
    other: &Option<Key>,
    scratch: &mut RowScratch,
    out: &mut Vec<u8>,
) -> Result<Range<usize>, Malformed> {
    let start = out.len();
    if let Some(other) = other {
        scratch.key_text.clear();
        context.plan.key_text.write(&out[other.datum.clone()], &mut scratch.key_text)?;
        headers::write(out, name, &scratch.key_text)
            .map_err(|_| Malformed("its key is too long"))?;
    }
    out.extend_from_slice(context.headers);
    Ok(start..out.len())
}

pub(super) struct Key {
    pub framed: Range<usize>,
    pub datum: Range<usize>,
}

/// Appends the key record from the key columns' bytes in the row: they are not optional, so the bytes are the same.
#[inline(always)]
pub(super) fn write_key(
    plan: &EncodePlan,
    key_parts: &[Range<usize>],
    out: &mut Vec<u8>,
) -> Option<Key> {
    let schema = plan.schemas.key.as_ref()?;
    let start = out.len();
    out.extend_from_slice(&schema.framing);
    let datum = out.len();
    for part in key_parts {
        out.extend_from_within(part.clone());
    }
    Some(Key { framed: start..out.len(), datum: datum..out.len() })
}
