//! Low-rank adapters (LoRA) that lie beside the weights they change: a weight is read with what the adapter adds to it.
//!
//! Source: jina's `modeling_lora.py` of xlm-roberta-flash-implementation; the names are those of torch's `parametrize`.

/// The end of a weight's name.
const WEIGHT: &str = ".weight";
/// The end in its place where adapters may change the weight.
const ORIGINAL: &str = ".parametrizations.weight.original";
/// The ends of the names of the factors beside it. Each holds the matrices of all adapters, one after the other.
const FACTORS: [&str; 2] = [
    ".parametrizations.weight.0.lora_A",
    ".parametrizations.weight.0.lora_B",
];

/// The adapter that is applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adapter {
    /// Its place among the adapters of a file.
    pub(crate) place: usize,
    /// The number of adapters.
    pub(crate) n: usize,
    /// The factor of what it adds.
    pub(crate) scale: f32,
}

/// The product of two matrices that an adapter adds to a weight of shape `(rows, width)`.
pub(crate) struct Change {
    /// Shape `(rows, rank)`, row-major.
    left: Vec<f32>,
    /// Shape `(rank, width)`, row-major.
    right: Vec<f32>,
    rank: usize,
    width: usize,
    scale: f32,
}

/// The name of a weight where adapters may change it.
pub(crate) fn original(name: &str) -> Option<String> {
    Some(format!("{}{ORIGINAL}", name.strip_suffix(WEIGHT)?))
}

/// The names of the two factors beside a tensor of this name; none where it is no weight that adapters may change.
pub(crate) fn factors(full: &str) -> Option<[String; 2]> {
    let stem = full.strip_suffix(ORIGINAL)?;
    Some(FACTORS.map(|end| format!("{stem}{end}")))
}

/// A tensor's shape and its numbers.
pub(crate) type Tensor = (Vec<usize>, Vec<f32>);

impl Adapter {
    /// Makes the change of a weight of shape `(rows, width)` from the two factors of all adapters; none where their shapes do not fit.
    pub(crate) fn change(self, factors: [Tensor; 2], [rows, width]: [usize; 2]) -> Option<Change> {
        let is_product = |left: &Tensor, right: &Tensor| {
            let (&[of_left, r, rank], &[of_right, inner, w]) = (&left.0[..], &right.0[..]) else {
                return false;
            };
            let all_there = of_left == self.n && of_right == self.n;
            all_there && rank > 0 && rank == inner && r == rows && w == width
        };
        // Of a linear layer the second is the left one; of a table of vectors the first is.
        let [a, b] = factors;
        let (left, right) = match (is_product(&b, &a), is_product(&a, &b)) {
            (true, _) => (b, a),
            (false, true) => (a, b),
            (false, false) => return None,
        };
        let own = |(shape, values): Tensor| {
            let size = shape[1] * shape[2];
            let first = self.place.checked_mul(size)?;
            values.get(first..first + size).map(<[f32]>::to_vec)
        };
        let rank = left.0[2];
        Some(Change {
            left: own(left)?,
            right: own(right)?,
            rank,
            width,
            scale: self.scale,
        })
    }
}

impl Change {
    /// Adds it to rows of the weight, from row `first` on.
    pub(crate) fn add_to(&self, first: usize, rows: &mut [f32]) {
        let mut sum = vec![0.0; self.width];
        let of_rows = self.left.chunks_exact(self.rank).skip(first);
        for (row, factors) in rows.chunks_exact_mut(self.width).zip(of_rows) {
            sum.fill(0.0);
            for (factor, right) in factors.iter().zip(self.right.chunks_exact(self.width)) {
                sum.iter_mut()
                    .zip(right)
                    .for_each(|(sum, x)| *sum += factor * x);
            }
            row.iter_mut()
                .zip(&sum)
                .for_each(|(x, sum)| *x += sum * self.scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_and_a_table_have_their_factors_the_other_way_round() {
        let adapter = Adapter {
            place: 1,
            n: 2,
            scale: 0.5,
        };
        // Of two adapters, of rank 1: (2, 1, 3) and (2, 2, 1).
        let wide = (vec![2, 1, 3], vec![9.0, 9.0, 9.0, 1.0, 2.0, 3.0]);
        let tall = (vec![2, 2, 1], vec![9.0, 9.0, 10.0, 20.0]);
        for factors in [[wide.clone(), tall.clone()], [tall.clone(), wide.clone()]] {
            let change = adapter.change(factors, [2, 3]).unwrap();
            let mut rows = vec![1.0; 6];
            change.add_to(0, &mut rows);
            assert_eq!(rows, [6.0, 11.0, 16.0, 11.0, 21.0, 31.0]);
            let mut last = vec![1.0; 3];
            change.add_to(1, &mut last);
            assert_eq!(last, rows[3..]);
        }
        assert!(
            adapter
                .change([wide.clone(), tall.clone()], [3, 2])
                .is_none()
        );
        let of_three = Adapter { n: 3, ..adapter };
        assert!(of_three.change([wide, tall], [2, 3]).is_none());
        let nothing = [(vec![2, 0, 3], Vec::new()), (vec![2, 2, 0], Vec::new())];
        assert!(adapter.change(nothing, [2, 3]).is_none());
    }

    #[test]
    fn names_are_those_of_torch() {
        let full = original("layer.weight").unwrap();
        assert_eq!(full, "layer.parametrizations.weight.original");
        let [a, _] = factors(&full).unwrap();
        assert_eq!(a, "layer.parametrizations.weight.0.lora_A");
        assert!(original("layer.bias").is_none() && factors("layer.weight").is_none());
    }
}
