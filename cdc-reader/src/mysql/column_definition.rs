//! A column as `information_schema.COLUMNS` describes it to the same [`ColumnType`] that TABLE_MAP would tell.

use schemas::column_type::ColumnType;

/// What `information_schema.COLUMNS` says about one column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// `DATA_TYPE`, for example `bigint`.
    pub data_type: String,
    /// `COLUMN_TYPE`, for example `bigint unsigned` or `enum('a','b')`.
    pub column_type: String,
    /// `CHARACTER_MAXIMUM_LENGTH`.
    pub length: Option<u64>,
    /// `NUMERIC_PRECISION`.
    pub precision: Option<u64>,
    /// `NUMERIC_SCALE`.
    pub scale: Option<u64>,
    /// `DATETIME_PRECISION`.
    pub digits: Option<u64>,
}

/// The column's type; a type that this release cannot read gives the words that say what the column is.
pub fn column_type(definition: &ColumnDefinition) -> Result<ColumnType, String> {
    let text = definition.column_type.to_ascii_lowercase();
    let unsigned = text.split_whitespace().any(|word| word == "unsigned");
    let digits = small(definition.digits.unwrap_or(0))?;
    Ok(match definition.data_type.to_ascii_lowercase().as_str() {
        "tinyint" => ColumnType::TinyInt { unsigned },
        "smallint" => ColumnType::SmallInt { unsigned },
        "mediumint" => ColumnType::MediumInt { unsigned },
        "int" | "integer" => ColumnType::Int { unsigned },
        "bigint" => ColumnType::BigInt { unsigned },
        "float" => ColumnType::Float,
        "double" => ColumnType::Double,
        "decimal" => ColumnType::Decimal {
            precision: small(definition.precision.unwrap_or(10))?,
            scale: small(definition.scale.unwrap_or(0))?,
        },
        "bit" => ColumnType::Bit { width: small(definition.precision.unwrap_or(1))? },
        "date" => ColumnType::Date,
        "time" => ColumnType::Time { digits },
        "datetime" => ColumnType::DateTime { digits },
        "timestamp" => ColumnType::Timestamp { digits },
        "year" => ColumnType::Year,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => ColumnType::Text,
        "binary" => ColumnType::Binary {
            length: u16::try_from(definition.length.unwrap_or(1))
                .map_err(|_| "a BINARY of an impossible length".to_owned())?,
        },
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => ColumnType::Bytes,
        "enum" => ColumnType::Enum { members: members(&definition.column_type)? },
        "set" => ColumnType::Set { members: members(&definition.column_type)? },
        "json" => ColumnType::Json,
        "point" => ColumnType::Point,
        "geometry" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geomcollection" | "geometrycollection" => ColumnType::Geometry,
        "vector" => ColumnType::Vector,
        "uuid" => ColumnType::Uuid,
        "inet4" => ColumnType::Inet4,
        "inet6" => ColumnType::Inet6,
        other => {
            return Err(format!(
                "of type {other}, which this release cannot read; take the table out with `!` in `tables`"
            ));
        }
    })
}

fn small(number: u64) -> Result<u8, String> {
    u8::try_from(number).map_err(|_| "of an impossible precision".to_owned())
}

/// The members in `enum('a','b''c')`. The server doubles quotes and writes `\\`, `\n`, `\r` and `\0` with a backslash.
fn members(column_type: &str) -> Result<Vec<String>, String> {
    let unreadable = || format!("an ENUM or SET whose members cannot be read ({column_type})");
    let list = column_type
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(')'))
        .map(|(list, _)| list)
        .ok_or_else(unreadable)?;
    let mut members = Vec::new();
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => members.push(member(&mut chars).ok_or_else(unreadable)?),
            ',' | ' ' => {}
            _ => return Err(unreadable()),
        }
    }
    Ok(members)
}

/// One member, after its opening quote; takes the closing quote too.
fn member(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut text = String::new();
    loop {
        match chars.next()? {
            '\'' if chars.next_if_eq(&'\'').is_some() => text.push('\''),
            '\'' => return Some(text),
            '\\' => text.push(match chars.next()? {
                '0' => '\0',
                'n' => '\n',
                'r' => '\r',
                other => other,
            }),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(data_type: &str, text: &str) -> Result<ColumnType, String> {
        column_type(&ColumnDefinition {
            data_type: data_type.into(),
            column_type: text.into(),
            ..ColumnDefinition::default()
        })
    }

    #[test]
    fn signs_and_display_widths_are_read() {
        let cases = [
            ("tinyint", "tinyint(1)", ColumnType::TinyInt { unsigned: false }),
            ("int", "int(10) unsigned zerofill", ColumnType::Int { unsigned: true }),
            ("bigint", "bigint unsigned", ColumnType::BigInt { unsigned: true }),
            ("float", "float(7,4) unsigned", ColumnType::Float),
            ("char", "char(0)", ColumnType::Text),
            ("geomcollection", "geomcollection", ColumnType::Geometry),
        ];
        for (data_type, text, expected) in cases {
            assert_eq!(parsed(data_type, text), Ok(expected), "{text}");
        }
        assert_eq!(parsed("uuid", "uuid"), Ok(ColumnType::Uuid));
        assert!(parsed("xmltype", "xmltype").is_err());
    }

    #[test]
    fn members_are_unescaped() {
        let Ok(ColumnType::Enum { members }) =
            parsed("enum", r"enum('a','b''c','d,e','(f)','','g\\h','ü')")
        else {
            panic!("an ENUM")
        };
        assert_eq!(members, ["a", "b'c", "d,e", "(f)", "", "g\\h", "ü"]);
        for text in ["enum", "enum('a", "enum(a)", "enum('a''"] {
            assert!(parsed("enum", text).is_err(), "{text}");
        }
    }
}
