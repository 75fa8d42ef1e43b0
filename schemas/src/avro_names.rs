//! Names that Avro allows, made from those that MySQL allows, as Debezium makes them with its name adjustment modes set
//! to `avro` (`SchemaNameAdjuster.AVRO`, `AVRO_FIELD_NAMER`). Avro: letters, digits and underscores of ASCII, no digit
//! first; a reader in Java, and so a schema registry, refuses anything else.

use std::borrow::Cow;

/// A record's name with its namespace: its dots stay.
pub fn full_name(name: &str) -> Cow<'_, str> {
    adjusted(name, |c| c == '.')
}

/// A field's name.
pub fn field_name(name: &str) -> Cow<'_, str> {
    adjusted(name, |_| false)
}

/// Each other character becomes an underscore; a digit at the front gets one before it.
fn adjusted(name: &str, also: impl Fn(char) -> bool) -> Cow<'_, str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let digit_first = name.starts_with(|c: char| c.is_ascii_digit());
    let dot_first = name.starts_with('.');
    if !digit_first && !dot_first && name.chars().all(|c| legal(c) || also(c)) {
        return Cow::Borrowed(name);
    }
    let mut result = String::with_capacity(name.len() + 1);
    if digit_first {
        result.push('_');
    }
    for (i, c) in name.chars().enumerate() {
        result.push(if legal(c) || i > 0 && also(c) { c } else { '_' });
    }
    Cow::Owned(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_debezium_makes_of_them() {
        let full = [
            ("udon.shop.orders", "udon.shop.orders"),
            ("my-server.od-d_b.t-1", "my_server.od_d_b.t_1"),
            ("1st.2nd.3rd", "_1st.2nd.3rd"),
            (".a", "_a"),
            ("", ""),
        ];
        for (name, expected) in full {
            assert_eq!(full_name(name), expected);
        }
        let fields = [
            ("id", "id"),
            ("Id_1", "Id_1"),
            ("weird-name", "weird_name"),
            ("1st", "_1st"),
            ("with space", "with_space"),
            ("열", "_"),
            ("a.b", "a_b"),
            ("$c", "_c"),
        ];
        for (name, expected) in fields {
            assert_eq!(field_name(name), expected);
        }
    }
}
