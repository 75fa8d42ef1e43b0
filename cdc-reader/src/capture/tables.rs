//! The tables that the stream has shown: plans by table id, topics, and which schemas are in the log.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use change_log::{
    Cleanup, EncodedBatch, EncodedRecord, LogWriter, TopicHandle, TopicSpec, registry::SchemaUse,
};
use schemas::{
    avro_schema::AvroOptions,
    table_id::{TableId, schemas_topic},
    table_schema::TableSchema,
    wire_format::{SchemaReference, read_framing},
};

use super::{
    live_tables::{Definition, LiveTables},
    schema_ids::{NoId, SchemaIds},
    table_history::TableHistory,
};
use crate::{
    binlog::{
        ddl::TableName,
        table_map::{self, TableMap},
    },
    encode::plan::{EncodePlan, SchemaText, TableSchemas},
    error::ReaderError,
    mysql::catalog,
    table_filter::TableFilter,
};

/// What a rows event needs of its table.
#[derive(Clone)]
pub(super) struct MappedTable {
    pub index: usize,
    /// `database.table`.
    pub name: Arc<str>,
    pub topic: TopicHandle,
    pub plan: Arc<EncodePlan>,
}

/// Where a table's records go, and by which schemas.
#[derive(Clone)]
pub(super) struct Target {
    pub name: Arc<str>,
    pub topic: TopicHandle,
    pub schemas: Arc<TableSchemas>,
}

/// See the module.
pub(super) struct Tables {
    source: String,
    options: AvroOptions,
    mariadb: bool,
    catalog: HashMap<String, Arc<TableSchema>>,
    maps: HashMap<u64, Mapped>,
    targets: Vec<Target>,
    by_name: HashMap<String, usize>,
    published: HashSet<u64>,
    /// With a schema registry.
    ids: Option<SchemaIds>,
    live: LiveTables,
    history: TableHistory,
    /// Tables that a DDL touched since their present definition was asked for.
    altered: HashSet<String>,
}

struct Mapped {
    /// The table map's body: the same bytes mean the same shape.
    body: Vec<u8>,
    table: Option<MappedTable>,
}

impl Tables {
    pub(super) fn new(
        source: String,
        options: AvroOptions,
        catalog: HashMap<String, Arc<TableSchema>>,
        mariadb: bool,
        live: LiveTables,
        history: TableHistory,
        ids: Option<SchemaIds>,
    ) -> Self {
        Self {
            source,
            options,
            mariadb,
            catalog,
            maps: HashMap::new(),
            targets: Vec::new(),
            by_name: HashMap::new(),
            published: HashSet::new(),
            ids,
            live,
            history,
            altered: HashSet::new(),
        }
    }

    /// How the schemas are made.
    pub(super) fn options(&self) -> AvroOptions {
        self.options
    }

    /// Whether the server is MariaDB.
    pub(super) fn is_mariadb(&self) -> bool {
        self.mariadb
    }

    /// A DDL touched the table: what is not in its table maps is asked for again before its next rows.
    pub(super) fn note_altered(&mut self, name: &str) {
        self.altered.insert(name.to_owned());
        let is_it = |mapped: &Mapped| mapped.table.as_ref().is_some_and(|t| *t.name == *name);
        self.maps.retain(|_, mapped| !is_it(mapped));
    }

    /// What the stream says of tables whose columns the server does not name.
    pub(super) fn history(&mut self) -> &mut TableHistory {
        &mut self.history
    }

    /// Puts what changed in it into its topic; to be called before each commit.
    pub(super) fn write_history(
        &mut self,
        writer: &mut dyn LogWriter,
        batch: &mut EncodedBatch,
    ) -> Result<(), ReaderError> {
        self.history.write(&self.source, writer, batch)
    }

    /// The server's present definition of a table.
    pub(super) fn ask(&mut self, id: &TableId) -> Definition {
        self.live.ask(id)
    }

    /// Whether the table is known to have no key.
    pub(super) fn is_without_key(&self, name: &str) -> bool {
        let known = self.by_name.get(name).map(|&index| &self.targets[index].schemas.schema);
        known.or_else(|| self.catalog.get(name)).is_some_and(|schema| schema.key.is_empty())
    }

    /// The known tables of a database.
    pub(super) fn names_in(&self, database: &str) -> Vec<TableName> {
        let streamed = self.targets.iter().map(|target| &target.schemas.schema.id);
        let listed = self.catalog.values().map(|schema| &schema.id);
        let mut tables: Vec<&TableId> =
            streamed.chain(listed).filter(|id| id.database == database).collect();
        tables.sort();
        tables.dedup();
        let name =
            |id: &TableId| TableName { database: id.database.clone(), table: id.table.clone() };
        tables.into_iter().map(name).collect()
    }

    /// Takes a table map. Answers the table and the sentence when its shape cannot be read.
    pub(super) fn map(
        &mut self,
        body: &[u8],
        filter: &TableFilter,
        writer: &mut dyn LogWriter,
        batch: &mut EncodedBatch,
    ) -> Result<Option<(String, String)>, ReaderError> {
        let (Ok(table_id), Ok((database, table))) =
            (table_map::table_id(body), table_map::table_name(body))
        else {
            return Err(ReaderError::BadEvent {
                place: "table map".into(),
                reason: "it ends too early".into(),
            });
        };
        if self.maps.get(&table_id).is_some_and(|mapped| mapped.body == body) {
            return Ok(None);
        }
        let (database, table) = (String::from_utf8_lossy(database), String::from_utf8_lossy(table));
        let mut mapped = Mapped { body: body.to_vec(), table: None };
        let mut unreadable = None;
        if filter.captures(&database, &table) {
            let name = format!("{database}.{table}");
            match self.plan(body, &name) {
                Ok(mut plan) => match self.name_schemas(&mut plan.schemas) {
                    Ok(()) => mapped.table = Some(self.add(&name, plan, writer, batch)?),
                    Err(NoId::Table(sentence)) => unreadable = Some((name, sentence)),
                    Err(NoId::Source(error)) => return Err(error),
                },
                Err(sentence) => unreadable = Some((name, sentence)),
            }
        }
        self.maps.insert(table_id, mapped);
        Ok(unreadable)
    }

    fn plan(&mut self, body: &[u8], name: &str) -> Result<EncodePlan, String> {
        let mut map = table_map::parse_from(body, self.mariadb)
            .map_err(|error| format!("its table map cannot be read: {error}"))?;
        let topic = TableId::new(&self.source, &map.database, &map.table).topic();
        if let Some(other) = self.targets.iter().find(|target| {
            target.name.as_ref() != name && target.schemas.schema.id.topic() == topic
        }) {
            return Err(catalog::topic_is_taken(&topic, &other.name));
        }
        let unnamed = map.columns.iter().any(|column| column.name.is_empty());
        if unnamed {
            let id = TableId::new(&self.source, &map.database, &map.table);
            self.history.complete(&mut map, name, &id, &mut self.live)?;
        }
        // By itself, without what may be known of an earlier definition.
        let shown = EncodePlan::new(&map, &self.source, &[], self.options)?.schemas.schema;
        self.learn(name, &shown);
        let plan = self.encode_plan(&map, name)?;
        if !unnamed {
            self.history.note_named(name, &plan.schemas.schema, &map);
        }
        Ok(plan)
    }

    /// With what is known besides the table map, if it has the same shape; a key that is known holds by its names.
    fn encode_plan(&self, map: &TableMap, name: &str) -> Result<EncodePlan, String> {
        let catalog = self.catalog.get(name).map(Arc::as_ref);
        let unique_key: Vec<String> = catalog
            .map(|schema| schema.key_columns().map(|column| column.name.clone()).collect())
            .unwrap_or_default();
        EncodePlan::enriched(map, &self.source, &unique_key, self.options, catalog)
    }

    /// Brings what table maps do not tell up to date for a shape that the stream shows. The server's present definition counts only if it has this very shape: the stream may be behind it. If it
    /// has not, what was known before goes on to hold.
    fn learn(&mut self, name: &str, shown: &TableSchema) {
        let is_shown = |schema: &TableSchema| shown.enriched(schema).is_some();
        let altered = self.altered.remove(name);
        let known = self.catalog.get(name).is_some_and(|known| is_shown(known));
        // A shape that the server has not got (any more) is asked for once, not at each of its table maps.
        let target = self.by_name.get(name).and_then(|&index| self.targets.get(index));
        let seen = target.is_some_and(|target| is_shown(&target.schemas.schema));
        if !altered && (known || seen) {
            return;
        }
        if let Definition::Table(live, _) = self.live.ask(&shown.id)
            && is_shown(&live.schema)
        {
            self.catalog.insert(name.to_owned(), live.schema);
        }
    }

    fn add(
        &mut self,
        name: &str,
        plan: EncodePlan,
        writer: &mut dyn LogWriter,
        batch: &mut EncodedBatch,
    ) -> Result<MappedTable, ReaderError> {
        let index = self.set_target(name, Arc::new(plan.schemas.clone()), writer, batch)?;
        let target = &self.targets[index];
        Ok(MappedTable {
            index,
            name: target.name.clone(),
            topic: target.topic,
            plan: Arc::new(plan),
        })
    }

    /// The table of a rows event; `None` when it is not captured.
    pub(super) fn mapped(&self, table_id: u64) -> Option<MappedTable> {
        self.maps.get(&table_id).and_then(|mapped| mapped.table.clone())
    }

    /// The plan to use for a table map's rows from now on.
    pub(super) fn replace_plan(&mut self, table_id: u64, plan: Arc<EncodePlan>) {
        if let Some(Mapped { table: Some(table), .. }) = self.maps.get_mut(&table_id) {
            table.plan = plan;
        }
    }

    /// What the server's catalog says of a table whose rows are to be read.
    pub(super) fn list(&mut self, schema: &Arc<TableSchema>) {
        self.catalog.insert(format!("{}.{}", schema.id.database, schema.id.table), schema.clone());
    }

    /// Table ids are not used across files.
    pub(super) fn forget_maps(&mut self) {
        self.maps.clear();
    }

    /// `database.table` of a table.
    pub(super) fn name(&self, index: usize) -> Arc<str> {
        self.targets.get(index).map_or_else(|| "".into(), |target| target.name.clone())
    }

    /// The table's newest schemas, from the stream or else from the catalog.
    pub(super) fn target(
        &mut self,
        name: &str,
        writer: &mut dyn LogWriter,
        batch: &mut EncodedBatch,
    ) -> Result<Option<Target>, ReaderError> {
        if let Some(&index) = self.by_name.get(name) {
            return Ok(self.targets.get(index).cloned());
        }
        match self.catalog.get(name).cloned() {
            Some(schema) => self.target_of_schema(&schema, writer, batch).map(Some),
            None => Ok(None),
        }
    }

    /// The target of rows that were read with this shape.
    pub(super) fn target_of_schema(
        &mut self,
        schema: &Arc<TableSchema>,
        writer: &mut dyn LogWriter,
        batch: &mut EncodedBatch,
    ) -> Result<Target, ReaderError> {
        let name = format!("{}.{}", schema.id.database, schema.id.table);
        if let Some(&index) = self.by_name.get(&name)
            && self.targets[index].schemas.schema == *schema
        {
            return Ok(self.targets[index].clone());
        }
        let mut schemas = TableSchemas::new(schema.clone(), self.options);
        self.name_schemas(&mut schemas).map_err(|error| match error {
            NoId::Table(reason) => ReaderError::SchemaRefused { table: name.clone(), reason },
            NoId::Source(error) => error,
        })?;
        let schemas = Arc::new(schemas);
        // The stream may know a newer shape: that one stays the table's.
        if let Some(&index) = self.by_name.get(&name) {
            self.publish(&schemas, writer, batch)?;
            return Ok(Target { schemas, ..self.targets[index].clone() });
        }
        let index = self.set_target(&name, schemas, writer, batch)?;
        Ok(self.targets[index].clone())
    }

    fn set_target(
        &mut self,
        name: &str,
        schemas: Arc<TableSchemas>,
        writer: &mut dyn LogWriter,
        batch: &mut EncodedBatch,
    ) -> Result<usize, ReaderError> {
        self.publish(&schemas, writer, batch)?;
        if let Some(&index) = self.by_name.get(name) {
            self.targets[index].schemas = schemas;
            return Ok(index);
        }
        let spec = TopicSpec { name: schemas.schema.id.topic(), cleanup: Cleanup::Delete };
        let topic = writer.topic(&spec)?;
        let index = self.targets.len();
        self.targets.push(Target { name: name.into(), topic, schemas });
        self.by_name.insert(name.to_owned(), index);
        Ok(index)
    }

    fn name_schemas(&mut self, schemas: &mut TableSchemas) -> Result<(), NoId> {
        self.ids.as_mut().map_or(Ok(()), |ids| ids.name(schemas))
    }

    /// Names a schema that belongs to no table.
    pub(super) fn name_text(
        &mut self,
        wanted: &SchemaUse<'_>,
        text: &mut SchemaText,
    ) -> Result<(), ReaderError> {
        let named = self.ids.as_mut().map_or(Ok(()), |ids| ids.name_text(wanted, text));
        named.map_err(|error| match error {
            NoId::Table(reason) => {
                ReaderError::SchemaRefused { table: wanted.topic.to_owned(), reason }
            }
            NoId::Source(error) => error,
        })
    }

    /// Puts schemas that are not there yet into the schemas topic, before the first record that needs them.
    fn publish(
        &mut self,
        schemas: &TableSchemas,
        writer: &mut dyn LogWriter,
        batch: &mut EncodedBatch,
    ) -> Result<(), ReaderError> {
        self.publish_texts(schemas.key.iter().chain([&schemas.value]), writer, batch)
    }

    /// The same for schemas that belong to no table.
    pub(super) fn publish_texts<'a>(
        &mut self,
        texts: impl IntoIterator<Item = &'a SchemaText>,
        writer: &mut dyn LogWriter,
        batch: &mut EncodedBatch,
    ) -> Result<(), ReaderError> {
        let texts: Vec<&SchemaText> =
            texts.into_iter().filter(|text| self.published.insert(text.fingerprint)).collect();
        if texts.is_empty() {
            return Ok(());
        }
        let spec = TopicSpec { name: schemas_topic(&self.source), cleanup: Cleanup::Compact };
        let topic = writer.topic(&spec)?;
        let mut push = |key: &[u8], text: &str| {
            let key_start = batch.bytes.len();
            batch.bytes.extend_from_slice(key);
            let value_start = batch.bytes.len();
            batch.bytes.extend_from_slice(text.as_bytes());
            batch.records.push(EncodedRecord {
                topic,
                key: Some(key_start..value_start),
                value: Some(value_start..batch.bytes.len()),
                headers: 0..0,
                timestamp_ms: 0,
            });
        };
        for text in texts {
            push(&text.fingerprint.to_le_bytes(), &text.text);
            if let Ok((SchemaReference::Registry(_), [])) = read_framing(&text.framing) {
                push(&text.framing, &text.text);
            }
        }
        Ok(())
    }
}
