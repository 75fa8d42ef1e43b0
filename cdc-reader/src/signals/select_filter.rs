//! Whether a text may stand in the WHERE of a table's SELECTs. Only the server parses SQL: it is asked to prepare the
//! text, which it does for one statement only, in two places.
//!
//! `WHERE (text)` shows that it is a condition on the table's columns. `CASE WHEN text THEN` shows that it is one
//! expression of its own: a text that closes the bracket and goes on behind it has no bracket to close there, so it
//! cannot change the meaning of the predicates that a chunk's SELECT adds.

use mysql_async::{Conn, prelude::Queryable};
use schemas::table_id::TableId;

use crate::{
    error::ReaderError,
    mysql::connect::{classify, driver_text, server_code},
    snapshot::chunk_plan::quoted_table,
};

/// Refuses a text that is no condition on the table, in the server's words.
pub async fn ensure_filter(
    connection: &mut Conn,
    place: &str,
    table: &TableId,
    filter: &str,
) -> Result<(), ReaderError> {
    let quoted = quoted_table(table);
    for sql in [
        format!("SELECT 1 FROM {quoted} AS t WHERE (\n{filter}\n)"),
        format!("SELECT CASE WHEN\n{filter}\nTHEN 1 END FROM {quoted} AS t"),
    ] {
        match connection.prep(sql.as_str()).await {
            Ok(statement) if statement.num_params() > 0 => {
                let _ = connection.close(statement).await;
                return Err(refused(table, place, "it has a parameter (?) in it"));
            }
            Ok(statement) => {
                connection.close(statement).await.map_err(|error| classify(error, place))?;
            }
            Err(error) if server_code(&error).is_some() => {
                return Err(refused(table, place, &driver_text(&error)));
            }
            Err(error) => return Err(classify(error, place)),
        }
    }
    Ok(())
}

fn refused(table: &TableId, place: &str, words: &str) -> ReaderError {
    let (database, table) = (&table.database, &table.table);
    ReaderError::Query {
        place: place.to_owned(),
        reason: format!("the condition cannot be used on {database}.{table}: {words}"),
    }
}
