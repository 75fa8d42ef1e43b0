//! JSON differences (`binlog_row_value_options = PARTIAL_JSON`) applied to the binary JSON of the before image, giving
//! the text that the whole document would have given.
//!
//! A changed document is a 4-byte length and so many bytes of differences (`sql/json_diff.cc`): an operation (0 replace,
//! 1 insert, 2 remove), a path and, unless it removes, a value in binary JSON, each with its length. They are applied in
//! order. The server writes paths without wildcards; a difference that does not fit the document is an error, as it
//! is for a replica.

use std::borrow::Cow;

use schemas::json_text::JsonForm;

use super::json::{DEPTH_MAX, write_value};
use crate::binlog::byte_reader::{Malformed, little_endian, take, take_array, take_length};

const SHORT: Malformed = Malformed("a JSON container ends too early");
const DOES_NOT_FIT: Malformed = Malformed("a JSON difference does not fit its document");
const BAD_PATH: Malformed = Malformed("the path of a JSON difference cannot be read");

/// A double of eight bytes can have 325 characters.
const TEXT_PER_BYTE: usize = 64;

/// A document taken apart. Scalars stay binary.
#[derive(Clone, Debug)]
enum Node<'a> {
    Scalar {
        kind: u8,
        value: &'a [u8],
    },
    Array(Vec<Node<'a>>),
    /// In MySQL's order of keys: by length, then by bytes.
    Object(Vec<(Cow<'a, [u8]>, Node<'a>)>),
}

/// A step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Leg<'a> {
    Member(Cow<'a, [u8]>),
    /// `[n]`.
    Cell(usize),
    /// `[last]` and `[last-n]`.
    CellFromEnd(usize),
}

/// Appends the text of `base` after the differences.
pub fn write_changed(
    base: &[u8],
    differences: &[u8],
    form: JsonForm,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let mut document = parse(base, 0)?;
    let mut rest = differences;
    while !rest.is_empty() {
        apply_one(&mut document, &mut rest)?;
    }
    // Values of a damaged document may share bytes; no byte of a sound one becomes so much text.
    let longest = out.len() + TEXT_PER_BYTE * (base.len() + differences.len());
    write(&document, form, longest, out, 0)
}

fn apply_one<'a>(document: &mut Node<'a>, input: &mut &'a [u8]) -> Result<(), Malformed> {
    let [operation] = take_array::<1>(input)?;
    let length = take_length(input)?;
    let path = parse_path(take(input, length)?)?;
    let (last, parents) = path.split_last().ok_or(DOES_NOT_FIT)?;
    let parent = parents.iter().try_fold(document, child).ok_or(DOES_NOT_FIT)?;
    if operation == 2 {
        return remove(parent, last);
    }
    let length = take_length(input)?;
    let value = parse(take(input, length)?, 0)?;
    match operation {
        0 => *child(parent, last).ok_or(DOES_NOT_FIT)? = value,
        1 => insert(parent, last, value)?,
        _ => return Err(Malformed("a JSON difference has an unknown operation")),
    }
    Ok(())
}

fn child<'n, 'a>(node: &'n mut Node<'a>, leg: &Leg<'_>) -> Option<&'n mut Node<'a>> {
    match (node, leg) {
        (Node::Object(members), Leg::Member(key)) => {
            let at = find(members, key).ok()?;
            members.get_mut(at).map(|(_, value)| value)
        }
        (Node::Array(items), leg) => {
            let at = cell(leg, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    }
}

fn insert<'a>(parent: &mut Node<'a>, leg: &Leg<'a>, value: Node<'a>) -> Result<(), Malformed> {
    match (parent, leg) {
        (Node::Object(members), Leg::Member(key)) => match find(members, key) {
            Ok(_) => return Err(DOES_NOT_FIT),
            Err(at) => members.insert(at, (key.clone(), value)),
        },
        (Node::Array(items), Leg::Cell(at)) => items.insert((*at).min(items.len()), value),
        (Node::Array(items), Leg::CellFromEnd(back)) => {
            items.insert(items.len().saturating_sub(back + 1), value);
        }
        _ => return Err(DOES_NOT_FIT),
    }
    Ok(())
}

fn remove(parent: &mut Node<'_>, leg: &Leg<'_>) -> Result<(), Malformed> {
    match (parent, leg) {
        (Node::Object(members), Leg::Member(key)) => {
            let at = find(members, key).map_err(|_| DOES_NOT_FIT)?;
            members.remove(at);
        }
        (Node::Array(items), leg) => {
            let at = cell(leg, items.len()).ok_or(DOES_NOT_FIT)?;
            items.remove(at);
        }
        _ => return Err(DOES_NOT_FIT),
    }
    Ok(())
}

/// The place of an array's element that is there.
fn cell(leg: &Leg<'_>, length: usize) -> Option<usize> {
    match leg {
        Leg::Member(_) => None,
        Leg::Cell(at) => (*at < length).then_some(*at),
        Leg::CellFromEnd(back) => length.checked_sub(back + 1),
    }
}

fn find(members: &[(Cow<'_, [u8]>, Node<'_>)], key: &[u8]) -> Result<usize, usize> {
    members.binary_search_by(|(name, _)| (name.len(), name.as_ref()).cmp(&(key.len(), key)))
}

fn parse(document: &[u8], depth: u32) -> Result<Node<'_>, Malformed> {
    let (&kind, value) = document.split_first().ok_or(SHORT)?;
    parse_value(kind, value, depth, &mut document.len())
}

fn parse_value<'a>(
    kind: u8,
    body: &'a [u8],
    depth: u32,
    unread: &mut usize,
) -> Result<Node<'a>, Malformed> {
    if kind > 3 {
        return Ok(Node::Scalar { kind, value: body });
    }
    if depth > DEPTH_MAX {
        return Err(Malformed("a JSON document is nested deeper than MySQL allows"));
    }
    let (object, large) = (kind < 2, kind & 1 == 1);
    let width = if large { 4 } else { 2 };
    let number = |at: usize, width: usize| {
        let bytes = body.get(at..at.checked_add(width)?)?;
        usize::try_from(little_endian(bytes)).ok()
    };
    let count = number(0, width).ok_or(SHORT)?;
    let key_entry = if object { width + 2 } else { 0 };
    let values_at = count.checked_mul(key_entry).ok_or(SHORT)? + 2 * width;
    if body.len() < values_at.saturating_add(count.saturating_mul(1 + width)) {
        return Err(SHORT);
    }
    account(unread, values_at + count * (1 + width))?;
    let value = |i: usize, unread: &mut usize| {
        let entry = values_at + i * (1 + width);
        let kind = *body.get(entry).ok_or(SHORT)?;
        let inlined = matches!(kind, 4..=6) || large && matches!(kind, 7 | 8);
        let at = if inlined { entry + 1 } else { number(entry + 1, width).ok_or(SHORT)? };
        parse_value(kind, body.get(at..).ok_or(SHORT)?, depth + 1, unread)
    };
    let key = |i: usize| {
        let entry = 2 * width + i * key_entry;
        let (offset, length) = (number(entry, width)?, number(entry + width, 2)?);
        body.get(offset..offset.checked_add(length)?)
    };
    if !object {
        return Ok(Node::Array((0..count).map(|i| value(i, unread)).collect::<Result<_, _>>()?));
    }
    let member = |i| {
        let key = key(i).ok_or(SHORT)?;
        account(unread, key.len())?;
        Ok((Cow::Borrowed(key), value(i, unread)?))
    };
    Ok(Node::Object((0..count).map(member).collect::<Result<_, Malformed>>()?))
}

/// Bytes are read once, or the document is damaged.
fn account(unread: &mut usize, bytes: usize) -> Result<(), Malformed> {
    *unread = unread.checked_sub(bytes).ok_or(Malformed("JSON values share their bytes"))?;
    Ok(())
}

fn write(
    node: &Node<'_>,
    form: JsonForm,
    longest: usize,
    out: &mut Vec<u8>,
    depth: u32,
) -> Result<(), Malformed> {
    if out.len() > longest {
        return Err(Malformed("JSON values share their bytes"));
    }
    if depth > DEPTH_MAX {
        return Err(Malformed("a JSON document is nested deeper than MySQL allows"));
    }
    match node {
        Node::Scalar { kind, value } => return write_value(*kind, value, form, out, depth),
        Node::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, form, longest, out, depth + 1)?;
            }
            out.push(b']');
        }
        Node::Object(members) => {
            out.push(b'{');
            for (i, (key, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                schemas::json_text::write_string(key, out);
                out.push(b':');
                write(value, form, longest, out, depth + 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// `$`, then members (`.name`, `."any text"`) and cells (`[n]`, `[last]`, `[last-n]`).
fn parse_path(path: &[u8]) -> Result<Vec<Leg<'_>>, Malformed> {
    let mut rest = path.strip_prefix(b"$").ok_or(BAD_PATH)?;
    let mut legs = Vec::new();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        legs.push(match first {
            b'.' if rest.starts_with(b"\"") => Leg::Member(quoted(&mut rest)?),
            b'.' => {
                let end = rest.iter().position(|b| matches!(b, b'.' | b'[')).unwrap_or(rest.len());
                let (name, tail) = rest.split_at(end);
                rest = tail;
                Leg::Member(Cow::Borrowed(name))
            }
            b'[' => {
                let end = rest.iter().position(|&b| b == b']').ok_or(BAD_PATH)?;
                let (text, tail) = rest.split_at(end);
                rest = &tail[1..];
                parse_cell(text)?
            }
            _ => return Err(BAD_PATH),
        });
    }
    Ok(legs)
}

fn parse_cell(text: &[u8]) -> Result<Leg<'static>, Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| BAD_PATH)?;
    let number = |text: &str| text.trim().parse::<u32>().map(|n| n as usize).map_err(|_| BAD_PATH);
    match text.trim().strip_prefix("last") {
        None => number(text).map(Leg::Cell),
        Some(back) => match back.trim().strip_prefix('-') {
            Some(back) => number(back).map(Leg::CellFromEnd),
            None if back.trim().is_empty() => Ok(Leg::CellFromEnd(0)),
            None => Err(BAD_PATH),
        },
    }
}

/// A JSON string at the front of `rest`, without its quotes and escapes.
fn quoted<'a>(rest: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, Malformed> {
    let text = *rest;
    let (mut end, mut escaped) = (1, false);
    loop {
        match text.get(end).ok_or(BAD_PATH)? {
            b'\\' => {
                escaped = true;
                end += 2;
            }
            b'"' => break,
            _ => end += 1,
        }
    }
    let (string, tail) = text.split_at(end + 1);
    *rest = tail;
    if !escaped {
        return Ok(Cow::Borrowed(&string[1..end]));
    }
    let text: String = serde_json::from_slice(string).map_err(|_| BAD_PATH)?;
    Ok(Cow::Owned(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_read_as_the_server_writes_them() {
        let member = |name: &'static str| Leg::Member(Cow::Borrowed(name.as_bytes()));
        let path = br#"$.a."b \"c\" \u00e9"[3][last][last-2]."".d"#;
        let legs = [
            member("a"),
            member("b \"c\" é"),
            Leg::Cell(3),
            Leg::CellFromEnd(0),
            Leg::CellFromEnd(2),
            member(""),
            member("d"),
        ];
        assert_eq!(parse_path(path), Ok(legs.into()));
        assert_eq!(parse_path(b"$"), Ok(Vec::new()));
        for bad in [&b""[..], b"a", b"$a", b"$[", b"$[x]", b"$[last+1]", b"$.\"a", b"$.\"\\"] {
            assert!(parse_path(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(base: Vec<u8>, differences: Vec<u8>) {
            let _ = write_changed(&base, &differences, JsonForm::default(), &mut Vec::new());
        }

        #[test]
        fn foreign_differences_of_a_document_never_panic(
            operation in 0u8..4, path in r#"\$(\.[ab"]{0,3}|\[[0-9last-]{0,6}\]){0,4}"#, value: Vec<u8>,
        ) {
            // {"a": [1]}
            let base = [0, 1, 0, 20, 0, 11, 0, 1, 0, 2, 12, 0, b'a', 1, 0, 7, 0, 5, 1, 0];
            let mut differences = vec![operation, path.len() as u8];
            differences.extend_from_slice(path.as_bytes());
            differences.push(value.len().min(250) as u8);
            differences.extend_from_slice(&value);
            let _ = write_changed(&base, &differences, JsonForm::default(), &mut Vec::new());
        }
    }
}
