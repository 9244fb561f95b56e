//! One layer of an encoder: its weights, and all that it does beside attention.

use std::ops::Range;

use embedgate_core::EncoderConfig;

use super::workspace::Workspace;
use crate::{
    linear::{Linear, Target},
    load::{LoadError, Loader},
    onednn::{Format, OneDnnError},
    precision::operands,
    vector::Norm,
};

/// The weights of a layer.
pub(super) struct Layer {
    pub(super) qkv: Linear,
    out: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

impl Layer {
    /// Loads the layer of this number.
    pub(super) fn load(
        config: &EncoderConfig,
        loader: &Loader<'_>,
        i: usize,
    ) -> Result<Self, LoadError> {
        let (width, ffn) = (config.hidden_size, config.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{i}.{name}");
        let out = at("attention.output.dense");
        let (up, activation) = (at("intermediate.dense"), Some(config.activation));
        Ok(Self {
            qkv: loader.fused_qkv(config, i)?,
            out: loader.linear(&out, [width, width], None, Format::F32)?,
            attention_norm: loader.norm(&at("attention.output.LayerNorm"), config)?,
            up: loader.linear(&up, [ffn, width], activation, operands(loader.activations))?,
            down: loader.linear(&at("output.dense"), [width, ffn], None, Format::F32)?,
            norm: loader.norm(&at("output.LayerNorm"), config)?,
        })
    }

    /// Returns the size of the weights, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let all = [&self.qkv, &self.out, &self.up, &self.down];
        all.into_iter().map(Linear::bytes).sum()
    }

    /// Computes the part of the layer after attention, for the rows of one step; then the next layer's queries, keys
    /// and values of these rows.
    pub(super) fn finish(
        &self,
        next: Option<&Self>,
        step: Range<usize>,
        workspace: &mut Workspace,
    ) -> Result<(), OneDnnError> {
        let Workspace {
            x,
            qkv,
            contexts,
            wide,
            rounding,
            ..
        } = workspace;
        let (width, rows) = (self.norm.width(), 0..step.len());
        let x = &mut x[step.start * width..step.end * width];
        let contexts = rounding.operand(contexts, step.clone());
        self.out.forward(contexts, Target::Sum(x))?;
        let normalized = rounding.normalize(&self.attention_norm, x);
        self.up.forward(normalized, wide.target(rows.clone()))?;
        let wide = rounding.operand(wide, rows);
        self.down.forward(wide, Target::Sum(x))?;
        let normalized = rounding.normalize(&self.norm, x);
        if let Some(next) = next {
            next.qkv.forward(normalized, qkv.target(step))?;
        }
        Ok(())
    }
}
