//! The estimate of a model's memory, by its sizes.

use embedgate_core::{EncoderConfig, Precision};

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Estimate {
    /// Weights, packed, of all replicas.
    pub(crate) weights: u64,
    /// Bytes that one forward pass of the longest input writes, in all replicas at once.
    pub(crate) working: u64,
}

impl Estimate {
    /// All bytes together.
    pub(crate) fn total(self) -> u64 {
        self.weights.saturating_add(self.working)
    }

    /// The weights of replicas that share nothing: with ONNX Runtime they may share, which is not counted on. What a forward
    /// pass takes in candle is candle's to know: it is left out.
    pub(crate) fn of_separate_replicas(needs: &Needs<'_>) -> Self {
        let of_one = needs.weights(4, bytes(needs.precision));
        Self {
            weights: of_one.saturating_mul(needs.replicas as u64),
            working: 0,
        }
    }
}

/// The sizes on which a model's memory depends.
#[derive(Clone, Copy)]
pub(crate) struct Needs<'a> {
    /// The sizes of its layers.
    pub(crate) encoder: &'a EncoderConfig,
    /// Tokens of its longest batch.
    #[cfg_attr(
        not(feature = "cpu"),
        expect(dead_code, reason = "only the cpu backend knows what a batch takes")
    )]
    pub(crate) tokens: usize,
    /// Replicas.
    pub(crate) replicas: usize,
    /// The number format of its products.
    pub(crate) precision: Precision,
}

impl Needs<'_> {
    /// Returns the bytes of one model's weights: `of_tables` bytes a number of its tables, `of_layers` bytes a number of its layers.
    pub(crate) fn weights(&self, of_tables: usize, of_layers: usize) -> u64 {
        let encoder = self.encoder;
        let layers = product(&[encoder.product_weights(), of_layers]);
        product(&[encoder.table_numbers(), of_tables]).saturating_add(layers)
    }
}

/// Multiplies numbers of a config file, which nothing bounds: what is too large for 64 bits is too large for any machine.
pub(crate) fn product(factors: &[usize]) -> u64 {
    let factors = factors.iter().map(|factor| *factor as u64);
    factors.fold(1, u64::saturating_mul)
}

/// Returns the bytes of one number.
pub(crate) fn bytes(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::F16 | Precision::Bf16 => 2,
        Precision::Int8 => 1,
    }
}
