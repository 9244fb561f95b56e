//! The ways in which an encoder knows the order of tokens: a vector by position, a rotation, a number by distance.

use super::{narrowed, parts::Table};

/// Vectors that are added to those of tokens, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionTable {
    /// The vectors.
    pub table: Table,
    /// The first token's position.
    pub first: u32,
    /// The token that has a position of its own, which is its id, and is not counted; none: all tokens count.
    pub uncounted: Option<u32>,
}

impl PositionTable {
    /// Position ids of one sequence.
    ///
    /// Source: transformers 5.24, `modeling_xlm_roberta.py`, `create_position_ids_from_input_ids`: padding tokens
    /// within a sequence get `padding_idx` and do not count.
    pub fn ids<'a>(&self, tokens: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let uncounted = self.uncounted;
        let mut next = self.first;
        tokens.iter().map(move |&token| {
            if uncounted == Some(token) {
                return token;
            }
            next += 1;
            next - 1
        })
    }

    /// The longest sequence.
    #[must_use]
    pub fn max_sequence_tokens(&self) -> usize {
        self.table.rows.saturating_sub(self.first as usize)
    }
}

/// A rotation of pairs of numbers in queries and keys, by an angle that grows with the position.
///
/// The pair `i` at position `p` turns by `p * frequencies[i]`. Numbers of a head behind the pairs stay as they are.
///
/// Source: Su et al., "RoFormer", 2021.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Radians a position of each pair.
    pub frequencies: Vec<f32>,
    /// The numbers that are a pair.
    pub pairs: RotaryPairs,
}

/// The numbers of a head that are a pair, of `n` pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotaryPairs {
    /// `i` and `i + n`.
    Halves,
    /// `2 i` and `2 i + 1`.
    Neighbours,
}

impl Rotary {
    /// The rotation of the first `dimensions` numbers of a head, with frequencies that fall from 1 to nearly `1 / base`.
    #[must_use]
    pub fn new(base: f64, dimensions: usize) -> Self {
        // Rounded where torch rounds, which holds exponent and power in f32.
        let frequency = |i: usize| {
            let exponent = (2 * i) as f32 / dimensions as f32;
            1.0 / narrowed(base.powf(f64::from(exponent)))
        };
        Self {
            frequencies: (0..dimensions / 2).map(frequency).collect(),
            pairs: RotaryPairs::Halves,
        }
    }

    /// Divides all frequencies.
    #[must_use]
    pub fn slower(mut self, factor: f64) -> Self {
        for frequency in &mut self.frequencies {
            *frequency = narrowed(f64::from(*frequency) / factor);
        }
        self
    }

    /// The cosine and the sine of each pair's angle at a position.
    pub fn angles(&self, position: usize) -> impl Iterator<Item = (f32, f32)> + '_ {
        // As the references do, which multiply in f32.
        let position = position as f32;
        self.frequencies.iter().map(move |frequency| {
            let angle = f64::from(position * frequency);
            (narrowed(angle.cos()), narrowed(angle.sin()))
        })
    }
}

/// A number for each head and each distance of two tokens, which is added to their score.
#[derive(Clone, Debug, PartialEq)]
pub enum DistanceBias {
    /// Learned numbers for ranges of distances, which are wider where they are farther.
    ///
    /// Source: transformers 5.24, `modeling_mpnet.py` and `modeling_t5.py`, `_relative_position_bucket`.
    Buckets {
        /// Shape `(rows, heads)`: half of the rows are for keys before the query, half for those after.
        table: Table,
        /// Distances from here on are one range.
        max_distance: usize,
    },
    /// `-slope * distance`, with a slope for each head.
    ///
    /// Source: Press et al., "Train Short, Test Long" (ALiBi), 2021, in its symmetric form.
    Slopes(Vec<f32>),
}

/// The numbers of a [`DistanceBias`].
#[derive(Clone, Debug, PartialEq)]
pub struct DistanceValues {
    /// The largest distance that has a number of its own: larger ones have the same.
    pub reach: usize,
    /// Shape `(heads, 2 * reach + 1)`: of the key's place minus the query's, from `-reach` to `reach`.
    pub values: Vec<f32>,
}

/// Distances beyond are one: the least slope of any model, 1/256, makes `e^-256` of the weight there.
const MOST_REACH: usize = 1 << 16;

impl DistanceBias {
    /// The slopes of so many heads.
    #[must_use]
    pub fn slopes(n_heads: usize) -> Self {
        let of_power = |n: usize| {
            let first = (-8.0 / n as f64).exp2();
            (1..=n).map(move |i| narrowed(first.powf(i as f64)))
        };
        // The largest power of 2 within; what is left takes every second slope of the next one.
        let power = 1 << n_heads.max(1).ilog2();
        let rest = of_power(2 * power).step_by(2).take(n_heads - power);
        Self::Slopes(of_power(power).chain(rest).collect())
    }

    /// Reads the numbers, for `n_heads` heads and sequences of at most `longest` tokens. `read` gives the tensor of a name
    /// and a shape.
    ///
    /// # Errors
    /// The first that `read` gives.
    pub fn read<E>(
        &self,
        n_heads: usize,
        longest: usize,
        read: impl FnOnce(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<DistanceValues, E> {
        match self {
            Self::Buckets {
                table,
                max_distance,
            } => {
                let learned = read(&table.name, &[table.rows, n_heads])?;
                Ok(DistanceValues::new(n_heads, *max_distance, |head, at| {
                    learned[bucket(at, table.rows, *max_distance) * n_heads + head]
                }))
            }
            // Nothing is left of a score that far away: the rest may have the same number.
            Self::Slopes(slopes) => Ok(DistanceValues::new(
                n_heads,
                longest.min(MOST_REACH),
                |head, at| -slopes[head] * at.unsigned_abs() as f32,
            )),
        }
    }
}

impl DistanceValues {
    fn new(n_heads: usize, reach: usize, of: impl Fn(usize, i64) -> f32) -> Self {
        let reach_signed = i64::try_from(reach).unwrap_or(i64::MAX);
        let distances = -reach_signed..=reach_signed;
        let heads = 0..n_heads;
        let values = heads.flat_map(|head| distances.clone().map(move |at| (head, at)));
        Self {
            reach,
            values: values.map(|(head, at)| of(head, at)).collect(),
        }
    }

    /// The numbers of one head, by the key's place minus the query's plus [`reach`](Self::reach).
    #[must_use]
    pub fn of_head(&self, head: usize) -> &[f32] {
        let n = 2 * self.reach + 1;
        &self.values[head * n..(head + 1) * n]
    }

    /// The number of one head for a query and a key at these places.
    #[must_use]
    pub fn of(&self, head: usize, query: usize, key: usize) -> f32 {
        let at = (key + self.reach).saturating_sub(query).min(2 * self.reach);
        self.of_head(head)[at]
    }
}

/// The range that a distance, the key's place minus the query's, falls into.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "logarithms of distances are small and not negative"
)]
fn bucket(distance: i64, n_buckets: usize, max_distance: usize) -> usize {
    let of_one_side = n_buckets / 2;
    let first = if distance > 0 { of_one_side } else { 0 };
    let distance = usize::try_from(distance.unsigned_abs()).unwrap_or(usize::MAX);
    let exact = of_one_side / 2;
    if distance < exact {
        return first + distance;
    }
    let (ratio, most) = (
        (distance as f32 / exact as f32).ln(),
        (max_distance as f64 / exact as f64).ln(),
    );
    let wider = (ratio / most as f32 * (of_one_side - exact) as f32) as usize;
    first + (exact + wider).min(of_one_side - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_start_where_the_table_says_and_skip_what_is_not_counted() {
        let mut positions = PositionTable {
            table: Table {
                name: "positions".into(),
                rows: 514,
            },
            first: 2,
            uncounted: Some(1),
        };
        assert_eq!(positions.max_sequence_tokens(), 512);
        let ids: Vec<u32> = positions.ids(&[0, 7, 1, 8, 2]).collect();
        assert_eq!(ids, [2, 3, 1, 4, 5]);
        (positions.first, positions.uncounted) = (0, None);
        assert_eq!(positions.ids(&[1, 7, 1]).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn angles_grow_with_the_position() {
        let rotary = Rotary::new(10_000.0, 4);
        assert_eq!(rotary.frequencies, [1.0, 0.01]);
        let (cos, sin) = rotary.angles(3).next().unwrap();
        assert!((cos - 3.0_f32.cos()).abs() < 1e-6 && (sin - 3.0_f32.sin()).abs() < 1e-6);
        assert_eq!(rotary.slower(2.0).frequencies, [0.5, 0.005]);
    }

    /// Source: the function of transformers 5.24 for 32 buckets and a distance of 128.
    #[test]
    fn buckets_are_those_of_the_reference() {
        for (distance, expected) in [
            (0, 0),
            (-1, 1),
            (-7, 7),
            (-8, 8),
            (-11, 8),
            (-12, 9),
            (-127, 15),
            (-5000, 15),
            (1, 17),
            (8, 24),
            (200, 31),
        ] {
            assert_eq!(bucket(distance, 32, 128), expected, "{distance}");
        }
    }

    #[test]
    fn slopes_of_heads_that_are_no_power_of_two_come_from_the_next_one() {
        let DistanceBias::Slopes(slopes) = DistanceBias::slopes(12) else {
            panic!("slopes are slopes");
        };
        assert_eq!(slopes.len(), 12);
        assert!((slopes[0] - 0.5).abs() < 1e-7 && (slopes[7] - 1.0 / 256.0).abs() < 1e-7);
        assert!((slopes[8] - 0.5_f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn a_distance_beyond_the_reach_has_the_number_of_the_last() {
        let bias = DistanceBias::Slopes(vec![1.0, 2.0]);
        let values = bias.read(2, 3, |_, _| Err::<Vec<f32>, ()>(())).unwrap();
        assert_eq!(values.of(1, 0, 2), -4.0);
        assert_eq!(values.of(1, 2, 0), -4.0);
        assert_eq!(values.of(0, 0, 9), -3.0);
        assert_eq!(values.of(0, 9, 0), -3.0);
        assert_eq!(values.of_head(1)[3], 0.0);
    }
}
