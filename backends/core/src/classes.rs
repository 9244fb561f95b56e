//! Groups sequences of like length, for backends that pad.

/// A sequence joins a class when it has at least this share of the tokens of the class's longest: at 0.85 the padding
/// of a class is below 15 % in the worst case and about half of that on average.
const MIN_SHARE: f32 = 0.85;
/// Sequences within so many tokens of the longest join it anyway: tiny ones are cheaper padded than run apart.
const MIN_SLACK: usize = 4;

/// Splits sequences of the given lengths into classes of like length.
///
/// Returns indices into `lengths`, each exactly once; the classes go from long to short.
#[must_use]
pub fn length_classes(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match classes.last_mut() {
            Some(class) if joins(lengths[class[0]], lengths[i]) => class.push(i),
            _ => classes.push(vec![i]),
        }
    }
    classes
}

fn joins(longest: usize, length: usize) -> bool {
    length + MIN_SLACK >= longest || length as f32 >= longest as f32 * MIN_SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_lengths_share_a_class_and_nothing_is_lost() {
        let classes = length_classes(&[3, 100, 512, 98, 5, 500, 60]);
        assert_eq!(classes, [vec![2, 5], vec![1, 3], vec![6], vec![4, 0]]);
    }

    #[test]
    fn nothing_makes_no_class() {
        assert!(length_classes(&[]).is_empty());
    }
}
