//! The closed set of MySQL column types, as far as they matter to a value's form on the wire and in the lake.
//! It holds only what TABLE_MAP's metadata and information_schema both tell, so that both give the same schema text.

/// A column's type. Lengths that do not change a value's form (VARCHAR(20) or VARCHAR(30)) are left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// TINYINT, BOOL.
    TinyInt {
        /// Whether UNSIGNED.
        unsigned: bool,
    },
    /// SMALLINT.
    SmallInt {
        /// Whether UNSIGNED.
        unsigned: bool,
    },
    /// MEDIUMINT.
    MediumInt {
        /// Whether UNSIGNED.
        unsigned: bool,
    },
    /// INT.
    Int {
        /// Whether UNSIGNED.
        unsigned: bool,
    },
    /// BIGINT.
    BigInt {
        /// Whether UNSIGNED.
        unsigned: bool,
    },
    /// FLOAT, 4 bytes.
    Float,
    /// DOUBLE, 8 bytes.
    Double,
    /// DECIMAL(precision 1..=65, scale 0..=30).
    Decimal {
        /// All digits.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// BIT(1..=64).
    Bit {
        /// Bits.
        width: u8,
    },
    /// DATE.
    Date,
    /// TIME with 0..=6 fraction digits.
    Time {
        /// Fraction digits.
        digits: u8,
    },
    /// DATETIME with 0..=6 fraction digits.
    DateTime {
        /// Fraction digits.
        digits: u8,
    },
    /// TIMESTAMP with 0..=6 fraction digits.
    Timestamp {
        /// Fraction digits.
        digits: u8,
    },
    /// YEAR.
    Year,
    /// CHAR, VARCHAR and the TEXT types, in any character set.
    Text,
    /// BINARY(length): values are padded with 0x00 to `length` bytes.
    Binary {
        /// Bytes.
        length: u16,
    },
    /// VARBINARY and the BLOB types.
    Bytes,
    /// ENUM with its members in order.
    Enum {
        /// The members, in order.
        members: Vec<String>,
    },
    /// SET with its members in order.
    Set {
        /// The members, in order.
        members: Vec<String>,
    },
    /// JSON.
    Json,
    /// Every spatial type but POINT.
    Geometry,
    /// POINT.
    Point,
    /// VECTOR.
    Vector,
    /// MariaDB's UUID.
    Uuid,
    /// MariaDB's INET4.
    Inet4,
    /// MariaDB's INET6.
    Inet6,
}

impl ColumnType {
    /// Whether a table map shows a column of the type `catalog` as one of this type: MariaDB's binlog has the types
    /// above as BINARY.
    pub fn is_stored_as(&self, catalog: &ColumnType) -> bool {
        match catalog {
            Self::Uuid | Self::Inet6 => *self == Self::Binary { length: 16 },
            Self::Inet4 => *self == Self::Binary { length: 4 },
            other => self == other,
        }
    }
}
