//! Turns the token vectors of one sequence into one vector.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// One way to make one vector of token vectors.
///
/// Source: sentence-transformers 6.2, `Pooling`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolingMode {
    /// The first token's vector.
    Cls,
    /// The mean of all token vectors, special tokens included.
    Mean,
    /// The last token's vector.
    Last,
    /// The largest value in each dimension.
    Max,
    /// The sum of all token vectors, divided by the square root of their number.
    MeanSqrtLen,
    /// The mean of all token vectors, each weighted by its place from 1 on.
    WeightedMean,
}

/// The modes, in the order in which older files concatenate them, with their names in configurations and in
/// sentence-transformers.
const MODES: [(PoolingMode, &str, &str); 6] = [
    (PoolingMode::Cls, "cls", "cls"),
    (PoolingMode::Max, "max", "max"),
    (PoolingMode::Mean, "mean", "mean"),
    (
        PoolingMode::MeanSqrtLen,
        "mean_sqrt_len",
        "mean_sqrt_len_tokens",
    ),
    (PoolingMode::WeightedMean, "weighted_mean", "weightedmean"),
    (PoolingMode::Last, "last", "lasttoken"),
];

impl PoolingMode {
    /// The mode of a name in a configuration or in sentence-transformers.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let mut modes = MODES.iter();
        modes
            .find(|(_, own, theirs)| [*own, *theirs].contains(&name))
            .map(|(mode, ..)| *mode)
    }

    fn name(self) -> &'static str {
        let mut modes = MODES.iter();
        modes
            .find(|(mode, ..)| *mode == self)
            .map_or("", |(_, own, _)| own)
    }

    /// Pools into `out`, of one row's width.
    fn pool(self, hidden: &[f32], out: &mut [f32]) {
        let (width, n_tokens) = (out.len(), (hidden.len() / out.len()) as f32);
        match self {
            Self::Cls => out.copy_from_slice(&hidden[..width]),
            Self::Last => out.copy_from_slice(&hidden[hidden.len() - width..]),
            Self::Mean => sum(hidden, out, |_| 1.0, n_tokens),
            Self::MeanSqrtLen => sum(hidden, out, |_| 1.0, n_tokens.sqrt()),
            Self::WeightedMean => {
                let weight = |place: usize| (place + 1) as f32;
                let total = n_tokens * (n_tokens + 1.0) / 2.0;
                sum(hidden, out, weight, total);
            }
            Self::Max => max(hidden, out),
        }
    }
}

/// The method that makes one vector of token vectors: one mode, or the vectors of several, one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pooling {
    first: PoolingMode,
    more: [Option<PoolingMode>; MODES.len() - 1],
}

impl Pooling {
    /// The first token's vector.
    pub const CLS: Self = Self::one(PoolingMode::Cls);
    /// The mean of all token vectors, special tokens included.
    pub const MEAN: Self = Self::one(PoolingMode::Mean);
    /// The last token's vector.
    pub const LAST: Self = Self::one(PoolingMode::Last);
    /// The largest value in each dimension.
    pub const MAX: Self = Self::one(PoolingMode::Max);

    /// Pooling by one mode.
    #[must_use]
    pub const fn one(first: PoolingMode) -> Self {
        Self {
            first,
            more: [None; MODES.len() - 1],
        }
    }

    /// Pooling by modes in this order; none where there are no modes, or more than there are kinds.
    #[must_use]
    pub fn of_modes(modes: &[PoolingMode]) -> Option<Self> {
        let (first, rest) = modes.split_first()?;
        let mut pooling = Self::one(*first);
        for (i, mode) in rest.iter().enumerate() {
            *pooling.more.get_mut(i)? = Some(*mode);
        }
        Some(pooling)
    }

    /// The modes in their order.
    pub fn modes(self) -> impl Iterator<Item = PoolingMode> {
        std::iter::once(self.first).chain(self.more.into_iter().flatten())
    }

    /// The mode, where there is only one.
    #[must_use]
    pub fn only(self) -> Option<PoolingMode> {
        let is_only = self.more.iter().all(Option::is_none);
        is_only.then_some(self.first)
    }

    /// Width of a pooled vector of token vectors of this width.
    #[must_use]
    pub fn width_of(self, width: usize) -> usize {
        self.modes().count() * width
    }

    /// Pools `hidden`, of shape `(tokens, width)` without padding, into `out`, of the [`width_of`](Self::width_of) it. Not
    /// normalized.
    ///
    /// # Panics
    /// When `hidden` is empty or no multiple of a token vector's width.
    pub fn pool(self, hidden: &[f32], out: &mut [f32]) {
        let width = out.len() / self.modes().count();
        assert!(
            !hidden.is_empty() && hidden.len().is_multiple_of(width),
            "at least one whole token vector"
        );
        for (mode, out) in self.modes().zip(out.chunks_exact_mut(width)) {
            mode.pool(hidden, out);
        }
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.modes().map(PoolingMode::name).collect();
        f.write_str(&names.join("+"))
    }
}

/// The modes as they are called in code: identities of vectors depend on it.
impl fmt::Debug for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only() {
            Some(mode) => mode.fmt(f),
            None => f.debug_list().entries(self.modes()).finish(),
        }
    }
}

impl Serialize for Pooling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pooling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let modes = text
            .split('+')
            .map(|name| PoolingMode::of_name(name.trim()));
        let modes: Option<Vec<PoolingMode>> = modes.collect();
        let pooling = modes.and_then(|modes| Self::of_modes(&modes));
        pooling.ok_or_else(|| {
            D::Error::custom(format!(
                "\"{text}\" is no pooling, expected one of {}, or several joined by \"+\"",
                MODES.map(|(_, own, _)| own).join(", ")
            ))
        })
    }
}

/// Sums in f32 row by row, as the reference does; the longest sequence has thousands of rows, not millions.
fn sum(hidden: &[f32], out: &mut [f32], weight: impl Fn(usize) -> f32, divisor: f32) {
    out.fill(0.0);
    for (place, row) in hidden.chunks_exact(out.len()).enumerate() {
        let weight = weight(place);
        for (sum, x) in out.iter_mut().zip(row) {
            *sum += x * weight;
        }
    }
    for sum in out {
        *sum /= divisor;
    }
}

fn max(hidden: &[f32], out: &mut [f32]) {
    out.fill(f32::NEG_INFINITY);
    for row in hidden.chunks_exact(out.len()) {
        for (largest, x) in out.iter_mut().zip(row) {
            // A NaN must reach the caller's check, so it wins over every number.
            if *x > *largest || x.is_nan() {
                *largest = *x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_pooling_gives_its_vector() {
        let hidden = [1.0, -2.0, 3.0, 4.0, 5.0, -5.0];
        let root = 3.0_f32.sqrt();
        let cases = [
            (PoolingMode::Cls, [1.0, -2.0]),
            (PoolingMode::Last, [5.0, -5.0]),
            (PoolingMode::Mean, [3.0, -1.0]),
            (PoolingMode::Max, [5.0, 4.0]),
            (PoolingMode::MeanSqrtLen, [9.0 / root, -3.0 / root]),
            (PoolingMode::WeightedMean, [22.0 / 6.0, -9.0 / 6.0]),
        ];
        for (mode, expected) in cases {
            let mut out = [0.0; 2];
            Pooling::one(mode).pool(&hidden, &mut out);
            assert_eq!(out, expected, "{mode:?}");
        }
        let both = Pooling::of_modes(&[PoolingMode::Last, PoolingMode::Cls]).unwrap();
        let mut out = [0.0; 4];
        both.pool(&hidden, &mut out);
        assert_eq!((out, both.width_of(2)), ([5.0, -5.0, 1.0, -2.0], 4));
        assert_eq!(
            (both.only(), Pooling::CLS.only()),
            (None, Some(PoolingMode::Cls))
        );
    }

    #[test]
    fn a_nan_survives_every_way_that_reads_it() {
        for (mode, ..) in MODES {
            let mut out = [0.0];
            Pooling::one(mode).pool(&[f32::NAN, f32::NAN], &mut out);
            assert!(out[0].is_nan(), "{mode:?}");
        }
    }

    #[test]
    fn names_are_those_of_configurations_and_of_the_reference() {
        let read = |text: &str| serde_json::from_str::<Pooling>(&format!("\"{text}\""));
        assert_eq!(read("cls").unwrap(), Pooling::CLS);
        assert_eq!(read("lasttoken").unwrap(), Pooling::LAST);
        let both = read("max + weightedmean").unwrap();
        assert_eq!(both.to_string(), "max+weighted_mean");
        assert_eq!(
            serde_json::to_string(&both).unwrap(),
            "\"max+weighted_mean\""
        );
        assert_eq!(format!("{:?}", Pooling::MEAN), "Mean");
        let error = read("avg").unwrap_err().to_string();
        assert!(
            error.contains("\"avg\" is no pooling, expected one of cls, max"),
            "{error}"
        );
        assert_eq!(Pooling::of_modes(&[]), None);
        assert_eq!(Pooling::of_modes(&[PoolingMode::Cls; 7]), None);
    }
}
