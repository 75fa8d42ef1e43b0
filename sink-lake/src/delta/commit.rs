//! The only place that makes progress durable: data files, removed files, new columns and the log's offsets in one
//! Delta commit.
//!
//! A commit is written against exactly the version that was loaded, without retries. Whatever was committed by others
//! meanwhile makes it fail, and the caller loads the table anew, so neither rows nor offsets are ever based on a state
//! that is gone. Commits that remove files are `MERGE`s that read the whole table: any other operation lets delta-rs
//! accept them after an OPTIMIZE by another program, which doubles rows.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::SchemaRef;
use deltalake::{
    DeltaTableError,
    kernel::{
        Action, Add, MetadataExt, Remove, Transaction,
        transaction::{CommitBuilder, CommitProperties, TransactionError},
    },
    protocol::{DeltaOperation, SaveMode},
};

use super::{
    data_file::{DataFile, StagedFile, now_ms},
    table::{DATE_COLUMN, Table, delta_error},
};
use crate::error::SinkError;

/// The table's snapshot grows with each commit; loading it anew now and then keeps it small.
const COMMITS_PER_LOAD: u32 = 200;

/// What to commit.
#[derive(Debug, Default)]
pub struct CommitRequest {
    /// New files.
    pub adds: Vec<StagedFile>,
    /// Files that are no longer part of the table.
    pub removes: Vec<DataFile>,
    /// The columns of the new files, when the table gets new columns.
    pub schema: Option<SchemaRef>,
    /// Per partition: the offset to go on from.
    pub next_offsets: BTreeMap<i32, i64>,
    /// Whether rows change, or only move to other files.
    pub content: Content,
}

/// What a commit means to those who follow the table's changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Rows change.
    #[default]
    Changed,
    /// The same rows in other files.
    Rearranged,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is part of the table.
    Committed,
    /// It is part of the table, and somebody else has committed after it: load the table anew.
    CommittedAndOvertaken,
    /// Somebody else committed first: load the table anew and stage again.
    Conflicted,
}

/// Commits. After an error nobody knows whether it is part of the table: load it anew and look at its offsets.
pub async fn commit(table: &mut Table, request: CommitRequest) -> Result<CommitOutcome, SinkError> {
    let operation = operation(&request);
    let transactions = request
        .next_offsets
        .iter()
        .map(|(partition, next_offset)| Transaction::new(table.app_id(*partition), *next_offset));
    let properties = CommitProperties::default()
        .with_application_transactions(transactions.collect())
        .with_max_retries(0)
        .with_create_checkpoint(true)
        .with_cleanup_expired_logs(Some(false));
    let actions = actions(table, request)?;
    let snapshot = table.delta.snapshot().map_err(|error| delta_error(&table.folder, error))?;
    let committed = CommitBuilder::from(properties)
        .with_actions(actions)
        .build(Some(snapshot), table.delta.log_store(), operation)
        .await;
    let finalized = match committed {
        Ok(finalized) => finalized,
        Err(error) if is_conflict(&error) => return Ok(CommitOutcome::Conflicted),
        Err(error) => return Err(delta_error(&table.folder, error)),
    };
    let version = finalized.version();
    table.delta.state = Some(finalized.snapshot());
    table.commits_since_load += 1;
    if table.commits_since_load >= COMMITS_PER_LOAD {
        table.load().await?;
        if table.version() != Some(version) {
            return Ok(CommitOutcome::CommittedAndOvertaken);
        }
    }
    Ok(CommitOutcome::Committed)
}

fn actions(table: &mut Table, request: CommitRequest) -> Result<Vec<Action>, SinkError> {
    let data_change = request.content == Content::Changed;
    let mut actions = Vec::with_capacity(request.adds.len() + request.removes.len() + 1);
    if let Some(schema) = &request.schema {
        let columns = table.delta_schema(schema)?;
        let snapshot = table.delta.snapshot().map_err(|error| delta_error(&table.folder, error))?;
        let metadata = snapshot.metadata().clone().with_schema(&columns);
        actions
            .push(Action::Metadata(metadata.map_err(|error| delta_error(&table.folder, error))?));
    }
    let removed_at = now_ms();
    actions.extend(request.removes.into_iter().map(|file| {
        Action::Remove(Remove {
            partition_values: Some(partition_values(file.date)),
            path: file.path,
            data_change,
            deletion_timestamp: Some(removed_at),
            extended_file_metadata: Some(true),
            size: i64::try_from(file.size).ok(),
            ..Remove::default()
        })
    }));
    actions.extend(request.adds.into_iter().map(|staged| {
        Action::Add(Add {
            partition_values: partition_values(staged.file.date),
            path: staged.file.path,
            size: i64::try_from(staged.file.size).unwrap_or(i64::MAX),
            modification_time: staged.modified_ms,
            data_change,
            stats: Some(staged.statistics),
            ..Add::default()
        })
    }));
    Ok(actions)
}

fn partition_values(date: Option<String>) -> HashMap<String, Option<String>> {
    date.into_iter().map(|date| (DATE_COLUMN.to_owned(), Some(date))).collect()
}

fn operation(request: &CommitRequest) -> DeltaOperation {
    if request.removes.is_empty() {
        return DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: None,
            predicate: None,
        };
    }
    DeltaOperation::Merge {
        predicate: None,
        merge_predicate: Some("key".to_owned()),
        matched_predicates: Vec::new(),
        not_matched_predicates: Vec::new(),
        not_matched_by_source_predicates: Vec::new(),
    }
}

fn is_conflict(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::CommitConflict(_)
                    | TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)
            }
    )
}
