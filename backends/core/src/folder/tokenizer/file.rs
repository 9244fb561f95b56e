//! The files `tokenizer_config.json` and `special_tokens_map.json`.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::{AddedToken, TokenizerScheme, TokenizerSettings};
use crate::folder::{FolderError, read_json};

/// The file `tokenizer_config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::folder) struct TokenizerConfigFile {
    /// A float in some files: `1e30` stands for "no limit".
    pub(in crate::folder) model_max_length: Option<f64>,
    tokenizer_class: Option<String>,
    auto_map: BTreeMap<String, Value>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    add_prefix_space: Option<bool>,
    split_by_punct: Option<bool>,
    keep_accents: Option<bool>,
    extra_ids: Option<u16>,
    truncation_side: Option<String>,
    split_special_tokens: bool,
    added_tokens_decoder: BTreeMap<String, AddedToken>,
    #[serde(alias = "extra_special_tokens")]
    additional_special_tokens: Option<ExtraTokens>,
    #[serde(flatten)]
    named: NamedTokens,
}

/// Tokens in a list, or by a name.
#[derive(Deserialize)]
#[serde(untagged)]
enum ExtraTokens {
    List(Vec<NamedToken>),
    Named(BTreeMap<String, NamedToken>),
}

/// The tokens, as special ones.
fn all_of(tokens: Option<ExtraTokens>) -> Vec<AddedToken> {
    let tokens = match tokens {
        Some(ExtraTokens::List(tokens)) => tokens,
        Some(ExtraTokens::Named(tokens)) => tokens.into_values().collect(),
        None => Vec::new(),
    };
    tokens.into_iter().map(NamedToken::special).collect()
}

/// The file `special_tokens_map.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SpecialTokensFile {
    #[serde(flatten)]
    named: NamedTokens,
    #[serde(alias = "extra_special_tokens")]
    additional_special_tokens: Option<ExtraTokens>,
}

/// A token by its content, or with more about it.
#[derive(Deserialize)]
#[serde(untagged)]
enum NamedToken {
    Content(String),
    Described(AddedToken),
}

impl NamedToken {
    fn special(self) -> AddedToken {
        let special = true;
        match self {
            Self::Content(content) => AddedToken {
                content,
                special,
                ..AddedToken::default()
            },
            Self::Described(token) => AddedToken { special, ..token },
        }
    }
}

/// Special tokens by their names.
#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedTokens {
    bos_token: Option<NamedToken>,
    cls_token: Option<NamedToken>,
    eos_token: Option<NamedToken>,
    mask_token: Option<NamedToken>,
    pad_token: Option<NamedToken>,
    sep_token: Option<NamedToken>,
    unk_token: Option<NamedToken>,
}

impl NamedTokens {
    fn into_map(self) -> BTreeMap<&'static str, AddedToken> {
        let all = [
            ("bos_token", self.bos_token),
            ("cls_token", self.cls_token),
            ("eos_token", self.eos_token),
            ("mask_token", self.mask_token),
            ("pad_token", self.pad_token),
            ("sep_token", self.sep_token),
            ("unk_token", self.unk_token),
        ];
        let said = all
            .into_iter()
            .filter_map(|(name, token)| Some((name, token?)));
        said.map(|(name, token)| (name, token.special())).collect()
    }
}

/// Classes that need code beyond `tokenizer.json`.
const PYTHON_ALONE: [&str; 4] = [
    "BertJapaneseTokenizer",
    "BertweetTokenizer",
    "HerbertTokenizer",
    "PhobertTokenizer",
];

impl TokenizerConfigFile {
    /// Reads the file; all is at its default where there is none.
    pub(in crate::folder) fn read(folder: &Path) -> Result<Self, FolderError> {
        Ok(read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default())
    }

    /// Makes settings of what the file says, for a type of model.
    ///
    /// # Errors
    /// When it states what only the model's own code does.
    pub(in crate::folder) fn settings(
        self,
        folder: &Path,
        model_type: &str,
        lower_case: bool,
    ) -> Result<TokenizerSettings, FolderError> {
        let path = folder.join("tokenizer_config.json");
        let invalid = |problem: String| FolderError::Invalid {
            path: path.clone(),
            problem,
        };
        if self.auto_map.contains_key("AutoTokenizer") {
            return Err(invalid(
                "auto_map names a tokenizer in Python code of the model's own, which is not run: supported is a tokenizer that \
                 tokenizer.json holds alone"
                    .into(),
            ));
        }
        let class = match self.tokenizer_class.as_deref() {
            None | Some("") => class_of(model_type).to_owned(),
            Some(class) => class.strip_suffix("Fast").unwrap_or(class).to_owned(),
        };
        if PYTHON_ALONE.contains(&class.as_str()) {
            return Err(invalid(format!(
                "tokenizer_class is {class}, which is Python code: supported is a tokenizer that tokenizer.json holds alone"
            )));
        }
        let cut_left = match self.truncation_side.as_deref() {
            None => None,
            Some("left") => Some(true),
            Some("right") => Some(false),
            Some(other) => {
                return Err(invalid(format!(
                    "truncation_side is \"{other}\", supported are \"left\" and \"right\""
                )));
            }
        };
        let scheme = self.scheme(&class);
        let mut added_tokens = Vec::new();
        for (id, token) in self.added_tokens_decoder {
            let number = id.parse().map_err(|_| {
                invalid(format!(
                    "added_tokens_decoder has the key \"{id}\", expected the number of a token"
                ))
            })?;
            added_tokens.push((Some(number), token));
        }
        let mut named_tokens = self.named.into_map();
        let mut extra = all_of(self.additional_special_tokens);
        // Older files are read where the newer one does not have all.
        if added_tokens.is_empty() {
            let map: SpecialTokensFile =
                read_json(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
            named_tokens.extend(map.named.into_map());
            extra.extend(all_of(map.additional_special_tokens));
            let file: BTreeMap<String, u32> =
                read_json(&folder.join("added_tokens.json"))?.unwrap_or_default();
            let is_special = |content: &String| {
                let all = named_tokens.values().chain(&extra);
                all.map(|token| &token.content).any(|of| of == content)
            };
            let tokens = file.into_iter().map(|(content, id)| {
                let special = is_special(&content);
                let token = AddedToken {
                    content,
                    special,
                    normalized: !special,
                    ..AddedToken::default()
                };
                (Some(id), token)
            });
            added_tokens.extend(tokens);
        }
        added_tokens.sort_by_key(|(id, _)| *id);
        added_tokens.extend(extra.into_iter().map(|token| (None, token)));
        let content = |name: &str| named_tokens.get(name).map(|token| token.content.clone());
        Ok(TokenizerSettings {
            lower_case,
            scheme,
            cut_left,
            split_special_tokens: self.split_special_tokens,
            added_tokens,
            extra_ids: self.extra_ids.map(usize::from),
            bare: None,
            begin_and_end: ["cls_token", "sep_token"].map(content),
            class,
            named_tokens,
        })
    }

    /// The scheme of a class.
    fn scheme(&self, class: &str) -> Option<TokenizerScheme> {
        match class {
            "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" | "MPNetTokenizer" => {
                Some(TokenizerScheme::Bert {
                    lower_case: self.do_lower_case.unwrap_or(true),
                    strip_accents: self.strip_accents,
                    split_chinese: self.tokenize_chinese_chars.unwrap_or(true),
                })
            }
            "RobertaTokenizer" => Some(TokenizerScheme::Roberta {
                prefix_space: self.add_prefix_space.unwrap_or(false),
            }),
            "DebertaV2Tokenizer" => Some(TokenizerScheme::DebertaV2 {
                lower_case: self.do_lower_case.unwrap_or(false),
                split_punctuation: self.split_by_punct.unwrap_or(false),
                prefix_space: self.add_prefix_space.unwrap_or(true),
            }),
            "AlbertTokenizer" => Some(TokenizerScheme::Albert {
                lower_case: self.do_lower_case.unwrap_or(true),
                keep_accents: self.keep_accents.unwrap_or(false),
                prefix_space: self.add_prefix_space.unwrap_or(true),
            }),
            "Qwen2Tokenizer" => {
                (self.add_prefix_space == Some(true)).then_some(TokenizerScheme::Qwen2WithPrefix)
            }
            "XLMRobertaTokenizer" | "CamembertTokenizer" => (self.add_prefix_space == Some(false))
                .then_some(TokenizerScheme::XlmRobertaWithoutPrefix),
            // What else there is takes all from tokenizer.json.
            _ => None,
        }
    }
}

/// The class of a type of model, where `tokenizer_config.json` names none.
///
/// Source: transformers 5.24, `tokenization_auto.py`, `TOKENIZER_MAPPING_NAMES`.
fn class_of(model_type: &str) -> &'static str {
    match model_type {
        "bert" | "distilbert" | "electra" | "ernie" | "nomic_bert" => "BertTokenizer",
        "mpnet" => "MPNetTokenizer",
        "albert" => "AlbertTokenizer",
        "roberta" => "RobertaTokenizer",
        "xlm-roberta" | "jina_embeddings_v3" => "XLMRobertaTokenizer",
        "camembert" => "CamembertTokenizer",
        "deberta-v2" => "DebertaV2Tokenizer",
        "t5" => "T5Tokenizer",
        "qwen2" | "qwen3" => "Qwen2Tokenizer",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(file: Value, model_type: &str) -> Result<TokenizerSettings, String> {
        let file: TokenizerConfigFile = serde_json::from_value(file).unwrap();
        let folder = tempfile::tempdir().unwrap();
        file.settings(folder.path(), model_type, false)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_class_decides_what_is_obeyed_and_the_models_type_where_none_is_named() {
        let bert = |lower_case, strip_accents, split_chinese| {
            Some(TokenizerScheme::Bert {
                lower_case,
                strip_accents,
                split_chinese,
            })
        };
        let roberta = |prefix_space| Some(TokenizerScheme::Roberta { prefix_space });
        for (file, model_type, expected) in [
            (json!({}), "bert", bert(true, None, true)),
            (
                json!({"do_lower_case": false, "tokenize_chinese_chars": false}),
                "bert",
                bert(false, None, false),
            ),
            (
                json!({"tokenizer_class": "ElectraTokenizerFast", "strip_accents": false}),
                "bert",
                bert(true, Some(false), true),
            ),
            (
                json!({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": false}),
                "bert",
                None,
            ),
            (json!({}), "roberta", roberta(false)),
            (json!({"add_prefix_space": true}), "roberta", roberta(true)),
            (json!({"do_lower_case": true}), "xlm-roberta", None),
            (
                json!({"add_prefix_space": false}),
                "camembert",
                Some(TokenizerScheme::XlmRobertaWithoutPrefix),
            ),
        ] {
            let name = file.to_string();
            assert_eq!(
                settings(file, model_type).unwrap().scheme,
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn what_cannot_be_obeyed_is_named() {
        for (file, expected) in [
            (
                json!({"tokenizer_class": "BertJapaneseTokenizer"}),
                "tokenizer_class is BertJapaneseTokenizer",
            ),
            (
                json!({"auto_map": {"AutoTokenizer": ["x.Y", null]}}),
                "auto_map",
            ),
            (json!({"truncation_side": "middle"}), "\"middle\""),
            (json!({"added_tokens_decoder": {"x": {}}}), "\"x\""),
        ] {
            let error = settings(file, "bert").unwrap_err();
            assert!(
                error.contains(expected) && error.contains("tokenizer_config.json"),
                "{error}"
            );
        }
    }
}
