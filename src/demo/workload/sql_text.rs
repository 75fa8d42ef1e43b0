//! Values and statements as SQL text.

use std::fmt::{Display, Write};

/// Microseconds of one second.
pub const SECOND: i64 = 1_000_000;

/// Collects the rows of one multi-row INSERT.
pub struct Insert {
    text: String,
    rows: usize,
}

impl Insert {
    /// An INSERT into `table` with these columns, still without rows.
    pub fn new(table: &str, columns: &str) -> Insert {
        Insert { text: format!("INSERT INTO {table} ({columns}) VALUES"), rows: 0 }
    }

    /// Adds one row, given as the text between the parentheses.
    pub fn row(&mut self, values: impl Display) {
        let separator = if self.rows == 0 { " " } else { "," };
        // Writing into a String cannot fail.
        let _ = write!(self.text, "{separator}({values})");
        self.rows += 1;
    }

    /// Appends the statement, unless it has no rows.
    pub fn append_to(self, statements: &mut Vec<String>) {
        if self.rows > 0 {
            statements.push(self.text);
        }
    }
}

/// `'text'`, escaped.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// `'text'` or `NULL`.
pub fn quoted_or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), quoted)
}

/// `1,2,3`; never empty, because `IN ()` is no SQL: 0 is the id of no row.
pub fn id_list(ids: impl IntoIterator<Item = u64>) -> String {
    let mut text = String::new();
    for id in ids {
        let separator = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{separator}{id}");
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

/// An amount in hundredths as MySQL writes it: `12.05`.
pub fn money(hundredths: u64) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// `'2026-01-02 03:04:05.678901'` of microseconds since 1970.
pub fn date_time(micros: i64) -> String {
    format!("'{}'", schemas::row_digest::datetime_text(micros))
}

/// `'2026-01-02'` of days since 1970.
pub fn date(days: i64) -> String {
    format!("'{}'", schemas::row_digest::date_text(days))
}
