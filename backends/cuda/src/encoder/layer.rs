//! The weights of one layer of an encoder.

use std::sync::Arc;

use embedgate_core::EncoderConfig;

use crate::{
    calls::operands::Norm,
    linear::Linear,
    load::{LoadError, Loader, head_layout::HeadLayout},
    products::Products,
};

/// The weights of a layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) qkv: Linear,
    pub(super) out: Linear,
    pub(super) attention_norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) norm: Norm,
}

/// The source of an encoder's layers, one after the other.
pub(super) struct Layers<'a> {
    pub(super) config: &'a EncoderConfig,
    pub(super) loader: &'a Loader<'a>,
    pub(super) heads: HeadLayout,
    /// Kernels of products that nothing follows.
    pub(super) plain: Arc<Products>,
    /// Kernels of products that the activation follows.
    pub(super) activated: Arc<Products>,
}

impl Layers<'_> {
    /// Loads the layer of this number.
    pub(super) fn load(&self, i: usize) -> Result<Layer, LoadError> {
        let Self {
            config,
            loader,
            heads,
            plain,
            activated,
        } = self;
        let (width, ffn) = (config.hidden_size, config.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{i}.{name}");
        Ok(Layer {
            qkv: loader.fused_qkv(i, width, *heads, plain)?,
            out: loader.behind_attention(&at("attention.output.dense"), width, *heads, plain)?,
            attention_norm: loader.norm(&at("attention.output.LayerNorm"), config)?,
            up: loader.linear(&at("intermediate.dense"), [ffn, width], activated)?,
            down: loader.linear(&at("output.dense"), [width, ffn], plain)?,
            norm: loader.norm(&at("output.LayerNorm"), config)?,
        })
    }
}

impl Layer {
    /// Numbers of the widest row between its products.
    pub(super) fn wide(&self) -> usize {
        self.up.outer()
    }

    /// Bytes of its weights.
    pub(super) fn bytes(&self) -> usize {
        let all = [&self.qkv, &self.out, &self.up, &self.down];
        all.into_iter().map(Linear::bytes).sum()
    }
}
