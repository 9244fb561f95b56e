//! The modules that sentence-transformers puts behind the pooling, as a folder describes them.

use std::path::PathBuf;

use crate::encoder::{Activation, Linear, Norm};

/// A module that makes a vector of a vector.
#[derive(Clone, Debug, PartialEq)]
pub enum VectorModule {
    /// A linear layer with an activation.
    Dense(DenseModule),
    /// A layer normalization.
    Norm {
        /// The folder of its weights.
        folder: PathBuf,
        /// The normalization.
        norm: Norm,
    },
    /// The length becomes 1.
    Normalize,
    /// Numbers behind so many are left out.
    Truncate(usize),
}

/// `activation(linear(x))`, or with `x` added to it.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseModule {
    /// The folder of its weights.
    pub folder: PathBuf,
    /// The layer.
    pub linear: Linear,
    /// The activation; none where there is none.
    pub activation: Option<Activation>,
    /// True where what the layer reads is added to what it gives.
    pub has_residual: bool,
    /// Brings what is added to the width of what the layer gives.
    pub residual: Option<Linear>,
}

impl VectorModule {
    /// Width of the vector that it gives for one of this width.
    ///
    /// # Errors
    /// The width that it reads, when it is another.
    pub fn width_of(&self, width: usize) -> Result<usize, usize> {
        let (reads, gives) = match self {
            Self::Dense(dense) => (dense.linear.inner, dense.linear.outer()),
            Self::Norm { norm, .. } => (norm.width, norm.width),
            Self::Normalize => (width, width),
            Self::Truncate(n) => (width, width.min(*n)),
        };
        if reads == width {
            Ok(gives)
        } else {
            Err(reads)
        }
    }

    /// The folder of its weights; none where it has none.
    #[must_use]
    pub fn folder(&self) -> Option<&PathBuf> {
        match self {
            Self::Dense(dense) => Some(&dense.folder),
            Self::Norm { folder, .. } => Some(folder),
            Self::Normalize | Self::Truncate(_) => None,
        }
    }
}
