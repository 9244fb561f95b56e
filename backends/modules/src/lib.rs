//! Runs the modules of sentence-transformers that are no encoders.
//!
//! [`with_modules`] wraps a backend of any library: it gives the same outputs, and its dense vectors go through the modules. They
//! run on the processor, in f32: a text has one vector, which takes a hundredth of the time of its tokens. [`open_static`] runs models
//! that have a vector or a weight for each token and no encoder.

mod chain;
mod static_embedding;

use std::{ops::DerefMut, sync::Arc};

use embedgate_core::{
    Backend, BackendError, BackendInfo, Column, EmbeddingBatch, Head, Matrix, ModelFolder, Outputs,
    Pause, Replicas, TokenBatch,
};

use embedgate_weights::Weights;

use self::chain::Chain;
pub use self::static_embedding::open_static;

/// Puts the modules of a folder behind a backend; behind one whose model's file pools itself, and so applies modules, what the folder
/// says of the outcome alone. Of sparse vectors as many weights are kept as the folder says. A backend stays as it is where the folder
/// says nothing for what it gives.
///
/// # Errors
/// [`BackendError::Load`] names the file and what is wrong with it.
pub fn with_modules(
    backend: Box<dyn Backend>,
    folder: &ModelFolder,
) -> Result<Box<dyn Backend>, BackendError> {
    let info = backend.info();
    if info.is_pooled_by_model && !folder.routes.is_empty() {
        let message = "the model's file pools, and so it is of one route of the folder's Router, and does not say of which: take a file that \
                       gives token vectors";
        return Err(BackendError::Load(message.into()));
    }
    let modules = match (info.outputs.has(Head::Dense), info.is_pooled_by_model) {
        (false, _) => &[],
        (true, true) => folder.truncation(),
        (true, false) => &*folder.vector_modules,
    };
    let max_weights = folder.max_active_dims.filter(|_| folder.is_sparse_alone());
    if modules.is_empty() && max_weights.is_none() {
        return Ok(backend);
    }
    let mut chain = Chain::load(modules, info.dimensions)?;
    chain.max_weights = max_weights;
    Ok(Box::new(Wrapped::new(backend, Arc::new(chain))))
}

/// Opens the weights of the modules of a folder, but reads none.
///
/// # Errors
/// [`BackendError::Load`] names the file and what is wrong with it.
pub fn inspect(folder: &ModelFolder) -> Result<(), BackendError> {
    let mut opened = folder.vector_modules.iter().try_for_each(chain::inspect);
    if let Some(embedding) = &folder.static_embedding {
        let table = Weights::open(&embedding.folder, embedding.values.name());
        opened = opened.and(table.map(drop));
    }
    opened.map_err(|e| BackendError::Load(e.to_string()))
}

/// A backend, owned or lent, with modules behind it.
struct Wrapped<B> {
    inner: B,
    chain: Arc<Chain>,
    info: BackendInfo,
}

impl<'a, B: DerefMut<Target = dyn Backend + 'a>> Wrapped<B> {
    fn new(inner: B, chain: Arc<Chain>) -> Self {
        let info = BackendInfo {
            dimensions: chain.dimensions(),
            ..inner.info().clone()
        };
        Self { inner, chain, info }
    }
}

impl<'a, B: DerefMut<Target = dyn Backend + 'a> + Send> Backend for Wrapped<B> {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<EmbeddingBatch, BackendError> {
        let results = self.inner.embed(batch, outputs)?;
        Ok(through(&self.chain, results))
    }

    fn can_pause(&self) -> bool {
        self.inner.can_pause()
    }

    fn embed_with_pauses(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
        pause: &mut Pause<'_>,
    ) -> Result<EmbeddingBatch, BackendError> {
        let chain = Arc::clone(&self.chain);
        let mut pause = move |other: &mut dyn Backend| {
            let mut other = Wrapped::new(other, Arc::clone(&chain));
            pause(&mut other)
        };
        let results = self.inner.embed_with_pauses(batch, outputs, &mut pause)?;
        Ok(through(&self.chain, results))
    }

    fn replicas(&self) -> Option<Replicas> {
        let (inner, chain) = (self.inner.replicas()?, Arc::clone(&self.chain));
        Some(Arc::new(move || {
            let wrapped = Wrapped::new(inner()?, Arc::clone(&chain));
            Ok(Box::new(wrapped) as Box<dyn Backend>)
        }))
    }
}

/// Takes the vectors of results through the modules.
fn through(chain: &Chain, mut results: EmbeddingBatch) -> EmbeddingBatch {
    if let Some(vectors) = results.vectors(Head::Dense) {
        let mut made = Matrix::zeros(vectors.rows(), chain.dimensions());
        for i in 0..vectors.rows() {
            made.row_mut(i).copy_from_slice(&chain.run(vectors.row(i)));
        }
        results.columns.set(Head::Dense, Column::Vectors(made));
    }
    if let (Some(n), Some(Column::Weights(all))) =
        (chain.max_weights, results.columns.get_mut(Head::Sparse))
    {
        all.iter_mut().for_each(|weights| weights.keep_largest(n));
    }
    results
}
