//! TABLE_MAP events: a table's shape as of the rows that follow, with the optional metadata that
//! `binlog_row_metadata=FULL` adds (`Table_map_event::Optional_metadata_fields` in MySQL's source).

use super::byte_reader::{Malformed, bit, take, take_array, take_le, take_length};

/// How a column's value lies in a row image. `bytes` and `length_bytes` count bytes of a number or of the length in
/// front; `digits` are fraction digits.
#[allow(missing_docs, reason = "the fields are told above once for all variants")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireType {
    /// Integers of 1, 2, 3, 4 or 8 bytes.
    Integer { bytes: u8, unsigned: bool },
    /// FLOAT.
    Float,
    /// DOUBLE.
    Double,
    /// DECIMAL in groups of nine digits.
    Decimal { precision: u8, scale: u8 },
    /// YEAR.
    Year,
    /// DATE in 3 bytes.
    Date,
    /// TIME, DATETIME and TIMESTAMP in the form of MySQL 5.6.4 and later.
    Time { digits: u8 },
    /// See above.
    DateTime { digits: u8 },
    /// See above.
    Timestamp { digits: u8 },
    /// CHAR, VARCHAR, BINARY, VARBINARY with a length of 1 or 2 bytes.
    Short { length_bytes: u8, maximum: u16, fixed: bool },
    /// TEXT and BLOB with a length of 1 to 4 bytes.
    Blob { length_bytes: u8 },
    /// MariaDB's COMPRESSED columns: like a BLOB.
    Compressed { length_bytes: u8 },
    /// JSON, spatial types and VECTOR: like a BLOB.
    Json { length_bytes: u8 },
    /// See above.
    Geometry { length_bytes: u8, point: bool },
    /// See above.
    Vector { length_bytes: u8 },
    /// ENUM as an index of 1 or 2 bytes.
    Enum { bytes: u8 },
    /// SET as a mask of 1 to 8 bytes.
    Set { bytes: u8 },
    /// BIT, big-endian.
    Bit { width: u8 },
    /// A type that the reader does not know; carries MySQL's number.
    Unknown(u8),
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireColumn {
    /// The name; empty when the server sends none (`binlog_row_metadata=MINIMAL`).
    pub name: String,
    /// The form of its values.
    pub wire: WireType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// The collation's number for character columns (63 is binary) and for ENUM and SET; 0 when it is not told.
    pub collation: u16,
    /// Members of ENUM and SET in the column's character set.
    pub members: Vec<Vec<u8>>,
}

/// A table's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMap {
    /// The number that rows events name the table by.
    pub table_id: u64,
    /// The MySQL schema.
    pub database: String,
    /// The table.
    pub table: String,
    /// The columns in the server's order.
    pub columns: Vec<WireColumn>,
    /// Column indices of the primary key in key order; empty when there is none or a part is a prefix.
    pub primary_key: Vec<usize>,
    /// Whether the server said which numbers are unsigned.
    pub signs_told: bool,
}

/// The number that a TABLE_MAP or rows event names its table by.
pub fn table_id(body: &[u8]) -> Result<u64, Malformed> {
    take_le(&mut &*body, 6)
}

/// The database and table of a TABLE_MAP event, without reading the rest.
pub fn table_name(mut body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    take(&mut body, 8)?;
    let [length] = take_array::<1>(&mut body)?;
    let database = take(&mut body, usize::from(length))?;
    take(&mut body, 1)?;
    let [length] = take_array::<1>(&mut body)?;
    Ok((database, take(&mut body, usize::from(length))?))
}

/// Reads the body of a TABLE_MAP event.
pub fn parse(body: &[u8]) -> Result<TableMap, Malformed> {
    parse_from(body, false)
}

/// Reads the body of a TABLE_MAP event that MySQL or MariaDB wrote: MariaDB lists the collation of a spatial column
/// (binary) among those of the text columns.
pub fn parse_from(mut body: &[u8], mariadb: bool) -> Result<TableMap, Malformed> {
    let (database, table) = table_name(body)?;
    let names = 8 + 1 + database.len() + 1 + 1 + table.len() + 1;
    let (database, table) = (lossy(database), lossy(table));
    let table_id = table_id(body)?;
    take(&mut body, names)?;
    let count = take_length(&mut body)?;
    let types = take(&mut body, count)?;
    let length = take_length(&mut body)?;
    let mut metadata = take(&mut body, length)?;
    let nullable = take(&mut body, count.div_ceil(8))?;
    let optional = OptionalMetadata::parse(body)?;

    let mut columns = Vec::with_capacity(count);
    let mut counters = Counters::default();
    for (i, &type_code) in types.iter().enumerate() {
        let wire = wire_type(type_code, &mut metadata, &optional, &mut counters)?;
        let mut column = WireColumn {
            name: optional.names.get(i).cloned().unwrap_or_default(),
            wire,
            nullable: bit(nullable, i),
            collation: 0,
            members: Vec::new(),
        };
        match wire {
            WireType::Short { .. } | WireType::Blob { .. } | WireType::Compressed { .. } => {
                column.collation = optional.text_collations.of(counters.text);
                counters.text += 1;
            }
            // It is stored as a BLOB and has, of no use to us, a collation in the same list.
            WireType::Vector { .. } => counters.text += 1,
            WireType::Geometry { .. } if mariadb => counters.text += 1,
            WireType::Enum { .. } => {
                column.collation = optional.enum_collations.of(counters.enum_or_set);
                column.members = optional.enums.get(counters.enums).cloned().unwrap_or_default();
                counters.enum_or_set += 1;
                counters.enums += 1;
            }
            WireType::Set { .. } => {
                column.collation = optional.enum_collations.of(counters.enum_or_set);
                column.members = optional.sets.get(counters.sets).cloned().unwrap_or_default();
                counters.enum_or_set += 1;
                counters.sets += 1;
            }
            _ => {}
        }
        columns.push(column);
    }
    for (i, &index) in optional.primary_key.iter().enumerate() {
        if index >= count {
            return Err(Malformed("its primary key names a column that is not there"));
        }
        if bit(nullable, index) || optional.primary_key[..i].contains(&index) {
            return Err(Malformed("its primary key has a column twice or one that can be NULL"));
        }
    }
    let signs_told = !optional.signedness.is_empty();
    let primary_key = optional.primary_key;
    Ok(TableMap { table_id, database, table, columns, primary_key, signs_told })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Default)]
struct Counters {
    numeric: usize,
    text: usize,
    enum_or_set: usize,
    enums: usize,
    sets: usize,
    geometry: usize,
}

fn wire_type(
    type_code: u8,
    metadata: &mut &[u8],
    optional: &OptionalMetadata<'_>,
    counters: &mut Counters,
) -> Result<WireType, Malformed> {
    let mut byte = || take_array::<1>(metadata).map(|[byte]| byte);
    // The signedness bits count numeric columns, YEAR among them, most significant bit first.
    let mut unsigned = false;
    if matches!(type_code, 1 | 2 | 3 | 4 | 5 | 8 | 9 | 13 | 246) {
        let at = counters.numeric;
        unsigned = optional.signedness.get(at / 8).is_some_and(|b| b >> (7 - at % 8) & 1 == 1);
        counters.numeric += 1;
    }
    Ok(match type_code {
        1 => WireType::Integer { bytes: 1, unsigned },
        2 => WireType::Integer { bytes: 2, unsigned },
        9 => WireType::Integer { bytes: 3, unsigned },
        3 => WireType::Integer { bytes: 4, unsigned },
        8 => WireType::Integer { bytes: 8, unsigned },
        4 => {
            byte()?;
            WireType::Float
        }
        5 => {
            byte()?;
            WireType::Double
        }
        246 => {
            let (precision, scale) = (byte()?, byte()?);
            if precision == 0 || precision > 65 || scale > 30 || scale > precision {
                return Err(Malformed("a decimal column has an impossible precision"));
            }
            WireType::Decimal { precision, scale }
        }
        13 => WireType::Year,
        10 | 14 => WireType::Date,
        19 => WireType::Time { digits: fraction_digits(byte()?)? },
        18 => WireType::DateTime { digits: fraction_digits(byte()?)? },
        17 => WireType::Timestamp { digits: fraction_digits(byte()?)? },
        15 | 253 => {
            let maximum = u16::from_le_bytes([byte()?, byte()?]);
            WireType::Short { length_bytes: 1 + u8::from(maximum > 255), maximum, fixed: false }
        }
        254 => string_type(byte()?, byte()?),
        252 => WireType::Blob { length_bytes: length_bytes(byte()?)? },
        245 => WireType::Json { length_bytes: length_bytes(byte()?)? },
        255 => {
            let point = optional.geometry_types.get(counters.geometry) == Some(&1);
            counters.geometry += 1;
            WireType::Geometry { length_bytes: length_bytes(byte()?)?, point }
        }
        242 => WireType::Vector { length_bytes: length_bytes(byte()?)? },
        16 => {
            let (bits, bytes) = (byte()?, byte()?);
            let width = u16::from(bytes) * 8 + u16::from(bits);
            match u8::try_from(width) {
                Ok(width @ 1..=64) => WireType::Bit { width },
                _ => return Err(Malformed("a BIT column is not 1 to 64 bits wide")),
            }
        }
        140 => WireType::Compressed { length_bytes: length_bytes(byte()?)? },
        141 => {
            let maximum = u16::from_le_bytes([byte()?, byte()?]);
            WireType::Compressed { length_bytes: 1 + u8::from(maximum > 255) }
        }
        // Types that carry metadata which we must step over to keep the others readable.
        247..=251 => {
            byte()?;
            WireType::Unknown(type_code)
        }
        other => WireType::Unknown(other),
    })
}

/// CHAR, BINARY, ENUM and SET share a type code; the first metadata byte tells them apart and lends CHAR two bits of
/// length (`Field_string::do_save_field_metadata`).
fn string_type(first: u8, second: u8) -> WireType {
    match first {
        247 => WireType::Enum { bytes: second },
        248 => WireType::Set { bytes: second },
        _ => {
            let maximum = u16::from((first & 0x30) ^ 0x30) << 4 | u16::from(second);
            WireType::Short { length_bytes: 1 + u8::from(maximum > 255), maximum, fixed: true }
        }
    }
}

fn fraction_digits(digits: u8) -> Result<u8, Malformed> {
    if digits <= 6 { Ok(digits) } else { Err(Malformed("a column has over six fraction digits")) }
}

fn length_bytes(bytes: u8) -> Result<u8, Malformed> {
    if (1..=4).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(Malformed("a length has no 1 to 4 bytes"))
    }
}

#[derive(Default)]
struct Collations {
    default: u16,
    exceptions: Vec<(usize, u16)>,
    each: Vec<u16>,
}

impl Collations {
    fn of(&self, index: usize) -> u16 {
        if let Some(&collation) = self.each.get(index) {
            return collation;
        }
        self.exceptions.iter().find(|(at, _)| *at == index).map_or(self.default, |&(_, c)| c)
    }

    fn read_default(&mut self, mut field: &[u8]) -> Result<(), Malformed> {
        self.default = collation(&mut field)?;
        while !field.is_empty() {
            let index = take_length(&mut field)?;
            self.exceptions.push((index, collation(&mut field)?));
        }
        Ok(())
    }

    fn read_each(&mut self, mut field: &[u8]) -> Result<(), Malformed> {
        while !field.is_empty() {
            self.each.push(collation(&mut field)?);
        }
        Ok(())
    }
}

fn collation(field: &mut &[u8]) -> Result<u16, Malformed> {
    u16::try_from(take_length(field)?).map_err(|_| Malformed("a collation number is too large"))
}

#[derive(Default)]
struct OptionalMetadata<'a> {
    signedness: &'a [u8],
    names: Vec<String>,
    text_collations: Collations,
    enum_collations: Collations,
    enums: Vec<Vec<Vec<u8>>>,
    sets: Vec<Vec<Vec<u8>>>,
    geometry_types: Vec<usize>,
    primary_key: Vec<usize>,
}

impl<'a> OptionalMetadata<'a> {
    fn parse(mut body: &'a [u8]) -> Result<Self, Malformed> {
        let mut all = Self::default();
        while !body.is_empty() {
            let [kind] = take_array::<1>(&mut body)?;
            let length = take_length(&mut body)?;
            let mut field = take(&mut body, length)?;
            match kind {
                1 => all.signedness = field,
                2 => all.text_collations.read_default(field)?,
                3 => all.text_collations.read_each(field)?,
                4 => {
                    while !field.is_empty() {
                        let length = take_length(&mut field)?;
                        all.names.push(lossy(take(&mut field, length)?));
                    }
                }
                5 => all.sets = member_lists(field)?,
                6 => all.enums = member_lists(field)?,
                7 => {
                    while !field.is_empty() {
                        all.geometry_types.push(take_length(&mut field)?);
                    }
                }
                8 => {
                    while !field.is_empty() {
                        all.primary_key.push(take_length(&mut field)?);
                    }
                }
                // A primary key with a prefix does not hold whole column values: it is no key for us.
                9 => {
                    let mut whole = true;
                    while !field.is_empty() {
                        all.primary_key.push(take_length(&mut field)?);
                        whole &= take_length(&mut field)? == 0;
                    }
                    if !whole {
                        all.primary_key.clear();
                    }
                }
                10 => all.enum_collations.read_default(field)?,
                11 => all.enum_collations.read_each(field)?,
                _ => {}
            }
        }
        Ok(all)
    }
}

fn member_lists(mut field: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, Malformed> {
    let mut lists = Vec::new();
    while !field.is_empty() {
        let count = take_length(&mut field)?;
        let mut members = Vec::new();
        for _ in 0..count {
            let length = take_length(&mut field)?;
            members.push(take(&mut field, length)?.to_vec());
        }
        lists.push(members);
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn damaged_maps_never_panic(at in 0usize..60, value: u8) {
            let mut map = sample();
            if let Some(byte) = map.get_mut(at) {
                *byte = value;
            }
            let _ = parse(&map);
        }
    }

    /// `d.t(id bigint unsigned primary key, s varchar(300))` with full metadata.
    fn sample() -> Vec<u8> {
        let mut map = vec![7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 2, 8, 15, 2, 0x2c, 1, 2];
        map.extend_from_slice(&[1, 1, 0x80, 2, 1, 45, 4, 5, 2, b'i', b'd', 1, b's', 8, 1, 0]);
        map
    }

    #[test]
    fn vector_takes_a_place_in_the_list_of_collations() {
        // `d.t(v vector(2), s varchar(300) character set latin1)`: collations 63 by default, 8 for the second.
        let mut map = vec![7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 2, 242, 15, 3, 4];
        map.extend_from_slice(&[0x2c, 1, 3, 2, 3, 63, 1, 8, 4, 4, 1, b'v', 1, b's']);
        let map = parse(&map).expect("parses");
        assert_eq!(map.columns[1].collation, 8);
    }

    #[test]
    fn full_metadata_names_types_and_key() {
        let map = parse(&sample()).expect("parses");
        assert_eq!((map.table_id, &map.database[..], &map.table[..]), (7, "d", "t"));
        assert_eq!(map.primary_key, [0]);
        assert_eq!(map.columns[0].wire, WireType::Integer { bytes: 8, unsigned: true });
        assert_eq!((&map.columns[1].name[..], map.columns[1].collation), ("s", 45));
        assert!(map.columns[1].nullable && !map.columns[0].nullable);
    }
}
