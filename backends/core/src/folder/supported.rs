//! The checks of a folder as a whole: models that are not supported, and those of which the configuration makes rerankers.

use super::{FolderError, ModelFolder, classifier};
use crate::{
    Pooling,
    encoder::{AnswerTokens, Classifier, Score},
};

impl ModelFolder {
    /// Makes a cross-encoder of a language model: it scores a pair by the logits of these tokens. A head of its own is not used.
    ///
    /// # Errors
    /// [`FolderError::Invalid`] when the model is none that could.
    pub fn answer_with(&mut self, tokens: AnswerTokens) -> Result<(), FolderError> {
        let path = self.encoder_path.join("config.json");
        let invalid = |problem: String| FolderError::Invalid {
            path: path.clone(),
            problem,
        };
        let encoder = &mut self.encoder;
        let shape = [encoder.vocabulary_size(), encoder.hidden_size];
        let largest = tokens.yes.max(tokens.no.unwrap_or(0));
        let is_causal = encoder
            .layers
            .iter()
            .all(|layer| layer.reach.after == Some(0));
        if let Some(reason) = &encoder.not_described {
            return Err(invalid(format!("is to answer with a token: {reason}")));
        }
        if self.pooling.is_some() || self.splade.is_some() || self.is_cross_encoder {
            let problem = "is to answer with a token, and its folder makes an embedder of it, or a classifier: it is a reranker of another \
                           kind, or none";
            return Err(invalid(problem.into()));
        }
        if !is_causal {
            let problem = "is no language model, whose tokens see those before them alone: it has no token that is to follow";
            return Err(invalid(problem.into()));
        }
        if largest as usize >= shape[0] {
            return Err(invalid(format!(
                "has a vocabulary of {} tokens, and is to answer with token {largest}",
                shape[0]
            )));
        }
        let name = match classifier::has_tied_logits(&self.encoder_path)? {
            true => encoder.embeddings.words.name.clone(),
            false => "lm_head.weight".into(),
        };
        encoder.classifier = Some(Classifier {
            dense: None,
            norm: None,
            score: Score::Logits {
                name,
                shape,
                tokens,
            },
            pooling: Pooling::LAST,
        });
        self.is_cross_encoder = true;
        Ok(())
    }

    /// Refuses an embedder whose texts go through a template.
    pub(super) fn check_messages(&self) -> Result<(), FolderError> {
        if self.chat_template.is_none() || (self.pooling.is_none() && self.splade.is_none()) {
            return Ok(());
        }
        Err(FolderError::Invalid {
            path: self.encoder_path.join("sentence_bert_config.json"),
            problem: "modality_config has \"message\": texts go through a template of conversations, which is supported for rerankers \
                      alone"
                .into(),
        })
    }

    /// Checks that the encoder and its head are described: then the model runs from its own weights.
    ///
    /// # Errors
    /// [`FolderError::Invalid`] says what is not supported, and names the folder's ONNX model where there is one.
    pub fn check_description(&self) -> Result<(), FolderError> {
        let encoder = &self.encoder;
        let has_no_head = self.is_cross_encoder && encoder.classifier.is_none();
        let mut problem = match &encoder.not_described {
            Some(reason) => reason.clone(),
            None if self.splade.is_some() && encoder.language_head.is_none() => format!(
                "modules.json names SpladePooling, and no head of a masked language model of type {} is supported",
                encoder.model_type
            ),
            None if has_no_head => format!(
                "architectures names a classifier, and none of type {} is supported",
                encoder.model_type
            ),
            None => return Ok(()),
        };
        let files = ["onnx/model.onnx", "model.onnx"];
        if let Some(file) = files.iter().find(|file| self.path.join(file).exists()) {
            problem += &format!("; {file} of the folder runs with type = \"onnx\"");
        }
        Err(FolderError::Invalid {
            path: self.encoder_path.join("config.json"),
            problem,
        })
    }
}
