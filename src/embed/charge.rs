//! The tokens that a caller under a limit pays for.

use embedgate_request::{Allowance, Error, ErrorKind, RequestContext};

/// Tokens that a caller under a limit has paid for in advance, by an estimate: whoever leaves early has paid, too.
pub(super) struct Charge<'a> {
    allowance: Option<&'a Allowance>,
    paid: i64,
}

impl<'a> Charge<'a> {
    /// Charges what a request will use, about.
    ///
    /// # Errors
    /// `Overloaded` where nothing is left; of a request that goes on, all is charged.
    pub(super) fn estimated(
        ctx: &'a RequestContext,
        estimate: impl FnOnce() -> usize,
    ) -> Result<Self, Error> {
        let allowance = ctx
            .principal
            .identity()
            .and_then(|identity| identity.allowance.as_deref());
        let mut paid = 0;
        if let Some(allowance) = allowance {
            paid = estimate().try_into().unwrap_or(i64::MAX);
            if ctx.begun.charge() {
                allowance.charge_tokens(paid);
            } else {
                allowance.begin_tokens(paid)?;
            }
        }
        Ok(Self { allowance, paid })
    }

    /// Gives it back to who was turned away; an input that made work and failed is paid.
    pub(super) fn fail(self, error: &Error) {
        if matches!(error.kind, ErrorKind::Overloaded | ErrorKind::Unavailable) {
            self.settle(0);
        }
    }

    /// Makes what was paid what was used.
    pub(super) fn settle(self, n_tokens: usize) {
        if let Some(allowance) = self.allowance {
            let used = i64::try_from(n_tokens).unwrap_or(i64::MAX);
            allowance.charge_tokens(used - self.paid);
        }
    }
}
