//! The values of a binary row (manual: "Binary Protocol Resultset Row"), read from the packet where they lie.

use schemas::row_digest::days_from_civil;

use crate::binlog::byte_reader::{
    Malformed, bit, little_endian, take, take_array, take_le, take_length,
};

/// In which of the protocol's forms the values of a column come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// 1, 2, 4 or 8 bytes, least significant first.
    Integer {
        /// How many.
        bytes: u8,
        /// Whether the highest bit is no sign.
        unsigned: bool,
    },
    /// FLOAT.
    Float,
    /// DOUBLE.
    Double,
    /// DATE, DATETIME and TIMESTAMP.
    Instant,
    /// TIME.
    Time,
    /// Everything else: a length and the bytes.
    Bytes,
    /// NULL in every row.
    Null,
}

/// A value, for readers that are in no hurry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowValue<'a> {
    /// NULL.
    Null,
    /// Any signed integer.
    Int(i64),
    /// Any unsigned integer.
    UInt(u64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// DATE, DATETIME and TIMESTAMP.
    Instant(DateParts),
    /// TIME, in signed microseconds.
    Time(i64),
    /// Everything else.
    Bytes(&'a [u8]),
}

/// An instant as it is written, zeros included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DateParts {
    /// Year.
    pub year: u16,
    /// Month.
    pub month: u8,
    /// Day.
    pub day: u8,
    /// Hour.
    pub hour: u8,
    /// Minute.
    pub minute: u8,
    /// Second.
    pub second: u8,
    /// Microseconds.
    pub micros: u32,
}

impl DateParts {
    /// Microseconds since 1970, as if in UTC; `None` for a zero or partly zero date, by the same rule as the binlog's
    /// (`encode::temporal`).
    #[inline]
    pub fn since_1970(self) -> Option<i64> {
        if self.year == 0 || !(1..=12).contains(&self.month) || self.day == 0 {
            return None;
        }
        let days = days_from_civil(self.year.into(), self.month.into(), self.day.into());
        let (hour, minute) = (i64::from(self.hour), i64::from(self.minute));
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + i64::from(self.second);
        Some(seconds * 1_000_000 + i64::from(self.micros))
    }
}

/// An integer's bits, the sign carried to the left.
#[inline(always)]
pub fn take_integer(input: &mut &[u8], bytes: u8, unsigned: bool) -> Result<u64, Malformed> {
    Ok(match (bytes, unsigned) {
        (1, true) => u8::from_le_bytes(take_array(input)?).into(),
        (1, false) => i64::from(i8::from_le_bytes(take_array(input)?)) as u64,
        (2, true) => u16::from_le_bytes(take_array(input)?).into(),
        (2, false) => i64::from(i16::from_le_bytes(take_array(input)?)) as u64,
        (4, true) => u32::from_le_bytes(take_array(input)?).into(),
        (4, false) => i64::from(i32::from_le_bytes(take_array(input)?)) as u64,
        _ => u64::from_le_bytes(take_array(input)?),
    })
}

/// FLOAT.
#[inline(always)]
pub fn take_float(input: &mut &[u8]) -> Result<f32, Malformed> {
    Ok(f32::from_le_bytes(take_array(input)?))
}

/// DOUBLE.
#[inline(always)]
pub fn take_double(input: &mut &[u8]) -> Result<f64, Malformed> {
    Ok(f64::from_le_bytes(take_array(input)?))
}

/// DATE, DATETIME and TIMESTAMP: what is zero at the end is left out.
#[inline(always)]
pub fn take_instant(input: &mut &[u8]) -> Result<DateParts, Malformed> {
    let [length] = take_array::<1>(input)?;
    let mut parts = DateParts::default();
    if !matches!(length, 0 | 4 | 7 | 11) {
        return Err(Malformed("an instant has a length that none has"));
    }
    if length >= 4 {
        let [low, high, month, day] = take_array(input)?;
        (parts.year, parts.month, parts.day) = (u16::from_le_bytes([low, high]), month, day);
    }
    if length >= 7 {
        [parts.hour, parts.minute, parts.second] = take_array(input)?;
    }
    if length == 11 {
        parts.micros = u32::from_le_bytes(take_array(input)?);
    }
    Ok(parts)
}

/// TIME, in signed microseconds.
#[inline(always)]
pub fn take_time(input: &mut &[u8]) -> Result<i64, Malformed> {
    /// The server's largest TIME has 34 days.
    const DAYS_MAX: u64 = 10_000;
    let [length] = take_array::<1>(input)?;
    if !matches!(length, 0 | 8 | 12) {
        return Err(Malformed("a time has a length that none has"));
    }
    if length == 0 {
        return Ok(0);
    }
    let [negative] = take_array(input)?;
    let days = take_le(input, 4)?;
    if days > DAYS_MAX {
        return Err(Malformed("a time is longer than any"));
    }
    let [hours, minutes, seconds] = take_array::<3>(input)?.map(i64::from);
    let seconds = (days as i64 * 24 + hours) * 3600 + minutes * 60 + seconds;
    let fraction = if length == 12 { take_le(input, 4)? as i64 } else { 0 };
    let micros = seconds * 1_000_000 + fraction;
    Ok(if negative == 0 { micros } else { -micros })
}

/// A length and so many bytes.
#[inline(always)]
pub fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = take_length(input)?;
    take(input, length)
}

impl<'a> RowValue<'a> {
    /// The next value of a row, which is not NULL.
    pub fn take(kind: ValueKind, input: &mut &'a [u8]) -> Result<Self, Malformed> {
        Ok(match kind {
            ValueKind::Integer { bytes, unsigned: true } => {
                Self::UInt(take_integer(input, bytes, true)?)
            }
            ValueKind::Integer { bytes, unsigned: false } => {
                Self::Int(take_integer(input, bytes, false)? as i64)
            }
            ValueKind::Float => Self::Float(take_float(input)?),
            ValueKind::Double => Self::Double(take_double(input)?),
            ValueKind::Instant => Self::Instant(take_instant(input)?),
            ValueKind::Time => Self::Time(take_time(input)?),
            ValueKind::Bytes => Self::Bytes(take_bytes(input)?),
            ValueKind::Null => Self::Null,
        })
    }

    /// Any integer, signed or not.
    pub fn integer(self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(number.into()),
            Self::UInt(number) => Some(number.into()),
            _ => None,
        }
    }

    /// The bytes of a string.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A BIT value.
    pub fn bits(self) -> Option<u64> {
        self.bytes().and_then(bits)
    }

    /// FLOAT (widened without loss) or DOUBLE.
    pub fn double(self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(number.into()),
            Self::Double(number) => Some(number),
            _ => None,
        }
    }

    /// DATE, DATETIME or TIMESTAMP.
    pub fn instant(self) -> Option<DateParts> {
        match self {
            Self::Instant(parts) => Some(parts),
            _ => None,
        }
    }

    /// TIME, in signed microseconds.
    pub fn time(self) -> Option<i64> {
        match self {
            Self::Time(micros) => Some(micros),
            _ => None,
        }
    }
}

/// A BIT value comes as up to eight bytes, most significant first.
#[inline(always)]
pub fn bits(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// A row as it came.
#[derive(Clone, Copy, Debug)]
pub struct RowPacket<'a> {
    /// The form of each column.
    pub kinds: &'a [ValueKind],
    /// The packet.
    pub bytes: &'a [u8],
}

impl<'a> RowPacket<'a> {
    /// The row's values.
    pub fn values(self) -> Result<Vec<RowValue<'a>>, Malformed> {
        let (nulls, mut input) = split_row(self.bytes, self.kinds.len())?;
        let values = self.kinds.iter().enumerate().map(|(i, &kind)| {
            if is_null(nulls, i) { Ok(RowValue::Null) } else { RowValue::take(kind, &mut input) }
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        if input.is_empty() { Ok(values) } else { Err(TOO_LONG) }
    }
}

impl<'a> RowPacket<'a> {
    /// A value as it came, for [`RowValue::take`]; `None` for NULL and for a column that the row does not have.
    pub fn bytes_of(self, column: usize) -> Option<&'a [u8]> {
        let (nulls, mut input) = split_row(self.bytes, self.kinds.len()).ok()?;
        for (i, &kind) in self.kinds.iter().enumerate().take(column.checked_add(1)?) {
            if is_null(nulls, i) {
                continue;
            }
            let before = input;
            RowValue::take(kind, &mut input).ok()?;
            if i == column {
                return before.get(..before.len() - input.len());
            }
        }
        None
    }
}

/// A row has more bytes than its values.
pub const TOO_LONG: Malformed = Malformed("a row has more bytes than its values");

/// The bitmap of a row's NULLs, and its values.
#[inline(always)]
pub fn split_row(packet: &[u8], columns: usize) -> Result<(&[u8], &[u8]), Malformed> {
    let mut input = packet;
    if take_array::<1>(&mut input)? != [0] {
        return Err(Malformed("the server sent what is no row"));
    }
    let nulls = take(&mut input, (columns + NULLS_OFFSET).div_ceil(8))?;
    Ok((nulls, input))
}

/// The first two bits of the bitmap are nobody's.
const NULLS_OFFSET: usize = 2;

/// Whether a column of the row is NULL.
#[inline(always)]
pub fn is_null(nulls: &[u8], column: usize) -> bool {
    bit(nulls, column + NULLS_OFFSET)
}

/// The form of a column, from its definition (manual: "Protocol::ColumnDefinition41").
pub(super) fn parse_definition(mut packet: &[u8]) -> Result<ValueKind, Malformed> {
    /// UNSIGNED_FLAG.
    const UNSIGNED: u64 = 32;
    let input = &mut packet;
    // Catalog, database, table, its own name, column, its own name.
    for _ in 0..6 {
        take_bytes(input)?;
    }
    take_length(input)?;
    // Character set and length.
    take(input, 2 + 4)?;
    let [code] = take_array(input)?;
    let unsigned = little_endian(take(input, 2)?) & UNSIGNED != 0;
    let integer = |bytes| ValueKind::Integer { bytes, unsigned };
    Ok(match code {
        1 => integer(1),
        // SMALLINT, YEAR.
        2 | 13 => integer(2),
        // INT, MEDIUMINT.
        3 | 9 => integer(4),
        8 => integer(8),
        4 => ValueKind::Float,
        5 => ValueKind::Double,
        6 => ValueKind::Null,
        // TIMESTAMP, DATE, DATETIME.
        7 | 10 | 12 | 14 => ValueKind::Instant,
        11 => ValueKind::Time,
        // Decimals, texts, bytes, BIT, ENUM, SET, JSON, VECTOR, geometries.
        0 | 15 | 16 | 242 | 245..=255 => ValueKind::Bytes,
        _ => return Err(Malformed("the server sends a column of an unknown type")),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A row's packet and its kinds, as a server writes them.
    pub(crate) fn packet_of(values: &[RowValue<'_>]) -> (Vec<ValueKind>, Vec<u8>) {
        let mut packet = vec![0; 1 + (values.len() + NULLS_OFFSET).div_ceil(8)];
        let mut kinds = Vec::new();
        for (i, value) in values.iter().enumerate() {
            kinds.push(match *value {
                RowValue::Null => {
                    packet[1 + (i + NULLS_OFFSET) / 8] |= 1 << ((i + NULLS_OFFSET) % 8);
                    ValueKind::Null
                }
                RowValue::Int(number) => {
                    packet.extend_from_slice(&number.to_le_bytes());
                    ValueKind::Integer { bytes: 8, unsigned: false }
                }
                RowValue::UInt(number) => {
                    packet.extend_from_slice(&number.to_le_bytes());
                    ValueKind::Integer { bytes: 8, unsigned: true }
                }
                RowValue::Float(number) => {
                    packet.extend_from_slice(&number.to_le_bytes());
                    ValueKind::Float
                }
                RowValue::Double(number) => {
                    packet.extend_from_slice(&number.to_le_bytes());
                    ValueKind::Double
                }
                RowValue::Instant(at) => {
                    packet.push(11);
                    packet.extend_from_slice(&at.year.to_le_bytes());
                    packet.extend_from_slice(&[at.month, at.day, at.hour, at.minute, at.second]);
                    packet.extend_from_slice(&at.micros.to_le_bytes());
                    ValueKind::Instant
                }
                RowValue::Time(micros) => {
                    let (seconds, fraction) =
                        (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
                    packet.extend_from_slice(&[12, u8::from(micros < 0)]);
                    packet.extend_from_slice(&((seconds / 86_400) as u32).to_le_bytes());
                    let clock = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
                    packet.extend(clock.map(|part| part as u8));
                    packet.extend_from_slice(&(fraction as u32).to_le_bytes());
                    ValueKind::Time
                }
                RowValue::Bytes(bytes) => {
                    packet.push(0xfc);
                    packet.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
                    packet.extend_from_slice(bytes);
                    ValueKind::Bytes
                }
            });
        }
        (kinds, packet)
    }

    pub(crate) fn date(year: u16, month: u8, day: u8) -> RowValue<'static> {
        RowValue::Instant(DateParts { year, month, day, ..DateParts::default() })
    }

    pub(crate) fn any_kind() -> impl Strategy<Value = ValueKind> {
        prop_oneof![
            (prop_oneof![Just(1u8), Just(2), Just(4), Just(8)], any::<bool>())
                .prop_map(|(bytes, unsigned)| ValueKind::Integer { bytes, unsigned }),
            Just(ValueKind::Float),
            Just(ValueKind::Double),
            Just(ValueKind::Instant),
            Just(ValueKind::Time),
            Just(ValueKind::Bytes),
            Just(ValueKind::Null),
        ]
    }

    #[test]
    fn rows_are_read_back() {
        let values = [
            RowValue::Null,
            RowValue::Int(-7),
            RowValue::UInt(u64::MAX),
            RowValue::Float(1.5),
            RowValue::Double(-0.1),
            date(2024, 2, 29),
            RowValue::Null,
            RowValue::Time(-3_020_399_000_001),
            RowValue::Bytes(b"text"),
        ];
        let (kinds, mut packet) = packet_of(&values);
        let read = |bytes: &[u8]| {
            RowPacket { kinds: &kinds, bytes }.values().map(|read| read == values.as_slice())
        };
        assert_eq!(read(&packet), Ok(true));
        packet.push(0);
        assert_eq!(read(&packet), Err(TOO_LONG));
        packet[0] = 0xfe;
        assert!(read(&packet).is_err());
    }

    #[test]
    fn short_forms_of_instants_and_times_are_zeros() {
        let instant = |mut bytes: &[u8]| take_instant(&mut bytes);
        assert_eq!(instant(&[0]), Ok(DateParts::default()));
        let day = DateParts { year: 1970, month: 1, day: 2, ..DateParts::default() };
        assert_eq!(instant(&[4, 0xb2, 7, 1, 2]), Ok(day));
        let clock = DateParts { hour: 3, minute: 4, second: 5, ..day };
        assert_eq!(instant(&[7, 0xb2, 7, 1, 2, 3, 4, 5]), Ok(clock));
        assert_eq!(clock.since_1970(), Some((86_400 + 3 * 3600 + 4 * 60 + 5) * 1_000_000));
        assert!(instant(&[5, 0xb2, 7, 1, 2, 3]).is_err());
        assert!(instant(&[4, 0xb2, 7, 1]).is_err());
        let time = |mut bytes: &[u8]| take_time(&mut bytes);
        assert_eq!(time(&[0]), Ok(0));
        assert_eq!(time(&[8, 1, 1, 0, 0, 0, 2, 3, 4]), Ok(-93_784_000_000));
        assert!(time(&[8, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]).is_err());
        for (year, month, day) in [(0, 0, 0), (2024, 0, 1), (2024, 1, 0), (0, 1, 1)] {
            let zero = DateParts { year, month, day, ..DateParts::default() };
            assert_eq!(zero.since_1970(), None);
        }
    }

    #[test]
    fn numbers_have_their_width_and_sign() {
        let number = |mut bytes: &[u8], width, unsigned| take_integer(&mut bytes, width, unsigned);
        assert_eq!(number(&[0xff], 1, true), Ok(255));
        assert_eq!(number(&[0xff], 1, false), Ok(u64::MAX));
        assert_eq!(number(&[0, 0x80], 2, false), Ok(-32_768i64 as u64));
        assert_eq!(number(&[0, 0, 0, 0x80], 4, true), Ok(0x8000_0000));
        assert!(number(&[0, 0, 0], 4, true).is_err());
    }

    #[test]
    fn definitions_tell_the_form() {
        let definition = |code: u8, flags: u16| {
            let mut packet = b"\x03def\x01d\x01t\x01t\x01c\x01c\x0c\xff\x00\x0a\0\0\0".to_vec();
            packet.push(code);
            packet.extend_from_slice(&flags.to_le_bytes());
            packet.extend_from_slice(&[0, 0, 0]);
            parse_definition(&packet)
        };
        assert_eq!(definition(9, 32), Ok(ValueKind::Integer { bytes: 4, unsigned: true }));
        assert_eq!(definition(13, 0), Ok(ValueKind::Integer { bytes: 2, unsigned: false }));
        assert_eq!(definition(246, 0), Ok(ValueKind::Bytes));
        assert!(definition(99, 0).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_refused_without_a_panic(
            kinds in proptest::collection::vec(any_kind(), 0..20),
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = parse_definition(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = 0;
            }
            if let Ok(values) = (RowPacket { kinds: &kinds, bytes: &bytes }).values() {
                for value in values {
                    let _ = (value.bits(), value.instant().and_then(DateParts::since_1970));
                }
            }
        }
    }
}
