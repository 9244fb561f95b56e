//! Token ids of several sequences, back to back.

/// Token ids of several sequences, back to back. `offsets` has `len() + 1` entries and starts at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    offsets: Vec<usize>,
}

/// One sequence of a [`TokenBatch`]: both slices have the same length.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// Token ids, special tokens included.
    pub ids: &'a [u32],
    /// Segment of each token: 0, or 1 for the second text of a pair.
    pub type_ids: &'a [u32],
}

impl TokenBatch {
    /// Makes an empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ids: Vec::new(),
            type_ids: Vec::new(),
            offsets: vec![0],
        }
    }

    /// Adds a sequence of one text, whose segments are all 0.
    pub fn push(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
        self.type_ids.resize(self.ids.len(), 0);
        self.offsets.push(self.ids.len());
    }

    /// Adds a sequence with the segment of each token.
    ///
    /// # Panics
    /// When the two slices differ in length.
    pub fn push_pair(&mut self, ids: &[u32], type_ids: &[u32]) {
        assert_eq!(ids.len(), type_ids.len(), "each token has one segment");
        self.ids.extend_from_slice(ids);
        self.type_ids.extend_from_slice(type_ids);
        self.offsets.push(self.ids.len());
    }

    /// Number of sequences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Returns true when the batch has no sequence.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens of all sequences.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Token ids of all sequences, back to back.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Segments of all tokens, back to back.
    #[must_use]
    pub fn type_ids(&self) -> &[u32] {
        &self.type_ids
    }

    /// Sequence `i` is tokens `offsets()[i]..offsets()[i + 1]`.
    #[must_use]
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The places of the tokens of each sequence among those of the batch.
    pub fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.offsets.windows(2).map(|ends| ends[0]..ends[1])
    }

    /// Sequence `i`.
    ///
    /// # Panics
    /// When `i` is not below [`TokenBatch::len`].
    #[must_use]
    pub fn sequence(&self, i: usize) -> Sequence<'_> {
        let range = self.offsets[i]..self.offsets[i + 1];
        Sequence {
            ids: &self.ids[range.clone()],
            type_ids: &self.type_ids[range],
        }
    }

    /// All sequences in order.
    pub fn iter(&self) -> impl Iterator<Item = Sequence<'_>> {
        (0..self.len()).map(|i| self.sequence(i))
    }
}

impl Default for TokenBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> FromIterator<&'a [u32]> for TokenBatch {
    fn from_iter<T: IntoIterator<Item = &'a [u32]>>(sequences: T) -> Self {
        let mut batch = Self::new();
        for ids in sequences {
            batch.push(ids);
        }
        batch
    }
}
