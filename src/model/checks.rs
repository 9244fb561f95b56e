//! Checks of a request against what a model gives.

use embedgate_config::DimensionsPolicy;
use embedgate_core::Outputs;
use embedgate_request::Error;

use super::Model;

impl Model {
    /// Checks what is asked for against what the model gives.
    ///
    /// # Errors
    /// `InvalidRequest` that says what it gives.
    pub(crate) fn check_outputs(&self, outputs: Outputs) -> Result<(), Error> {
        if self.info.outputs.contains(outputs) {
            return Ok(());
        }
        let message = format!(
            "model \"{}\" gives {}, not {outputs}",
            self.name, self.info.outputs
        );
        Err(Error::invalid("outputs", message))
    }

    /// Checks the request's `dimensions` against the model and its configuration.
    ///
    /// # Errors
    /// `InvalidRequest` that says what is allowed.
    pub(crate) fn check_dimensions(&self, dimensions: Option<usize>) -> Result<(), Error> {
        let own = self.info.dimensions;
        match dimensions {
            Some(n) if n > own => {
                let message = format!(
                    "dimensions must be at most {own} for model \"{}\", got {n}",
                    self.name
                );
                Err(Error::invalid("dimensions", message))
            }
            Some(n) if n < own && self.config.dimensions == DimensionsPolicy::Refuse => {
                let message = format!(
                    "dimensions must be {own} for model \"{}\", got {n}: its config refuses cutting",
                    self.name
                );
                Err(Error::invalid("dimensions", message))
            }
            _ => Ok(()),
        }
    }
}
