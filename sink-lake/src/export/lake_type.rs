//! The types that an export's column can be converted to, as the configuration names them.

use std::str::FromStr;

use arrow::datatypes::DataType;

use crate::delta::arrow_types::TIMESTAMP;

/// A type of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LakeType {
    /// `string`.
    Text,
    /// 32 bits.
    Int,
    /// 64 bits.
    BigInt,
    /// The nearest double.
    Double,
    /// So many digits, of which so many stand after the point.
    Decimal(u8, u8),
    /// Yes or no.
    Boolean,
    /// A day.
    Date,
    /// An instant in UTC, in microseconds.
    Timestamp,
}

const DIGITS_MAX: u8 = 38;

impl LakeType {
    /// In Arrow.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Double => DataType::Float64,
            // At most DIGITS_MAX, see `decimal`.
            Self::Decimal(precision, scale) => DataType::Decimal128(precision, scale as i8),
            Self::Boolean => DataType::Boolean,
            Self::Date => DataType::Date32,
            Self::Timestamp => TIMESTAMP.clone(),
        }
    }
}

impl FromStr for LakeType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = text.trim().to_lowercase();
        Ok(match word.as_str() {
            "text" => Self::Text,
            "int" => Self::Int,
            "bigint" => Self::BigInt,
            "double" => Self::Double,
            "boolean" => Self::Boolean,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            word => decimal(word).ok_or_else(|| {
                format!(
                    "`{text}` is no type of an export; write text, int, bigint, double, decimal(18,2) (at most 38 \
                     digits), boolean, date or timestamp"
                )
            })?,
        })
    }
}

fn decimal(word: &str) -> Option<LakeType> {
    let inside = word.strip_prefix("decimal")?.trim_start();
    let inside = inside.strip_prefix('(')?.strip_suffix(')')?;
    let (precision, scale) = inside.split_once(',').unwrap_or((inside, "0"));
    let precision: u8 = precision.trim().parse().ok()?;
    let scale: u8 = scale.trim().parse().ok()?;
    let fits = (1..=DIGITS_MAX).contains(&precision) && scale <= precision;
    fits.then_some(LakeType::Decimal(precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_types() {
        for (word, expected) in [
            ("text", Some(LakeType::Text)),
            (" BigInt ", Some(LakeType::BigInt)),
            ("decimal(18,2)", Some(LakeType::Decimal(18, 2))),
            ("decimal (38, 38)", Some(LakeType::Decimal(38, 38))),
            ("decimal(5)", Some(LakeType::Decimal(5, 0))),
            ("decimal(39,2)", None),
            ("decimal(2,3)", None),
            ("decimal", None),
            ("decimal(0,0)", None),
            ("varchar", None),
        ] {
            assert_eq!(word.parse::<LakeType>().ok(), expected, "{word}");
        }
    }
}
