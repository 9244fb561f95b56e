//! A model on a device: its weights, which any number of backends share.

use std::sync::Arc;

use embedgate_core::{BackendInfo, ModelFolder};
use embedgate_weights::Weights;

use crate::{
    Options,
    device::{Device, Stream},
    encoder::Encoder,
    heads::Heads,
    kernels::Kernels,
    library::Library,
    load::{LoadError, Loader},
    selftest::Extent,
};

/// A model's weights on a device and what is known of it, which any number of backends share.
pub(crate) struct Model {
    pub(crate) device: Arc<Device>,
    pub(crate) info: BackendInfo,
    pub(crate) max_batch_tokens: usize,
    pub(crate) encoder: Encoder,
    pub(crate) heads: Heads,
}

impl Model {
    /// Loads the encoder and its heads onto the device of this number.
    pub(crate) fn load(
        folder: &ModelFolder,
        device: &Arc<Device>,
        number: usize,
        options: Options,
    ) -> Result<Self, LoadError> {
        let described = folder.check_description();
        described.map_err(|e| LoadError::Unfit(e.to_string()))?;
        let weights = Weights::of_encoder(folder)?;
        let (library, stream) = (Library::read(), Stream::new(device)?);
        let kernels = Kernels::new(&library, &stream, options.format, Extent::Quick);
        let loader = Loader::new(&weights, &kernels, options.timed_rows);
        let encoder = Encoder::load(&folder.encoder, &loader)?;
        let longest = options
            .max_sequence_tokens
            .min(folder.encoder.max_sequence_tokens);
        if i32::try_from(longest.saturating_mul(encoder.widest())).is_err() {
            let message = format!(
                "sequences of {longest} tokens are longer than the cuda backend takes: set max_length"
            );
            return Err(LoadError::Unfit(message));
        }
        let (format, pooling) = (options.format, options.pooling);
        let max_batch_tokens = options.max_batch_tokens;
        let heads = Heads::load(folder, &encoder, &loader, options)?;
        let outputs = heads.outputs();
        let info = BackendInfo {
            device: format!("cuda:{number}"),
            precision: format.into(),
            ..BackendInfo::of_encoder("cuda", &folder.encoder, (outputs, pooling), longest)
        };
        Ok(Self {
            device: Arc::clone(device),
            info,
            max_batch_tokens,
            encoder,
            heads,
        })
    }
}
