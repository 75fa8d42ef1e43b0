//! `io.debezium.time.ZonedTimestamp` texts (`2018-06-20T13:37:03.123456Z`) as microseconds since 1970.

use schemas::row_digest::days_from_civil;

/// The instant; `None` when the text is none, or is finer than a microsecond.
pub fn parse(text: &[u8]) -> Option<i64> {
    let mut rest = text;
    let year = number(&mut rest, 4)?;
    let month = after(&mut rest, b'-', 2)?;
    let day = after(&mut rest, b'-', 2)?;
    let hour = after(&mut rest, b'T', 2)?;
    let minute = after(&mut rest, b':', 2)?;
    let second = if rest.first() == Some(&b':') { after(&mut rest, b':', 2)? } else { 0 };
    let fraction = if rest.first() == Some(&b'.') { fraction(&mut rest)? } else { 0 };
    let offset = offset_seconds(rest)?;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    let seconds =
        days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(seconds * 1_000_000 + fraction)
}

fn number(rest: &mut &[u8], digits: usize) -> Option<i64> {
    let (head, tail) = rest.split_at_checked(digits)?;
    *rest = tail;
    head.iter().try_fold(0i64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

fn after(rest: &mut &[u8], separator: u8, digits: usize) -> Option<i64> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    if *first == separator { number(rest, digits) } else { None }
}

fn fraction(rest: &mut &[u8]) -> Option<i64> {
    let digits = rest.get(1..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (head, tail) = rest.get(1..)?.split_at_checked(digits)?;
    *rest = tail;
    if head.is_empty() || head.iter().skip(6).any(|&byte| byte != b'0') {
        return None;
    }
    let micros = head.iter().chain(std::iter::repeat(&b'0')).take(6);
    Some(micros.fold(0, |value, byte| value * 10 + i64::from(byte - b'0')))
}

fn offset_seconds(mut rest: &[u8]) -> Option<i64> {
    if rest == b"Z" {
        return Some(0);
    }
    let sign = match rest.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    rest = &rest[1..];
    let hours = number(&mut rest, 2)?;
    let minutes = after(&mut rest, b':', 2)?;
    let seconds = if rest.is_empty() { 0 } else { after(&mut rest, b':', 2)? };
    rest.is_empty().then_some(sign * (hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59.999999Z", Some(-1)),
            ("2018-06-20T13:37:03Z", Some(1_529_501_823_000_000)),
            ("2018-06-20T13:37:03.1Z", Some(1_529_501_823_100_000)),
            ("2018-06-20T15:37:03.100000000+02:00", Some(1_529_501_823_100_000)),
            ("2018-06-20T13:37Z", Some(1_529_501_820_000_000)),
            ("2018-06-20T13:37:03.1234567Z", None),
            ("2018-06-20 13:37:03Z", None),
            ("2018-13-20T13:37:03Z", None),
            ("2018-06-20T13:37:03", None),
            ("2018-06-20T13:37:03ZZ", None),
            ("", None),
        ] {
            assert_eq!(parse(text.as_bytes()), micros, "{text}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn reads_back(micros in -60_000_000_000_000_000i64..250_000_000_000_000_000) {
            let text = schemas::row_digest::datetime_text(micros).replace(' ', "T") + "Z";
            prop_assert_eq!(parse(text.as_bytes()), Some(micros));
        }
    }
}
