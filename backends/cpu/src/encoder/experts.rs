//! A mixture of experts: each token goes through some of many feed-forward layers.

use embedgate_core::encoder::{self, EncoderConfig};

use crate::{
    buffers::{Activations, rounding::Rounding},
    linear::{Linear, Operand, ROW_STEP, Target},
    load::{LoadError, Loader},
    memory::{at_least, resize},
    onednn::{Format, OneDnnError},
    precision::operands,
};

/// The weights of a mixture of experts.
pub(super) struct Experts {
    source: encoder::Experts,
    router: Linear,
    /// The first and the second layer of each.
    layers: Vec<[Linear; 2]>,
    bias: Vec<f32>,
}

/// Memory for the rows that go through experts.
#[derive(Default)]
pub(super) struct Gathered {
    logits: Vec<f32>,
    rows: Vec<f32>,
    made: Vec<f32>,
}

impl Experts {
    /// Loads the experts of a layer; none where it has none.
    pub(super) fn load(
        config: &EncoderConfig,
        layer: &encoder::Layer,
        loader: &Loader<'_>,
    ) -> Result<Option<Self>, LoadError> {
        let Some(source) = &layer.experts else {
            return Ok(None);
        };
        let read = |name: &str, shape: &[usize]| loader.numbers(name, shape);
        let values = source.read([&layer.up, &layer.down], read)?;
        let activation = Some(config.feed_forward.activation);
        let between = operands(loader.activations);
        let layers = values.layers.iter().map(|[up, down]| {
            Ok([
                loader.packed(up, activation, between)?,
                loader.packed(down, None, Format::F32)?,
            ])
        });
        Ok(Some(Self {
            router: loader.exact(&source.router)?,
            layers: layers.collect::<Result<_, LoadError>>()?,
            bias: values.bias,
            source: source.clone(),
        }))
    }

    /// Returns the size of the weights, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let layers = self.layers.iter().flatten();
        layers.map(Linear::bytes).sum::<usize>() + self.router.bytes()
    }

    /// Adds what the experts make of the rows to these, which are a multiple of [`ROW_STEP`].
    pub(super) fn add(
        &self,
        x: &mut [f32],
        (rounding, wide): (&mut Rounding, &mut Activations),
        gathered: &mut Gathered,
    ) -> Result<(), OneDnnError> {
        let width = self.bias.len();
        let (n_rows, n_experts) = (x.len() / width, self.layers.len());
        let Gathered { logits, rows, made } = gathered;
        let logits = at_least(logits, n_rows * n_experts);
        self.router.forward(Operand::F32(x), Target::F32(logits))?;
        let mut of_experts = vec![Vec::new(); n_experts];
        for (row, logits) in logits.chunks_exact(n_experts).enumerate() {
            for (expert, counts) in self.source.chosen(logits) {
                of_experts[expert].push((row, counts));
            }
        }
        let mut sum = vec![0.0; x.len()];
        for ([up, down], chosen) in self.layers.iter().zip(&of_experts) {
            if chosen.is_empty() {
                continue;
            }
            let n = chosen.len().next_multiple_of(ROW_STEP);
            rows.clear();
            for (row, _) in chosen {
                rows.extend_from_slice(&x[row * width..(row + 1) * width]);
            }
            resize(rows, n * width);
            let read = rounding.normalized(None, rows, width);
            up.forward(read, wide.target(0..n))?;
            let made = at_least(made, n * width);
            down.forward(rounding.operand(wide, 0..n), Target::F32(made))?;
            for ((row, counts), made) in chosen.iter().zip(made.chunks_exact(width)) {
                let sum = &mut sum[row * width..(row + 1) * width];
                sum.iter_mut()
                    .zip(made)
                    .for_each(|(sum, x)| *sum += counts * x);
            }
        }
        for (x, sum) in x.chunks_exact_mut(width).zip(sum.chunks_exact(width)) {
            let terms = sum.iter().zip(&self.bias);
            x.iter_mut()
                .zip(terms)
                .for_each(|(x, (sum, bias))| *x += sum + bias);
        }
        Ok(())
    }
}
