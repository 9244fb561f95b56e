//! The file of a sentencepiece model, and the tokenizers that the reference builds of it.
//!
//! Source: sentencepiece's `sentencepiece_model.proto`; transformers 5.24, `convert_slow_tokenizer.py`, `convert_from_spm` of each
//! class, and the classes themselves.

use std::path::Path;

use embedgate_core::{AddedToken, TokenizerSettings};
use prost::Message;
use tokenizers::{
    Tokenizer,
    models::unigram::Unigram,
    normalizers::Precompiled,
    pre_tokenizers::{
        PreTokenizerWrapper,
        metaspace::{Metaspace, PrependScheme},
        sequence::Sequence,
        whitespace::WhitespaceSplit,
    },
};

use super::{BERT, Class, ROBERTA, T5, check, finish};
use crate::model::tokenizer::settings::add_token;

/// A sentencepiece model, as far as it is read.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(float, tag = "2")]
    score: f32,
    /// 3 for a control symbol, 4 for one that the trainer was given.
    #[prost(int32, tag = "3")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    /// 1 for Unigram, 2 for BPE.
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(int32, optional, tag = "40")]
    unknown: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    #[prost(bytes = "vec", tag = "2")]
    characters: Vec<u8>,
}

/// The classes whose tokenizers are built of such a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sentencepiece {
    DebertaV2,
    T5,
    XlmRoberta,
}

impl Sentencepiece {
    /// The class of a name; none where it has another kind of vocabulary.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "DebertaV2Tokenizer" => Self::DebertaV2,
            "T5Tokenizer" => Self::T5,
            "XLMRobertaTokenizer" => Self::XlmRoberta,
            _ => return None,
        })
    }

    /// The name of its file.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::DebertaV2 => "spm.model",
            Self::T5 => "spiece.model",
            Self::XlmRoberta => "sentencepiece.bpe.model",
        }
    }

    fn class(self) -> &'static Class {
        match self {
            Self::DebertaV2 => &BERT,
            Self::T5 => &T5,
            Self::XlmRoberta => &ROBERTA,
        }
    }
}

/// Builds the tokenizer of a class.
pub(super) fn build(
    class: Sentencepiece,
    folder: &Path,
    settings: &TokenizerSettings,
) -> Result<Tokenizer, String> {
    let path = &folder.join(class.file());
    check(path)?;
    let damaged = |problem: String| format!("is missing, and {}: {problem}", path.display());
    let bytes = std::fs::read(path).map_err(|e| damaged(e.to_string()))?;
    let model = Model::decode(&*bytes).map_err(|e| damaged(e.to_string()))?;
    let trainer = model.trainer.unwrap_or_default();
    if trainer.kind.unwrap_or(1) != 1 {
        return Err(damaged("is no Unigram model, which the class needs".into()));
    }
    let unknown = usize::try_from(trainer.unknown.unwrap_or(0)).unwrap_or(0);
    let mut tokenizer =
        Tokenizer::new(unigram(class, &model.pieces, unknown, settings).map_err(damaged)?);
    let characters = model.normalizer.unwrap_or_default().characters;
    if !characters.is_empty() && class != Sentencepiece::DebertaV2 {
        let normalizer = Precompiled::from(&characters).map_err(|e| damaged(e.to_string()))?;
        tokenizer
            .with_normalizer(Some(normalizer))
            .map_err(|e| e.to_string())?;
    }
    let words = Metaspace::new('\u{2581}', PrependScheme::Always, true);
    let steps = [
        PreTokenizerWrapper::from(WhitespaceSplit),
        PreTokenizerWrapper::from(words.clone()),
    ];
    tokenizer
        .with_pre_tokenizer(Some(Sequence::new(steps.into())))
        .with_decoder(Some(words));
    for piece in model
        .pieces
        .iter()
        .filter(|piece| matches!(piece.kind, 3 | 4))
    {
        let token = AddedToken {
            content: piece.text.clone(),
            special: piece.kind == 3,
            ..AddedToken::default()
        };
        add_token(&mut tokenizer, &token)?;
    }
    finish(tokenizer, settings, class.class())
}

/// The pieces in the order of the class.
fn unigram(
    class: Sentencepiece,
    pieces: &[Piece],
    unknown: usize,
    settings: &TokenizerSettings,
) -> Result<Unigram, String> {
    let scored = |piece: &Piece| (piece.text.clone(), f64::from(piece.score));
    let first = |text: &str| (text.to_owned(), 0.0);
    let (vocabulary, unknown): (Vec<_>, _) = match class {
        Sentencepiece::DebertaV2 => {
            let named = pieces
                .iter()
                .position(|piece| piece.text == "[UNK]" && piece.score == 0.0);
            (
                pieces.iter().map(scored).collect(),
                named.unwrap_or(unknown),
            )
        }
        Sentencepiece::T5 => {
            let extra = (0..settings.extra_ids.unwrap_or(EXTRA_IDS)).rev();
            let extra = extra.map(|i| first(&format!("<extra_id_{i}>")));
            (pieces.iter().map(scored).chain(extra).collect(), 2)
        }
        Sentencepiece::XlmRoberta => {
            let names = ["<s>", "<pad>", "</s>", "<unk>"].map(first);
            let rest = pieces.iter().skip(3).map(scored);
            let all = names.into_iter().chain(rest).chain([first("<mask>")]);
            (all.collect(), 3)
        }
    };
    Unigram::from(vocabulary, Some(unknown), false).map_err(|e| e.to_string())
}

/// Tokens of T5 for what is left out of a text, where `tokenizer_config.json` says no other number.
const EXTRA_IDS: usize = 100;
