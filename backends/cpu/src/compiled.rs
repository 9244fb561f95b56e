//! Products that are compiled when they are first needed.

use std::sync::OnceLock;

use crate::onednn::{OneDnnError, Product};

/// A place for a product. Where compiling fails it stays empty, and the next who needs the product tries again: what was
/// lacking, such as memory, may be there then. Two threads may compile at once; one of the products is dropped.
#[derive(Default)]
pub(crate) struct Compiled(OnceLock<Product>);

impl Compiled {
    /// The product that is there, or is made now.
    pub(crate) fn get_or(
        &self,
        compile: impl FnOnce() -> Result<Product, OneDnnError>,
    ) -> Result<&Product, OneDnnError> {
        if let Some(product) = self.0.get() {
            return Ok(product);
        }
        let product = compile()?;
        Ok(self.0.get_or_init(|| product))
    }
}
