//! The server's settings that capturing depends on: one function each, from the setting's value to the sentence that
//! says what is wrong and the SQL that cures it. Pure.

use super::flavor::Kind;

/// The settings that are asked for, in the order of a report.
pub const NAMES: [&str; 9] = [
    "log_bin",
    "server_id",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "gtid_mode",
    "binlog_transaction_compression",
    "binlog_expire_logs_seconds",
];

/// What a setting must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The value wanted, in words.
    pub expected: &'static str,
    /// What is wrong, with its cure; `None` when it is right.
    pub finding: Option<String>,
    /// Whether capturing is refused with this finding; otherwise it is a warning.
    pub required: bool,
}

/// Judges a setting by its value; `None` for a name that is not in [`NAMES`].
pub fn judge(name: &str, value: &str) -> Option<Requirement> {
    let required = |expected, finding| Requirement { expected, finding, required: true };
    Some(match name {
        "log_bin" => required("ON", ensure_log_bin(value)),
        "server_id" => required("not 0", ensure_server_id(value)),
        "binlog_format" => required("ROW", ensure_binlog_format(value)),
        "binlog_row_image" => Requirement {
            expected: "FULL",
            finding: ensure_binlog_row_image(value),
            required: false,
        },
        "binlog_row_metadata" => Requirement {
            expected: "FULL",
            finding: ensure_binlog_row_metadata(value),
            // MariaDB's NO_LOG leaves out even character sets, which no statement tells for certain.
            required: value.eq_ignore_ascii_case("NO_LOG"),
        },
        "binlog_row_value_options" => {
            Requirement { expected: "empty or PARTIAL_JSON", finding: None, required: false }
        }
        "gtid_mode" => {
            Requirement { expected: "ON", finding: recommend_gtid_mode(value), required: false }
        }
        "binlog_transaction_compression" => {
            Requirement { expected: "ON or OFF", finding: None, required: false }
        }
        "binlog_expire_logs_seconds" => Requirement {
            expected: "0 or at least 86400",
            finding: ensure_binlog_retention(value),
            required: false,
        },
        _ => return None,
    })
}

/// A finding in MariaDB's words: it has no SET PERSIST.
pub fn for_mariadb(finding: &str) -> String {
    if finding.contains("SET PERSIST") {
        format!(
            "{}; write it into the server's my.cnf too",
            finding.replace("SET PERSIST", "SET GLOBAL")
        )
    } else {
        finding.to_owned()
    }
}

/// The binlog must be written.
pub fn ensure_log_bin(value: &str) -> Option<String> {
    (!is_on(value)).then(|| {
        "log_bin is OFF, so there are no changes to read: start the server with log_bin = binlog (my.cnf) and without \
         skip_log_bin"
            .into()
    })
}

/// A server with id 0 refuses every replica.
pub fn ensure_server_id(value: &str) -> Option<String> {
    (value.trim() == "0").then(|| {
        "server_id is 0, so the server refuses to send its binlog: SET PERSIST server_id = 1".into()
    })
}

/// Statements cannot be applied; rows can.
pub fn ensure_binlog_format(value: &str) -> Option<String> {
    // The variable is gone from servers that know rows only.
    (!value.is_empty() && !value.eq_ignore_ascii_case("ROW")).then(|| {
        format!(
            "binlog_format is {value} and must be ROW: SET PERSIST binlog_format = 'ROW' (and reconnect applications)"
        )
    })
}

/// Rows that lack columns are completed in the lake, where that is possible.
pub fn ensure_binlog_row_image(value: &str) -> Option<String> {
    (!value.eq_ignore_ascii_case("FULL")).then(|| {
        format!(
            "binlog_row_image is {value}: the lake's state tables take absent columns from the row before, history tables \
             set updates without all columns apart, and other readers of the change log have to mind the header \
             binlake.after.absent; whole rows come with SET PERSIST binlog_row_image = 'FULL' (and reconnect applications)"
        )
    })
}

/// Where partial images do not tell the row at all; see [`crate::encode::partial_rows`].
pub fn ensure_row_is_known(kind: Kind, row_image: &str, value_options: &str) -> Option<String> {
    let cure = "SET PERSIST binlog_row_image = 'FULL' (and reconnect applications)";
    if kind == Kind::MariaDb && !row_image.eq_ignore_ascii_case("FULL") {
        return Some(format!(
            "binlog_row_image is {row_image}, with which MariaDB leaves out columns that a change does set: SET GLOBAL \
             binlog_row_image = 'FULL' (and reconnect applications)"
        ));
    }
    let differences = value_options.to_ascii_uppercase().contains("PARTIAL_JSON");
    (differences && row_image.eq_ignore_ascii_case("MINIMAL")).then(|| {
        format!(
            "binlog_row_value_options is {value_options} and binlog_row_image MINIMAL, so JSON comes as differences to values \
             that are not there: {cure}"
        )
    })
}

/// Names and members of columns should come with the change. Without them they are followed through every DDL.
pub fn ensure_binlog_row_metadata(value: &str) -> Option<String> {
    if value.eq_ignore_ascii_case("FULL") {
        return None;
    }
    let so = if value.eq_ignore_ascii_case("NO_LOG") {
        "the binlog tells neither names nor character sets nor signs of columns; it must be MINIMAL or FULL"
    } else {
        "columns are named by the definitions that are followed from DDL to DDL, and a table whose definition is not \
         certain stops; better"
    };
    Some(format!(
        "binlog_row_metadata is {value}, so {so}: SET PERSIST binlog_row_metadata = 'FULL'"
    ))
}

/// A position that holds on every server of a replication group needs GTIDs.
pub fn recommend_gtid_mode(value: &str) -> Option<String> {
    if value.eq_ignore_ascii_case("ON") {
        return None;
    }
    // Only one step is allowed at a time.
    let steps = ["OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"];
    let now = steps.iter().position(|step| step.eq_ignore_ascii_case(value)).unwrap_or(0);
    let cure: Vec<String> =
        steps[now + 1..].iter().map(|step| format!("SET PERSIST gtid_mode = {step}")).collect();
    Some(format!(
        "gtid_mode is {value}, so the binlog is read by file and offset, which mean something on this very server only: to \
         be able to change to a replica, after SET PERSIST enforce_gtid_consistency = ON, run one by one {}",
        cure.join("; ")
    ))
}

/// A reader that is away for longer than the binlog is kept has to read everything again.
pub fn ensure_binlog_retention(value: &str) -> Option<String> {
    let seconds: u64 = value.parse().ok()?;
    (1..86_400).contains(&seconds).then(|| {
        format!(
            "the binlog is kept for {seconds} s only; after a longer stop all tables are read again: SET PERSIST \
             binlog_expire_logs_seconds = 604800"
        )
    })
}

fn is_on(value: &str) -> bool {
    value.eq_ignore_ascii_case("ON") || value == "1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_settings_have_no_finding() {
        let right = ["ON", "7", "ROW", "FULL", "FULL", "", "ON", "ON", "2592000"];
        for (name, value) in NAMES.iter().zip(right) {
            let requirement = judge(name, value).expect("known");
            assert_eq!(requirement.finding, None, "{name}");
        }
    }

    #[test]
    fn images_that_do_not_tell_the_row_are_refused() {
        assert_eq!(ensure_row_is_known(Kind::MySql, "MINIMAL", ""), None);
        assert_eq!(ensure_row_is_known(Kind::MySql, "NOBLOB", "PARTIAL_JSON"), None);
        assert_eq!(ensure_row_is_known(Kind::MariaDb, "FULL", ""), None);
        assert!(ensure_row_is_known(Kind::MySql, "minimal", "PARTIAL_JSON").is_some());
        assert!(ensure_row_is_known(Kind::MariaDb, "NOBLOB", "").is_some());
    }

    #[test]
    fn wrong_settings_are_told_with_their_cure() {
        let wrong = [
            ("log_bin", "OFF", "log_bin = binlog", true),
            ("server_id", "0", "SET PERSIST server_id = 1", true),
            ("binlog_format", "MIXED", "SET PERSIST binlog_format = 'ROW'", true),
            ("binlog_row_image", "MINIMAL", "SET PERSIST binlog_row_image = 'FULL'", false),
            ("binlog_row_metadata", "MINIMAL", "SET PERSIST binlog_row_metadata = 'FULL'", false),
            ("gtid_mode", "ON_PERMISSIVE", "one by one SET PERSIST gtid_mode = ON", false),
            (
                "gtid_mode",
                "OFF",
                "OFF_PERMISSIVE; SET PERSIST gtid_mode = ON_PERMISSIVE; SET",
                false,
            ),
            ("binlog_expire_logs_seconds", "3600", "binlog_expire_logs_seconds = 604800", false),
        ];
        for (name, value, cure, required) in wrong {
            let requirement = judge(name, value).expect("known");
            let finding = requirement.finding.expect("a finding");
            assert!(finding.contains(cure), "{name}: {finding}");
            assert_eq!(requirement.required, required, "{name}");
        }
    }
}
