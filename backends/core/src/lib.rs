//! The contract of an embedgate backend: token ids in, rows out.
//!
//! A backend is a model loaded on one device. It is owned by one worker thread, sees [`TokenBatch`]es and answers with
//! [`EmbeddingBatch`]es. It never sees text, HTTP, async code, files outside its model folder, or who asked.
//!
//! The modules in reading order: [`backend`] is the trait, [`batch`] what goes in, [`head`] the kinds of results,
//! [`output`] what comes out; [`folder`] reads what a model folder says of its model, [`encoder`] what its `config.json` says of the architecture;
//! [`pooling`], [`classes`] and [`math`] are arithmetic that backends share, [`library`] finds what is loaded at run time, [`machine`] tells of cores and memory;
//! [`conformance`] is the test that each must pass.

pub mod allocator;
pub mod backend;
pub mod batch;
pub mod classes;
pub mod conformance;
pub mod encoder;
pub mod error;
pub mod folder;
pub mod head;
mod impostor;
pub mod library;
pub mod machine;
pub mod math;
mod matrix;
mod other_formats;
pub mod output;
pub mod pooling;
pub mod row;
mod sparse;
pub mod splade;
pub mod vector_module;

pub use backend::{Backend, BackendInfo, Layout, Pause, Precision, Replicas};
pub use batch::TokenBatch;
pub use encoder::EncoderConfig;
pub use error::BackendError;
pub use folder::{
    AddedToken, ChatTemplate, FolderError, ModelFolder, StaticEmbedding, StaticValues,
    TokenizerScheme, TokenizerSettings, Variant, is_model_folder,
};
pub use head::{Head, HeadForm, HeadNames, Outputs, PerHead, TokenSelection};
pub use impostor::impostor;
pub use matrix::Matrix;
pub use other_formats::other_format;
pub use output::{Column, EmbeddingBatch};
pub use pooling::{Pooling, PoolingMode};
pub use row::{HeadValue, Row};
pub use sparse::SparseVector;
