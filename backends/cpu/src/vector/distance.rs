//! Numbers that are added to scores by the distance of their tokens, and scores of tokens that are not seen.

use std::ops::Range;

use embedgate_core::math::vectorized;

/// The score of a token that is not seen: of a power of 2 nothing is left of it beside any other score.
pub(crate) const UNSEEN: f32 = -1e30;

/// Adds a number by distance to a row of scores, and takes those out that are not seen.
///
/// `row` has the scores of `query` with the keys from `first` on. `distances` are the numbers of the key's place minus the
/// query's, an odd number of them around 0, and empty where nothing is added.
pub(crate) fn add_distances(
    row: &mut [f32],
    (query, first): (usize, usize),
    seen: &Range<usize>,
    distances: &[f32],
) {
    let n = row.len();
    let from = seen.start.clamp(first, first + n) - first;
    let to = seen.end.clamp(first, first + n) - first;
    row[..from].fill(UNSEEN);
    row[to.max(from)..].fill(UNSEEN);
    let (Some(least), Some(most)) = (distances.first(), distances.last()) else {
        return;
    };
    let reach = distances.len() / 2;
    // The keys whose distance has a number of its own: from `reach` before the query to `reach` after it.
    let near = (query.saturating_sub(reach).max(first) - first).clamp(from, to.max(from));
    let far = (query + reach + 1).max(first) - first;
    let far = far.clamp(near, to.max(near));
    let skipped = (first + near + reach).saturating_sub(query);
    vectorized(
        #[inline(always)]
        |_| {
            row[from..near].iter_mut().for_each(|x| *x += least);
            for (x, distance) in row[near..far]
                .iter_mut()
                .zip(&distances[skipped.min(distances.len())..])
            {
                *x += distance;
            }
            row[far..to.max(far)].iter_mut().for_each(|x| *x += most);
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_gets_the_number_of_its_distance_or_is_not_seen() {
        let distances: Vec<f32> = (-3..=3).map(|distance| distance as f32 * 10.0).collect();
        for n_keys in [1, 5, 8] {
            for (query, first) in
                (0_usize..20).flat_map(|query| (0..20).map(move |first| (query, first)))
            {
                for seen in [0..40, 3..9, query.saturating_sub(2)..query + 1] {
                    let mut row = vec![1.0; n_keys];
                    add_distances(&mut row, (query, first), &seen, &distances);
                    let mut without = vec![1.0; n_keys];
                    add_distances(&mut without, (query, first), &seen, &[]);
                    for (i, (x, without)) in row.iter().zip(without).enumerate() {
                        let key = first + i;
                        let distance = (key as f32 - query as f32).clamp(-3.0, 3.0);
                        let expected = if seen.contains(&key) {
                            1.0 + 10.0 * distance
                        } else {
                            UNSEEN
                        };
                        assert_eq!(*x, expected, "{query} {key} {seen:?}");
                        assert_eq!(without == UNSEEN, expected == UNSEEN);
                    }
                }
            }
        }
    }
}
