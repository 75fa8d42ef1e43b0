//! Rows events that do not carry every column, or carry JSON as differences.
//!
//! What MySQL writes (seen on 9.7; an event has a bitmap of the columns for each image, so all its rows lack the same):
//!
//! | image | INSERT | UPDATE before | UPDATE after | DELETE |
//! |---|---|---|---|---|
//! | MINIMAL | the columns that the statement names, the auto-increment one, generated ones, and those whose default is an expression or the current time; others have their constant default | the primary key, else the first unique key without NULLs, else all | the columns that are assigned, generated ones that depend on them, `ON UPDATE` ones | as UPDATE before |
//! | NOBLOB | as FULL, but without BLOB and TEXT columns that the statement does not name | without BLOB and TEXT columns that are in no key; JSON is there | the same, but with those that are assigned | as UPDATE before |
//!
//! Without a primary key and a unique one without NULLs, the image before has all columns. REPLACE and INSERT ... ON
//! DUPLICATE KEY UPDATE that change a row write all columns after it. So:
//!
//! - an image after takes what it lacks from the image before; what both lack is told by the record's header
//!   [`AFTER_ABSENT`], what the image before lacks by [`BEFORE_ABSENT`]: bitmaps over the table's columns. In the Avro row
//!   such a column is null or, where its type is not optional, the type's empty value;
//! - an inserted row takes what it lacks from the columns' constant defaults. A column whose default is not known
//!   stops the table: nobody downstream could tell its value;
//! - the key is in one of the images, or the table stops;
//! - a changed key with absent columns is written as an insert that names the old key in the header [`OLD_KEY`], and
//!   only then the delete: whoever keeps the rows finds the missing values under the old key.
//!
//! `binlog_row_value_options = PARTIAL_JSON` writes PARTIAL_UPDATE_ROWS events. Their rows have, before the image after,
//! a number (bit 0: differences are used) and, if so, a bitmap over all JSON columns of the table. With MINIMAL the
//! document is not in the image before, so a difference has nothing to be applied to: the table stops.
//!
//! MariaDB's partial images are not enough to know the row (seen on 11.8): an update's lacks generated columns that
//! depend on changed ones, and a REPLACE that becomes an update lacks columns that it sets back to their defaults. MariaDB
//! writes version 1 of rows events, which MySQL 8 does not: there, a partial image stops the table.

use std::ops::Range;

use change_log::{EncodedBatch, EncodedRecord, headers};

use super::{
    charset::{Charset, write_text},
    envelope::EnvelopeParts,
    json_diff,
    key_header::{self, NEW_KEY},
    plan::EncodePlan,
    row::{RowScratch, encode_value, write_empty},
    rows_event::{Change, Key, RowsContext, RowsKind, key_change_headers, write_key},
};
use crate::binlog::{
    byte_reader::{Malformed, bit, take, take_le, take_length},
    table_map::WireType,
};

/// The header with the columns that `before` lacks.
pub const BEFORE_ABSENT: &str = "binlake.before.absent";
/// The header with the columns that `after` lacks.
pub const AFTER_ABSENT: &str = "binlake.after.absent";
/// The header with the key record under which the row was before; only beside [`AFTER_ABSENT`].
pub const OLD_KEY: &str = "binlake.old.key";
/// The header, without a value, of an image that lacks columns of a row that may not have been read yet: it comes with
/// the table's snapshot, and what it is needed for comes again after it.
pub const BEFORE_SNAPSHOT: &str = "binlake.before.snapshot";

/// What a rows event carries.
pub(super) struct Images<'a> {
    pub kind: RowsKind,
    /// The columns of the first image, and of the second if there are two.
    pub present: (&'a [u8], &'a [u8]),
    /// Rows tell which JSON columns are differences.
    pub json_differences: bool,
}

/// Encodes the rows of one event, one by one.
pub(super) struct PartialRows<'p, 'a> {
    plan: &'p EncodePlan,
    images: Images<'a>,
    /// The headers for records with `before`, with `after`, with both, and with neither, in the batch.
    headers: [Range<usize>; 4],
    snapshot_open: bool,
    before_absent: Vec<u8>,
    after_absent: Vec<u8>,
    /// Where each column of the image before is in the output, with its branch; empty when it is absent.
    before: Vec<Range<usize>>,
    /// The binary JSON of the image before.
    documents: Vec<Option<&'a [u8]>>,
}

impl<'p, 'a> PartialRows<'p, 'a> {
    /// Checks that the images can be told apart, and writes the headers that all rows share.
    pub(super) fn new(
        context: &RowsContext<'p>,
        images: Images<'a>,
        snapshot_open: bool,
        out: &mut Vec<u8>,
    ) -> Result<Self, Malformed> {
        let plan = context.plan;
        let columns = plan.columns.len();
        let (first, second) = images.present;
        let (before, after): (&[u8], &[u8]) = match images.kind {
            RowsKind::Write => (&[], first),
            RowsKind::Update => (first, second),
            RowsKind::Delete => (first, &[]),
        };
        let absent = |is_absent: &dyn Fn(usize) -> bool| {
            let mut bitmap = vec![0u8; columns.div_ceil(8)];
            for i in (0..columns).filter(|&i| is_absent(i)) {
                bitmap[i / 8] |= 1 << (i % 8);
            }
            bitmap
        };
        let none = Vec::new();
        let (before_absent, after_absent) = match images.kind {
            RowsKind::Write => {
                if (0..columns).any(|i| !bit(after, i) && plan.columns[i].default.is_none()) {
                    return Err(Malformed(
                        "an inserted row lacks a column whose default value is not known; set binlog_row_image = \
                         'FULL'",
                    ));
                }
                (none.clone(), none)
            }
            RowsKind::Update => {
                (absent(&|i| !bit(before, i)), absent(&|i| !bit(before, i) && !bit(after, i)))
            }
            RowsKind::Delete => (absent(&|i| !bit(before, i)), none),
        };
        let lacks_key = |image: &[u8]| {
            (0..columns).any(|i| plan.columns[i].key_part.is_some() && !bit(image, i))
        };
        if images.kind != RowsKind::Write && lacks_key(before) {
            return Err(Malformed("it lacks a column of the key; set binlog_row_image = 'FULL'"));
        }
        let mut rows = Self {
            plan,
            images,
            snapshot_open,
            headers: [0..0, 0..0, 0..0, 0..0],
            before_absent,
            after_absent,
            before: vec![0..0; columns],
            documents: vec![None; columns],
        };
        let shared = [(true, false), (false, true), (true, true), (false, false)];
        for (at, (has_before, has_after)) in shared.into_iter().enumerate() {
            let start = out.len();
            if has_before {
                rows.write_absent(BEFORE_ABSENT, &rows.before_absent, out)?;
            }
            if has_after {
                rows.write_absent(AFTER_ABSENT, &rows.after_absent, out)?;
            }
            out.extend_from_slice(context.headers);
            rows.headers[at] = start..out.len();
        }
        Ok(rows)
    }

    /// Encodes one row from the front of `body` into its records.
    pub(super) fn encode_row(
        &mut self,
        context: &RowsContext<'_>,
        body: &mut &'a [u8],
        parts: &mut EnvelopeParts,
        row: i64,
        scratch: &mut RowScratch,
        batch: &mut EncodedBatch,
    ) -> Result<Change, Malformed> {
        let plan = self.plan;
        let value_start = batch.bytes.len();
        batch.bytes.extend_from_slice(&plan.schemas.value.framing);
        let out = &mut batch.bytes;
        let mut moved = None;
        let headers = match self.images.kind {
            RowsKind::Write => {
                out.extend_from_slice(&[0, 2]);
                self.inserted(body, out, scratch)?;
                self.headers[1].clone()
            }
            RowsKind::Delete => {
                out.push(2);
                self.row_before(body, out, scratch)?;
                out.push(0);
                self.headers[0].clone()
            }
            RowsKind::Update => {
                out.push(2);
                self.row_before(body, out, scratch)?;
                scratch.old_key_parts.clone_from(&scratch.key_parts);
                let after_branch = out.len();
                out.push(2);
                self.row_after(body, out, scratch)?;
                let same = scratch
                    .old_key_parts
                    .iter()
                    .zip(&scratch.key_parts)
                    .all(|(old, new)| out[old.clone()] == out[new.clone()]);
                if !same {
                    moved = Some(after_branch);
                }
                self.headers[2].clone()
            }
        };
        let lacks_columns = self.after_absent.iter().any(|&byte| byte != 0);
        if let Some(after_branch) = moved {
            let place = MovedRow { value_start, after_branch, lacks_columns };
            return self.split_key_change(context, place, parts, row, scratch, batch);
        }
        parts.write(&mut batch.bytes, row);
        let value = value_start..batch.bytes.len();
        let key = write_key(plan, &scratch.key_parts, &mut batch.bytes);
        let record = record(context, &key, Some(value), headers);
        let tombstone = self.images.kind == RowsKind::Delete && key.is_some();
        batch.records.push(record.clone());
        if tombstone {
            let headers = self.headers[3].clone();
            batch.records.push(EncodedRecord { value: None, headers, ..record });
        }
        let lacks_columns = lacks_columns && self.images.kind == RowsKind::Update;
        Ok(Change { key: key.map(|key| key.datum), old_key: None, lacks_columns })
    }

    /// Delete and insert. With absent columns the insert comes first, see the module.
    fn split_key_change(
        &mut self,
        context: &RowsContext<'_>,
        place: MovedRow,
        parts: &mut EnvelopeParts,
        row: i64,
        scratch: &mut RowScratch,
        batch: &mut EncodedBatch,
    ) -> Result<Change, Malformed> {
        let plan = self.plan;
        let after = batch.bytes.split_off(place.after_branch);
        let row_start = place.after_branch + 1;
        parts.set_op(b'd');
        batch.bytes.push(0);
        parts.write(&mut batch.bytes, row);
        let deleted = place.value_start..batch.bytes.len();
        let old_key = write_key(plan, &scratch.old_key_parts, &mut batch.bytes);

        let inserted_start = batch.bytes.len();
        batch.bytes.extend_from_slice(&plan.schemas.value.framing);
        batch.bytes.extend_from_slice(&[0, 2]);
        let moved_to = batch.bytes.len();
        batch.bytes.extend_from_slice(&after[1..]);
        parts.set_op(b'c');
        parts.write(&mut batch.bytes, row);
        parts.set_op(b'u');
        let inserted = inserted_start..batch.bytes.len();
        for part in &mut scratch.key_parts {
            *part = part.start - row_start + moved_to..part.end - row_start + moved_to;
        }
        let key = write_key(plan, &scratch.key_parts, &mut batch.bytes);
        let out = &mut batch.bytes;
        let tombstone_headers = key_change_headers(context, NEW_KEY, &key, scratch, out)?;
        let start = out.len();
        self.write_absent(BEFORE_ABSENT, &self.before_absent, out)?;
        key_change_headers(context, NEW_KEY, &key, scratch, out)?;
        let deleted_headers = start..out.len();
        let start = out.len();
        if let (true, Some(old)) = (place.lacks_columns, &old_key) {
            let old = out[old.framed.clone()].to_vec();
            self.write_absent(AFTER_ABSENT, &self.after_absent, out)?;
            headers::write(out, OLD_KEY, &old).map_err(|_| Malformed("its key is too long"))?;
        }
        key_change_headers(context, key_header::OLD_KEY, &old_key, scratch, out)?;
        let insert = record(context, &key, Some(inserted), start..out.len());
        let delete = record(context, &old_key, Some(deleted), deleted_headers);
        let tombstone = old_key.is_some().then(|| EncodedRecord {
            value: None,
            headers: tombstone_headers,
            ..delete.clone()
        });
        if place.lacks_columns {
            batch.records.extend([insert, delete]);
            batch.records.extend(tombstone);
        } else {
            batch.records.push(delete);
            batch.records.extend(tombstone);
            batch.records.push(insert);
        }
        Ok(Change {
            key: key.map(|key| key.datum),
            old_key: old_key.map(|key| key.datum),
            lacks_columns: place.lacks_columns,
        })
    }

    fn write_absent(&self, name: &str, bitmap: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let too_long = |_| Malformed("it has too many columns for a header");
        if bitmap.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        headers::write(out, name, bitmap).map_err(too_long)?;
        if self.snapshot_open && name == AFTER_ABSENT {
            headers::write(out, BEFORE_SNAPSHOT, &[]).map_err(too_long)?;
        }
        Ok(())
    }

    fn inserted(
        &mut self,
        body: &mut &'a [u8],
        out: &mut Vec<u8>,
        scratch: &mut RowScratch,
    ) -> Result<(), Malformed> {
        let present = self.images.present.0;
        let nulls = self.null_bitmap(present, body)?;
        let mut index = 0;
        for (i, column) in self.plan.columns.iter().enumerate() {
            if !bit(present, i) {
                let start = out.len();
                out.extend_from_slice(column.default.as_deref().unwrap_or_default());
                set_key_part(column.key_part, start..out.len(), scratch);
                continue;
            }
            let is_null = bit(nulls, index);
            index += 1;
            self.write_present(i, is_null, body, out, scratch)?;
        }
        Ok(())
    }

    fn row_before(
        &mut self,
        body: &mut &'a [u8],
        out: &mut Vec<u8>,
        scratch: &mut RowScratch,
    ) -> Result<(), Malformed> {
        let present = self.images.present.0;
        let nulls = self.null_bitmap(present, body)?;
        let mut index = 0;
        for (i, column) in self.plan.columns.iter().enumerate() {
            let start = out.len();
            if !bit(present, i) {
                write_empty(column, out);
                self.before[i] = 0..0;
                self.documents[i] = None;
                continue;
            }
            let is_null = bit(nulls, index);
            index += 1;
            self.documents[i] = None;
            if let (WireType::Json { length_bytes }, false) = (column.wire, is_null) {
                let mut ahead = *body;
                let length = take_le(&mut ahead, usize::from(length_bytes))? as usize;
                self.documents[i] = Some(take(&mut ahead, length)?);
            }
            self.write_present(i, is_null, body, out, scratch)?;
            self.before[i] = start..out.len();
        }
        Ok(())
    }

    fn row_after(
        &mut self,
        body: &mut &'a [u8],
        out: &mut Vec<u8>,
        scratch: &mut RowScratch,
    ) -> Result<(), Malformed> {
        let present = self.images.present.1;
        let mut differences: &[u8] = &[];
        if self.images.json_differences && take_length(body)? & 1 == 1 {
            let is_json = |wire: &WireType| matches!(wire, WireType::Json { .. });
            let documents = self.plan.columns.iter().filter(|column| is_json(&column.wire)).count();
            differences = take(body, documents.div_ceil(8))?;
        }
        let nulls = self.null_bitmap(present, body)?;
        let (mut index, mut document) = (0, 0);
        for (i, column) in self.plan.columns.iter().enumerate() {
            // The bitmap of differences counts JSON columns that are absent too.
            let mut is_difference = false;
            if let WireType::Json { .. } = column.wire {
                is_difference = bit(differences, document);
                document += 1;
            }
            let start = out.len();
            if !bit(present, i) {
                let before = self.before[i].clone();
                if before.is_empty() {
                    write_empty(column, out);
                } else {
                    out.extend_from_within(before);
                    set_key_part(column.key_part, start..out.len(), scratch);
                }
                continue;
            }
            let is_null = bit(nulls, index);
            index += 1;
            if is_difference && !is_null {
                let length = take_le(body, 4)? as usize;
                self.apply(i, take(body, length)?, out, scratch)?;
            } else {
                self.write_present(i, is_null, body, out, scratch)?;
            }
        }
        Ok(())
    }

    /// The document of column `i` with these differences.
    fn apply(
        &self,
        i: usize,
        differences: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut RowScratch,
    ) -> Result<(), Malformed> {
        let Some(base) = self.documents[i] else {
            return Err(Malformed(
                "a JSON value is written as a difference to one that it does not carry; with \
                 binlog_row_value_options = 'PARTIAL_JSON' set binlog_row_image = 'FULL' or 'NOBLOB'",
            ));
        };
        if differences.is_empty() {
            out.extend_from_within(self.before[i].clone());
            return Ok(());
        }
        let column = &self.plan.columns[i];
        if column.optional {
            out.push(column.branch);
        }
        scratch.json.clear();
        json_diff::write_changed(base, differences, column.json_form, &mut scratch.json)?;
        scratch.invalid_texts += write_text(Charset::Utf8, &scratch.json, out);
        Ok(())
    }

    #[inline]
    fn write_present(
        &self,
        i: usize,
        is_null: bool,
        body: &mut &'a [u8],
        out: &mut Vec<u8>,
        scratch: &mut RowScratch,
    ) -> Result<(), Malformed> {
        let column = &self.plan.columns[i];
        if is_null && column.nullable {
            out.extend_from_slice(&column.null);
            return Ok(());
        }
        if column.optional {
            out.push(column.branch);
        }
        let start = out.len();
        encode_value(column, body, out, scratch)?;
        set_key_part(column.key_part, start..out.len(), scratch);
        Ok(())
    }

    /// It has a bit for each column that is present.
    fn null_bitmap(&self, present: &[u8], body: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
        let columns = self.plan.columns.len();
        let count = (0..columns).filter(|&i| bit(present, i)).count();
        take(body, count.div_ceil(8))
    }
}

struct MovedRow {
    value_start: usize,
    /// Where the branch index of `after` stands.
    after_branch: usize,
    lacks_columns: bool,
}

fn set_key_part(part: Option<usize>, place: Range<usize>, scratch: &mut RowScratch) {
    if let Some(range) = part.and_then(|part| scratch.key_parts.get_mut(part)) {
        *range = place;
    }
}

fn record(
    context: &RowsContext<'_>,
    key: &Option<Key>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
) -> EncodedRecord {
    EncodedRecord {
        topic: context.topic,
        key: key.as_ref().map(|key| key.framed.clone()),
        value,
        headers,
        timestamp_ms: context.timestamp_ms,
    }
}
