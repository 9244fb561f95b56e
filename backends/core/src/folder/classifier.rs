//! The test for cross-encoders: it reads the task and the labels that `config.json` states.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, de::IgnoredAny};

use super::{FolderError, modules::Modules, read_json};

/// The number of labels that transformers takes where `config.json` states none.
const DEFAULT_LABELS: usize = 2;

/// Returns true when the folder holds a sequence classifier of one label, which scores pairs.
///
/// A pooling module makes an embedder of it all the same: then its classifying head is not used. `modules.json` alone
/// says nothing, since sentence-transformers 6.2 writes one for cross-encoders too.
///
/// # Errors
/// [`FolderError::Invalid`] when the classifier has another number of labels than one.
pub(super) fn is_cross_encoder(folder: &Path, modules: &Modules) -> Result<bool, FolderError> {
    if modules.stated && modules.pooling.is_some() {
        return Ok(false);
    }
    let path = folder.join("config.json");
    let file: ClassifierFile = read_json(&path)?.unwrap_or_default();
    file.is_cross_encoder()
        .map_err(|problem| FolderError::Invalid { path, problem })
}

/// Returns the classes that `config.json` names as the model's.
pub(super) fn architectures(folder: &Path) -> Result<Vec<String>, FolderError> {
    let file: ClassifierFile = read_json(&folder.join("config.json"))?.unwrap_or_default();
    Ok(file.architectures.unwrap_or_default())
}

/// Returns true when a language model's logits are products with the vectors of tokens.
///
/// Source: transformers 5.24: models of Qwen and Mistral have a matrix of their own where nothing is said.
pub(super) fn has_tied_logits(folder: &Path) -> Result<bool, FolderError> {
    let file: ClassifierFile = read_json(&folder.join("config.json"))?.unwrap_or_default();
    let is_gemma = file.model_type.as_deref() == Some("gemma3_text");
    Ok(file.tie_word_embeddings.unwrap_or(is_gemma))
}

#[derive(Default, Deserialize)]
struct ClassifierFile {
    model_type: Option<String>,
    tie_word_embeddings: Option<bool>,
    architectures: Option<Vec<String>>,
    num_labels: Option<usize>,
    id2label: Option<BTreeMap<String, IgnoredAny>>,
}

impl ClassifierFile {
    fn is_cross_encoder(&self) -> Result<bool, String> {
        let mut names = self.architectures.iter().flatten();
        let Some(name) = names.find(|name| name.ends_with("ForSequenceClassification")) else {
            return Ok(false);
        };
        match self.n_labels() {
            1 => Ok(true),
            n => Err(format!(
                "architectures is {name} with {n} labels, supported is 1 label: a cross-encoder"
            )),
        }
    }

    /// Source: transformers 5.23, `configuration_utils.py`, `PreTrainedConfig`: `num_labels` wins over `id2label`.
    fn n_labels(&self) -> usize {
        let named = || self.id2label.as_ref().map(BTreeMap::len);
        self.num_labels.or_else(named).unwrap_or(DEFAULT_LABELS)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn is_cross_encoder(file: Value) -> Result<bool, String> {
        let file: ClassifierFile = serde_json::from_value(file).unwrap();
        file.is_cross_encoder()
    }

    #[test]
    fn a_classifier_of_one_label_is_a_cross_encoder() {
        for name in ["Bert", "Roberta", "XLMRoberta", "Camembert"] {
            let names = [format!("{name}ForSequenceClassification")];
            let by_names = json!({"architectures": names, "id2label": {"0": "LABEL_0"}});
            assert_eq!(is_cross_encoder(by_names), Ok(true), "{name}");
            let by_count = json!({"architectures": names, "num_labels": 1});
            assert_eq!(is_cross_encoder(by_count), Ok(true), "{name}");
        }
    }

    #[test]
    fn an_encoder_is_none_whatever_its_labels() {
        let encoder = json!({"architectures": ["XLMRobertaModel"], "id2label": {"0": "LABEL_0"}});
        assert_eq!(is_cross_encoder(encoder), Ok(false));
        assert_eq!(is_cross_encoder(json!({})), Ok(false));
    }

    #[test]
    fn more_labels_than_one_are_refused_with_their_number() {
        let names = ["BertForSequenceClassification"];
        let labels = json!({"0": "contradiction", "1": "entailment", "2": "neutral"});
        let cases = [
            (
                json!({"architectures": names, "id2label": labels}),
                "3 labels",
            ),
            (json!({"architectures": names, "num_labels": 5}), "5 labels"),
            (json!({"architectures": names}), "2 labels"),
        ];
        for (file, expected) in cases {
            let error = is_cross_encoder(file).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains(names[0]), "{error}");
        }
    }
}
