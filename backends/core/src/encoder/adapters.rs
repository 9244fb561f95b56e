//! Low-rank adapters (LoRA) that lie among a model's own weights, one for each task.

use std::collections::BTreeMap;

use super::{fields::Fields, narrowed};

/// The adapters of a model: a request's vectors depend on the adapter that is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapters {
    /// The names of the tasks, in the order of the adapters' matrices.
    pub tasks: Vec<String>,
    /// The factor of what an adapter adds to a weight.
    pub scale: f32,
    /// Texts put in front of inputs, by task.
    pub prompts: BTreeMap<String, String>,
    /// The place in `tasks` of the adapter that is applied; none where the weights are used as they are.
    pub applied: Option<usize>,
}

impl Adapters {
    /// Reads the fields of jina's models; none where a file has no adapters, or its weights have none.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Option<Self>, String> {
        let Some(tasks) = fields.list("lora_adaptations")? else {
            return Ok(None);
        };
        let tasks: Option<Vec<String>> = tasks
            .iter()
            .map(|task| task.as_str().map(str::to_owned))
            .collect();
        let tasks = tasks.ok_or("lora_adaptations is no list of strings")?;
        if tasks.is_empty() || !fields.flag_or("load_trained_adapters", false)? {
            return Ok(None);
        }
        let rank = fields.size_or("lora_rank", 4)?;
        let scale = fields.positive_or("lora_alpha", 1.0)? / rank as f64;
        let prompts = match fields.get("task_instructions") {
            None => BTreeMap::new(),
            Some(texts) => serde_json::from_value(texts.clone())
                .map_err(|e| format!("task_instructions is no object of strings: {e}"))?,
        };
        Ok(Some(Self {
            tasks,
            scale: narrowed(scale),
            prompts,
            applied: None,
        }))
    }

    /// Chooses the adapter that is applied.
    ///
    /// # Errors
    /// The names of the tasks, where none has this name.
    pub fn apply(&mut self, task: &str) -> Result<(), String> {
        self.applied = self.tasks.iter().position(|known| known == task);
        match self.applied {
            Some(_) => Ok(()),
            None => Err(self.tasks.join(", ")),
        }
    }

    /// The name of the task whose adapter is applied.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        self.tasks.get(self.applied?).map(String::as_str)
    }
}
