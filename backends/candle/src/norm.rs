//! Normalizations, of rows and around the parts of a layer.

use candle_core::{Result, Tensor};
use embedgate_core::encoder::{NormKind, Norms};
use embedgate_weights::WeightsError;

use crate::{load::Loader, rows::Rows};

/// The weights of a normalization of rows.
pub(crate) struct Norm {
    pub(crate) kind: NormKind,
    pub(crate) eps: f32,
    /// Rows: what is added to a row first, then weight and bias of the normalization.
    pub(crate) parameters: Tensor,
    pub(crate) rows: Rows,
}

impl Norm {
    /// `norm(x + bias)`, as a tensor of its own.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.rows.norm(x, self)
    }
}

/// The normalizations around attention or a feed-forward layer, with the bias of its last linear layer.
pub(crate) enum Around {
    /// `norm(f(x) + bias + x)`.
    After(Norm),
    /// `then(first(f(x) + bias + x) + x)`.
    Twice { first: Norm, then: Norm },
    /// `after(f(before(x)) + bias) + x`.
    Before {
        before: Option<Norm>,
        after: Option<Norm>,
        bias: Tensor,
        rows: Rows,
    },
}

impl Around {
    /// Loads the normalizations around what ends with a linear layer of this bias.
    pub(crate) fn load(
        norms: &Norms,
        (bias, rows): (&Tensor, Rows),
        loader: Loader<'_>,
    ) -> std::result::Result<Self, WeightsError> {
        let norm = |norm: &Option<_>| {
            norm.as_ref()
                .map(|norm| loader.norm(norm, None))
                .transpose()
        };
        Ok(match norms {
            Norms::After(norm) => Self::After(loader.norm(norm, Some(bias))?),
            Norms::Twice { first, then } => Self::Twice {
                first: loader.norm(first, Some(bias))?,
                then: loader.norm(then, None)?,
            },
            Norms::Before { before, after } => Self::Before {
                before: norm(before)?,
                after: norm(after)?,
                bias: bias.clone(),
                rows,
            },
        })
    }

    /// Runs `f`, which gives the product of its last linear layer without the bias.
    pub(crate) fn run(
        &self,
        x: &Tensor,
        f: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        match self {
            Self::After(norm) => norm.rows.add_norm(f(x)?, x, norm),
            Self::Twice { first, then } => {
                let given = first.rows.add_norm(f(x)?, x, first)?;
                then.apply(&then.rows.add(given, x)?)
            }
            Self::Before {
                before,
                after,
                bias,
                rows,
            } => {
                let given = match before {
                    Some(norm) => f(&norm.apply(x)?)?,
                    None => f(x)?,
                };
                let given = rows.add_bias(given, bias)?;
                let given = match after {
                    Some(norm) => norm.apply(&given)?,
                    None => given,
                };
                rows.add(given, x)
            }
        }
    }
}
