//! Commands to a running reader, by way of the change log: whoever can write into the log can send one, from any
//! machine, also while no reader runs. Each is a JSON record in the topic `<source>.__signals`, and is obeyed once: how
//! far the topic is read is a part of the reader's position.

mod follow;
mod select_filter;
mod send;

use schemas::position::{Position, TableSnapshot};
use serde::{Deserialize, Serialize};

pub(crate) use follow::follow;
pub use select_filter::ensure_filter;
pub use send::send;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// Names it, for answers and logs.
    pub id: String,
    /// Milliseconds since 1970 when it was sent.
    pub at_ms: i64,
    /// What to do.
    pub action: SignalAction,
    /// With which tables, as `database.table`.
    pub tables: Vec<String>,
    /// Of `add`: only rows for which this SQL expression is true.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Of `add`: empty the tables' copies first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalAction {
    /// Read the tables' rows (again).
    Add,
    /// Put their snapshots off.
    Pause,
    /// Go on with them.
    Resume,
    /// End them where they are.
    Stop,
}

impl Signal {
    /// For what came in its place and is none.
    fn nothing() -> Self {
        Self {
            id: String::new(),
            at_ms: 0,
            action: SignalAction::Add,
            tables: Vec::new(),
            filter: None,
            replace: false,
        }
    }
}

/// Why a table cannot be asked this, as things stand; `None` when it can.
pub fn refusal(position: &Position, signal: &Signal, table: &str) -> Option<String> {
    let progress = position.snapshots.get(table);
    let stopped = position.stopped.get(table);
    match signal.action {
        SignalAction::Add => refusal_to_add(progress, stopped, signal, table),
        SignalAction::Pause | SignalAction::Resume | SignalAction::Stop => {
            if let Some(sentence) = stopped {
                return Some(format!("{table} is stopped: {sentence}"));
            }
            let Some(progress) = progress.filter(|progress| !progress.left_out) else {
                return Some(format!("{table} is not a table that the reader knows"));
            };
            if progress.done {
                return Some(format!(
                    "the snapshot of {table} is not under way: it is {}",
                    progress.state()
                ));
            }
            match (signal.action, progress.paused) {
                (SignalAction::Pause, true) => Some(format!("{table} is paused already")),
                (SignalAction::Resume, false) => Some(format!("{table} is not paused")),
                _ => None,
            }
        }
    }
}

fn refusal_to_add(
    progress: Option<&TableSnapshot>,
    stopped: Option<&String>,
    signal: &Signal,
    table: &str,
) -> Option<String> {
    let filtered = signal.filter.is_some();
    if filtered && signal.replace {
        return Some("--replace empties the whole copy and goes with no --where".into());
    }
    if let Some(sentence) = stopped.filter(|_| filtered) {
        return Some(format!(
            "{table} is stopped ({sentence}); it has to be read whole, without --where"
        ));
    }
    let progress = progress.filter(|progress| stopped.is_none() && !progress.done)?;
    if progress.paused {
        return Some(format!("the snapshot of {table} is paused; `resume` goes on with it"));
    }
    (!signal.replace).then(|| {
        format!(
            "{table} is being read already, {} of about {} rows; `add --replace` begins again",
            progress.rows, progress.rows_estimated
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(action: SignalAction, filter: Option<&str>, replace: bool) -> Signal {
        Signal { action, filter: filter.map(str::to_owned), replace, ..Signal::nothing() }
    }

    #[test]
    fn signal_reads_back_and_refuses_what_it_does_not_know() {
        let text = r#"{"id":"a","at_ms":5,"action":"add","tables":["d.t"],"where":"x > 1"}"#;
        let read: Signal = serde_json::from_str(text).expect("reads");
        assert_eq!(read.filter.as_deref(), Some("x > 1"));
        assert_eq!(serde_json::to_string(&read).expect("serialises"), text);
        for text in ["{}", r#"{"id":"a","at_ms":5,"action":"ad","tables":[]}"#, "[]", ""] {
            assert!(serde_json::from_str::<Signal>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_the_state_is_refused_in_one_sentence() {
        let mut position = Position::default();
        let mut enter = |name: &str, progress| {
            position.snapshots.insert(format!("d.{name}"), progress);
        };
        let new = TableSnapshot::default;
        enter("reading", TableSnapshot { rows: 3, rows_estimated: 9, ..new() });
        enter("paused", TableSnapshot { paused: true, ..new() });
        enter("done", TableSnapshot { done: true, ..new() });
        position.stopped.insert("d.stopped".into(), "why".into());
        let add = signal(SignalAction::Add, None, false);
        let replace = signal(SignalAction::Add, None, true);
        let filtered = signal(SignalAction::Add, Some("a = 1"), false);
        let pause = signal(SignalAction::Pause, None, false);
        let resume = signal(SignalAction::Resume, None, false);
        let stop = signal(SignalAction::Stop, None, false);
        for (signal, table, words) in [
            (&add, "reading", "being read already, 3 of about 9 rows"),
            (&add, "paused", "is paused"),
            (&add, "done", ""),
            (&add, "new", ""),
            (&add, "stopped", ""),
            (&replace, "reading", ""),
            (&filtered, "done", ""),
            (&filtered, "stopped", "is stopped (why)"),
            (&pause, "reading", ""),
            (&pause, "paused", "paused already"),
            (&pause, "done", "not under way: it is done"),
            (&pause, "new", "not a table that the reader knows"),
            (&resume, "reading", "is not paused"),
            (&resume, "paused", ""),
            (&stop, "reading", ""),
            (&stop, "stopped", "is stopped: why"),
        ] {
            let found = refusal(&position, signal, &format!("d.{table}"));
            assert_eq!(found.is_none(), words.is_empty(), "{table}: {found:?}");
            assert!(found.unwrap_or_default().contains(words), "{table}");
        }
    }
}
