//! The facts of a batch that the host sends to the device before a forward pass.

use std::sync::Arc;

use embedgate_core::{EncoderConfig, TokenBatch};

use crate::{
    calls::{
        operands::{Sequences, Tokens},
        view::View,
    },
    device::{Buffer, Device, Stream},
    error::DriverError,
};

/// Facts of a batch that the host sends to the device: ids, positions and segments of tokens, where sequences begin, and
/// blocks of attention.
#[derive(Debug)]
pub(super) struct Inputs {
    host: Vec<i32>,
    device: Buffer,
    n_tokens: usize,
    n_sequences: usize,
    pub(super) n_blocks: usize,
}

impl Inputs {
    /// Room for batches of so many tokens.
    pub(super) fn new(device: &Arc<Device>, most_tokens: usize) -> Result<Self, DriverError> {
        // Tokens have three numbers; there are no more sequences than tokens, and no more blocks than both.
        let n_inputs = 3 * most_tokens + (most_tokens + 1) + 2 * (most_tokens + most_tokens);
        Ok(Self {
            host: vec![0; n_inputs],
            device: Buffer::new(device, n_inputs * size_of::<i32>())?,
            n_tokens: 0,
            n_sequences: 0,
            n_blocks: 0,
        })
    }

    /// The places of the batch's tokens.
    pub(super) fn tokens(&self) -> Tokens<'_> {
        let n = self.n_tokens;
        Tokens {
            ids: self.at(0),
            positions: self.at(n),
            segments: self.at(2 * n),
            n,
        }
    }

    /// The batch's sequences.
    pub(super) fn sequences(&self) -> Sequences<'_> {
        Sequences {
            offsets: self.at(3 * self.n_tokens),
            n: self.n_sequences,
            n_tokens: self.n_tokens,
        }
    }

    /// The blocks of attention: of each its sequence, and its number there.
    pub(super) fn blocks(&self) -> View<'_> {
        self.at(3 * self.n_tokens + self.n_sequences + 1)
    }

    /// The numbers that are sent, from number `i` on.
    fn at(&self, i: usize) -> View<'_> {
        View::of_words(&self.device, i)
    }

    /// Writes a batch, and sends it. `tile`: queries of a block of attention.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "ids and places are below the sizes of models, which fit"
    )]
    pub(super) fn send(
        &mut self,
        stream: &Stream,
        batch: &TokenBatch,
        config: &EncoderConfig,
        tile: usize,
    ) -> Result<(), DriverError> {
        let n = batch.n_tokens();
        let numbers = self.host.as_mut_slice();
        let (ids, rest) = numbers.split_at_mut(n);
        let (positions, rest) = rest.split_at_mut(n);
        let (segments, rest) = rest.split_at_mut(n);
        let (offsets, blocks) = rest.split_at_mut(batch.len() + 1);
        let put = |to: &mut [i32], from: &mut dyn Iterator<Item = u32>| {
            to.iter_mut().zip(from).for_each(|(to, x)| *to = x as i32);
        };
        put(ids, &mut batch.ids().iter().copied());
        put(segments, &mut batch.type_ids().iter().copied());
        put(
            positions,
            &mut batch.iter().flat_map(|s| config.position_ids(s.ids)),
        );
        put(offsets, &mut batch.offsets().iter().map(|x| *x as u32));
        // The longest first: their blocks take longest.
        let length = |i: usize| batch.offsets()[i + 1] - batch.offsets()[i];
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(length(*i)));
        let of = |i: usize| (0..length(i).div_ceil(tile)).map(move |block| [i, block]);
        let mut n_blocks = 0;
        for (to, pair) in blocks
            .chunks_exact_mut(2)
            .zip(order.into_iter().flat_map(of))
        {
            to.copy_from_slice(&pair.map(|x| x as i32));
            n_blocks += 1;
        }
        (self.n_tokens, self.n_sequences, self.n_blocks) = (n, batch.len(), n_blocks);
        let sent = 3 * n + batch.len() + 1 + 2 * n_blocks;
        stream.upload(&self.host[..sent], &self.device, 0)
    }
}
