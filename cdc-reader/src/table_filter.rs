//! Which tables are captured: a list of patterns, of which the last one that matches decides.

use thiserror::Error;

/// A pattern that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "table pattern '{pattern}' is not of the form database.table (with * and ?, and ! in front to take out)"
)]
pub struct InvalidPattern {
    /// The pattern.
    pub pattern: String,
}

/// The patterns of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFilter {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    takes_out: bool,
    pattern: Vec<char>,
}

/// The server's own schemas; they are never captured.
pub const SYSTEM_SCHEMAS: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

impl TableFilter {
    /// Reads the patterns.
    pub fn new(patterns: &[String]) -> Result<Self, InvalidPattern> {
        let rules = patterns.iter().map(|pattern| parse(pattern)).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// Captures nothing.
    pub fn none() -> Self {
        Self { rules: Vec::new() }
    }

    /// Whether the table is captured.
    pub fn captures(&self, database: &str, table: &str) -> bool {
        if SYSTEM_SCHEMAS.iter().any(|system| system.eq_ignore_ascii_case(database)) {
            return false;
        }
        let name: Vec<char> = format!("{database}.{table}").chars().collect();
        let decides = self.rules.iter().rev().find(|rule| matches(&rule.pattern, &name));
        decides.is_some_and(|rule| !rule.takes_out)
    }
}

fn parse(text: &str) -> Result<Rule, InvalidPattern> {
    let (takes_out, pattern) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, text.trim()),
    };
    let invalid = || InvalidPattern { pattern: text.into() };
    let (database, table) = pattern.split_once('.').ok_or_else(invalid)?;
    if database.is_empty() || table.is_empty() {
        return Err(invalid());
    }
    Ok(Rule { takes_out, pattern: pattern.chars().collect() })
}

/// Glob matching without recursion: on a mismatch the last `*` takes one character more.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((after_star, taken)) => {
                    retry = Some((after_star, taken + 1));
                    p = after_star;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(patterns: &[&str]) -> TableFilter {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).into()).collect();
        TableFilter::new(&patterns).expect("valid patterns")
    }

    #[test]
    fn last_match_decides() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["*.*"], "market.orders", true),
            (&["market.*", "!market.tmp_*"], "market.orders", true),
            (&["market.*", "!market.tmp_*"], "market.tmp_1", false),
            (&["market.*", "!market.tmp_*", "market.tmp_keep"], "market.tmp_keep", true),
            (&["!market.tmp_*", "market.*"], "market.tmp_1", true),
            (&["market.order?"], "market.orders", true),
            (&["market.order?"], "market.order", false),
            (&["market.orders"], "market.Orders", false),
            (&["*.a*b*c"], "d.aXbYbZc", true),
            (&["*.a*b*c"], "d.aXbYbZ", false),
            (&["*.größe_?"], "d.größe_ß", true),
            (&[], "market.orders", false),
        ];
        for (patterns, table, captured) in cases {
            let (database, name) = table.split_once('.').expect("has a dot");
            assert_eq!(
                filter(patterns).captures(database, name),
                *captured,
                "{patterns:?} {table}"
            );
        }
    }

    #[test]
    fn system_schemas_are_never_captured() {
        let filter = filter(&["*.*", "mysql.user"]);
        for system in ["mysql", "sys", "performance_schema", "INFORMATION_SCHEMA"] {
            assert!(!filter.captures(system, "user"));
        }
    }

    #[test]
    fn pattern_without_database_is_refused() {
        for text in ["orders", "!orders", "", ".orders", "market."] {
            assert!(TableFilter::new(&[text.to_string()]).is_err(), "{text}");
        }
    }
}
