//! Sizes and durations as people write them: `20G`, `512MiB`, `30s`, `5m`.
//!
//! Both can stand in a flag, after `-o` and in `config.toml`, as text or as a plain number.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize};

/// A number of bytes. `K`, `M`, `G`, `T` count in 1024, as `du`, `dd` and `mount` do, and so do `Ki` and `KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = number_and_unit(text);
        let unit = unit.strip_suffix(['b', 'B']).unwrap_or(unit);
        let shift = match unit.strip_suffix('i').unwrap_or(unit) {
            "" => 0,
            "k" | "K" => 10,
            "m" | "M" => 20,
            "g" | "G" => 30,
            "t" | "T" => 40,
            _ => return Err(format!("'{text}' is no size; write it like 500M, 20G or 1T")),
        };
        let number: f64 = number
            .parse()
            .map_err(|_| format!("'{text}' is no size; write it like 500M, 20G or 1T"))?;
        // Up to 2^53 bytes (9 PB) the product is exact; above it no disk cares about the last byte.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let bytes = (number * (1_u64 << shift) as f64).round() as u64;
        Ok(Size(bytes))
    }
}

impl fmt::Display for Size {
    /// Three digits at most before the unit: `17.3 MB` would be ambiguous, so the units are binary.
    #[allow(clippy::cast_precision_loss)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        for unit in ["bytes", "KiB", "MiB", "GiB"] {
            if value < 1000.0 {
                return match unit {
                    "bytes" => write!(f, "{} bytes", self.0),
                    _ => write!(f, "{value:.1} {unit}"),
                };
            }
            value /= 1024.0;
        }
        write!(f, "{value:.1} TiB")
    }
}

/// A length of time; a number without a unit counts seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no length of time; write it like 30s, 5m or 1h");
        let (number, unit) = number_and_unit(text);
        let factor = match unit {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        Duration::try_from_secs_f64(number * factor)
            .map(Span)
            .map_err(|_| wrong())
    }
}

/// Splits `"1.5 GiB"` into `"1.5"` and `"GiB"`. Only digits and a point count as number, so that `nan`, `inf`
/// and `1e9`, which Rust would read, are refused.
fn number_and_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

macro_rules! deserialize_from_text_or_number {
    ($type:ty, $number:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct TextOrNumber;
                impl Visitor<'_> for TextOrNumber {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a number, or a number with a unit in quotes")
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
                        u64::try_from(number).map($number).map_err(E::custom)
                    }

                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
                        Ok($number(number))
                    }
                }
                deserializer
                    .deserialize_any(TextOrNumber)
                    .map_err(D::Error::custom)
            }
        }
    };
}

deserialize_from_text_or_number!(Size, Size);
deserialize_from_text_or_number!(Span, |seconds| Span(Duration::from_secs(seconds)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_the_forms_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("4k", 4096),
            ("512MiB", 512 << 20),
            ("512 Mi", 512 << 20),
            ("1.5G", 3 << 29),
            ("20GB", 20 << 30),
            ("2T", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_or_duration_is_refused_with_an_example() {
        for text in ["", "G", "-1", "nan", "1e9", "10 apples", "1.2.3"] {
            assert!(text.parse::<Size>().unwrap_err().contains("20G"), "{text}");
            assert!(text.parse::<Span>().unwrap_err().contains("30s"), "{text}");
        }
    }

    #[test]
    fn durations_count_seconds_unless_a_unit_says_otherwise() {
        for (text, millis) in [
            ("5", 5000),
            ("0", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("1.5m", 90_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_a_unit_that_fits() {
        assert_eq!(Size(999).to_string(), "999 bytes");
        assert_eq!(Size(5 << 20).to_string(), "5.0 MiB");
        assert_eq!(Size(20 << 30).to_string(), "20.0 GiB");
    }
}
