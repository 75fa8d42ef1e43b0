//! JSON texts in one form, to compare what different programs wrote.

/// JSON without spaces between its parts, and with each number in one form.
pub fn plain_json(json: &str) -> String {
    let mut plain = String::new();
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => 1 + closing_quote(&rest[1..]),
            '-' | '0'..='9' => {
                rest.find(|c: char| !"+-.eE0123456789".contains(c)).unwrap_or(rest.len())
            }
            other => other.len_utf8(),
        };
        let (part, after) = rest.split_at(length);
        match first {
            ' ' => {}
            '-' | '0'..='9' => plain.push_str(&number(part)),
            _ => plain.push_str(part),
        }
        rest = after;
    }
    plain
}

/// Whole numbers as they are, whether or not they were doubles; others as Rust writes them.
fn number(text: &str) -> String {
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return text.into();
    }
    let double: f64 = text.parse().expect("a number");
    // A whole double is written with an exponent by the one and without by the other; -0.0 and 0 are one number.
    if double.fract() == 0.0 && double.abs() < 1e19 {
        return format!("{:.0}", double + 0.0);
    }
    format!("{double:?}")
}

/// Bytes up to and with the quote that ends a string.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}
