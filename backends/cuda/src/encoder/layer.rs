//! The weights of one layer of an encoder.

use std::sync::Arc;

use embedgate_core::encoder::BertLayer;

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
    pub(super) loader: &'a Loader<'a>,
    pub(super) heads: HeadLayout,
    /// Kernels of products that nothing follows.
    pub(super) plain: Arc<Products>,
    /// Kernels of products that the activation follows.
    pub(super) activated: Arc<Products>,
}

impl Layers<'_> {
    /// Loads a layer.
    pub(super) fn load(&self, layer: &BertLayer<'_>) -> Result<Layer, LoadError> {
        let Self {
            loader,
            heads,
            plain,
            activated,
        } = self;
        let (out, up, down) = (layer.out, layer.up, layer.down);
        Ok(Layer {
            qkv: loader.fused_qkv(layer.qkv, *heads, plain)?,
            out: loader.behind_attention(out.name(), out.outer(), *heads, plain)?,
            attention_norm: loader.norm(layer.attention_norm)?,
            up: loader.linear(up.name(), [up.outer(), up.inner], activated)?,
            down: loader.linear(down.name(), [down.outer(), down.inner], plain)?,
            norm: loader.norm(layer.norm)?,
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
