//! The choice of one of the models that a folder holds.

use super::{FolderError, ModelFolder};

/// One of the models that a folder holds: most folders hold one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variant<'a> {
    /// The task whose adapter is applied to the weights; none: they are used as they are.
    pub adapter: Option<&'a str>,
    /// The route of a router; none: its default one.
    pub route: Option<&'a str>,
}

impl ModelFolder {
    /// The task whose adapter is applied to the weights.
    #[must_use]
    pub fn adapter(&self) -> Option<&str> {
        self.encoder.adapters.as_ref()?.task()
    }

    /// The model that is served of those that the folder holds; the default where it holds one alone.
    #[must_use]
    pub fn variant(&self) -> Variant<'_> {
        Variant {
            adapter: self.adapter(),
            route: self.route.as_deref(),
        }
    }

    /// Applies the adapter of a task, whose prompt becomes the usual one.
    pub(super) fn apply_adapter(&mut self, task: &str) -> Result<(), FolderError> {
        let problem = match &mut self.encoder.adapters {
            None => "it has no adapters (lora_adaptations)".to_owned(),
            Some(adapters) => match adapters.apply(task) {
                Err(known) => format!("it has no such adapter, there are {known}"),
                Ok(()) => {
                    for (name, text) in &adapters.prompts {
                        let prompt = self.prompts.entry(name.clone());
                        prompt.or_insert_with(|| text.clone());
                    }
                    if self.prompts.contains_key(task) {
                        self.default_prompt = Some(task.to_owned());
                    }
                    // Names that nobody wrote: their text would go before the adapter's.
                    self.prompts.retain(|name, text| {
                        !text.is_empty() || !matches!(name.as_str(), "query" | "document")
                    });
                    return Ok(());
                }
            },
        };
        Err(FolderError::Invalid {
            path: self.encoder_path.join("config.json"),
            problem: format!("the model's key adapter is \"{task}\", and {problem}"),
        })
    }
}
