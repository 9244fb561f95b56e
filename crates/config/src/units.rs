//! Values with a unit: lengths of time and sizes.

use std::{fmt, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::Problem;

/// A length of time, written as `"30s"`, `"5m"` or `"200ms"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
pub struct Period(#[schemars(with = "String")] pub Duration);

impl Period {
    /// So many seconds.
    #[must_use]
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// So many milliseconds.
    #[must_use]
    pub const fn milliseconds(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
}

const DAY: u64 = 24 * 3600;
/// Longer times are a mistake, and sums with them would overflow the clock.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

impl Period {
    /// Refuses no time at all, and more than a year.
    pub(super) fn check(self, key: &str, problems: &mut Vec<Problem>) {
        if let Some(message) = self.out_of_range() {
            problems.push(Problem::new(key, message));
        }
    }

    /// A message where it is no time at all, or more than a year.
    pub(super) fn out_of_range(self) -> Option<String> {
        (self.0.is_zero() || self.0 > LONGEST).then(|| {
            format!("{self} is out of range: more than nothing and at most a year, such as \"30s\"")
        })
    }

    /// Refuses more than a year.
    pub(super) fn check_longest(self, key: &str, problems: &mut Vec<Problem>) {
        if self.0 > LONGEST {
            let message = format!("{self} is out of range: at most a year, such as \"5s\"");
            problems.push(Problem::new(key, message));
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Years and months of humantime are not what was written.
        match (self.0.as_secs(), self.0.subsec_nanos()) {
            (seconds, 0) if seconds > 0 && seconds.is_multiple_of(DAY) => {
                write!(f, "{}d", seconds / DAY)
            }
            _ => humantime::format_duration(self.0).fmt(f),
        }
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|_| {
            format!("\"{text}\" is no length of time, write it as \"30s\" or \"200ms\"")
        })
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = text_with_unit(
            deserializer,
            "a length of time such as \"30s\" or \"200ms\"",
        )?;
        text.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number of bytes, written as `"512MiB"` or `"2GB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
pub struct ByteSize(#[schemars(with = "String")] pub u64);

impl ByteSize {
    /// So many times 1024 x 1024 bytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// As an amount of memory.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, bits) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 >= 1 << bits && self.0.is_multiple_of(1 << bits) {
                return write!(f, "{}{unit}", self.0 >> bits);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = text_with_unit(deserializer, "a size such as \"512MiB\" or \"0B\"")?;
        let expected = |_| {
            D::Error::custom(format!(
                "\"{text}\" is no size, write it as \"512MiB\" or \"2GB\""
            ))
        };
        // Some take M for a million, others for 1024 x 1024.
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || ".+ ".contains(c));
        if matches!(unit, "k" | "K" | "m" | "M" | "g" | "G" | "t" | "T") {
            let unit = unit.to_uppercase();
            return Err(D::Error::custom(format!(
                "\"{text}\" may be {unit}B, a power of 1000, or {unit}iB, a power of 1024: write one of them"
            )));
        }
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(expected)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a string; a bare number is refused with what was expected.
fn text_with_unit<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
) -> Result<String, D::Error> {
    struct Text(&'static str);
    impl serde::de::Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
    }
    deserializer.deserialize_str(Text(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_what_they_write() {
        for text in ["30s", "200ms", "1m 30s", "0s", "1d", "366d", "1day 1s"] {
            let period: Period = serde_json::from_value(text.into()).unwrap();
            assert_eq!(period.to_string(), text);
        }
        for (text, bytes, shown) in [
            ("512MiB", 512 << 20, "512MiB"),
            ("2GB", 2_000_000_000, "1953125KiB"),
            ("0B", 0, "0B"),
        ] {
            let size: ByteSize = serde_json::from_value(text.into()).unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown));
        }
    }

    #[test]
    fn what_has_no_unit_is_refused_with_an_example() {
        let error = serde_json::from_value::<Period>("30".into())
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"30s\""), "{error}");
        let error = serde_json::from_value::<ByteSize>("lots".into())
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"512MiB\""), "{error}");
    }
}
