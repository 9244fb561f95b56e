//! The settings of the tokenizer that a folder has outside `tokenizer.json`, put into the tokenizer.

use embedgate_core::{AddedToken, TokenizerScheme, TokenizerSettings};
use tokenizers::{
    AddedToken as Added, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior, Tokenizer,
    normalizers::{
        BertNormalizer, Lowercase, NFC, NFKD, Sequence as Normalizers, Strip, StripAccents,
        replace::{Replace, ReplacePattern},
    },
    pre_tokenizers::{
        bert::BertPreTokenizer,
        byte_level::ByteLevel,
        metaspace::{Metaspace, PrependScheme},
        punctuation::Punctuation,
        sequence::Sequence as PreTokenizers,
        whitespace::WhitespaceSplit,
    },
};

/// Makes the tokenizer do what the folder says.
///
/// # Errors
/// A sentence that names the file and what cannot be done.
pub(super) fn apply(tokenizer: &mut Tokenizer, settings: &TokenizerSettings) -> Result<(), String> {
    if let Some(scheme) = settings.scheme {
        set_scheme(tokenizer, scheme)?;
    }
    tokenizer.set_encode_special_tokens(settings.split_special_tokens);
    add_tokens(tokenizer, &settings.added_tokens)?;
    if is_by_class(settings.scheme) {
        check_begin_and_end(tokenizer, &settings.begin_and_end)?;
    }
    if settings.lower_case {
        let mut steps = vec![NormalizerWrapper::from(Lowercase)];
        steps.extend(tokenizer.get_normalizer().cloned());
        let steps = Normalizers::new(steps);
        tokenizer
            .with_normalizer(Some(steps))
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// A class that does not fit the vocabulary is not obeyed: then all is as `tokenizer.json` says.
fn set_scheme(tokenizer: &mut Tokenizer, scheme: TokenizerScheme) -> Result<(), String> {
    match (scheme, tokenizer.get_model()) {
        (
            TokenizerScheme::Bert {
                lower_case,
                strip_accents,
                split_chinese,
            },
            ModelWrapper::WordPiece(_),
        ) => {
            let normalizer = BertNormalizer::new(true, split_chinese, strip_accents, lower_case);
            tokenizer
                .with_normalizer(Some(normalizer))
                .map_err(|e| e.to_string())?;
            tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        }
        (TokenizerScheme::Roberta { prefix_space }, ModelWrapper::BPE(_)) => {
            tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix_space, true, true)));
        }
        (
            TokenizerScheme::DebertaV2 {
                lower_case,
                split_punctuation,
                prefix_space,
            },
            ModelWrapper::Unigram(_),
        ) => {
            let spaces = Replace::new(ReplacePattern::Regex(r"\s{2,}|[\n\r\t]".into()), " ");
            let mut steps = Vec::new();
            if lower_case {
                steps.push(Lowercase.into());
            }
            steps.push(spaces.map_err(|e| e.to_string())?.into());
            steps.push(NFC.into());
            steps.push(Strip::new(false, true).into());
            tokenizer
                .with_normalizer(Some(Normalizers::new(steps)))
                .map_err(|e| e.to_string())?;
            let mut steps = Vec::new();
            if split_punctuation {
                steps.push(Punctuation::new(SplitDelimiterBehavior::Isolated).into());
            }
            let prefix = match prefix_space {
                true => PrependScheme::Always,
                false => PrependScheme::First,
            };
            steps.push(Metaspace::new('\u{2581}', prefix, true).into());
            tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(steps)));
        }
        (
            TokenizerScheme::Albert {
                lower_case,
                keep_accents,
                prefix_space,
            },
            ModelWrapper::Unigram(_),
        ) => {
            let mut steps = Vec::new();
            for quotes in ["``", "''"] {
                let replaced = Replace::new(quotes, "\"").map_err(|e| e.to_string())?;
                steps.push(NormalizerWrapper::from(replaced));
            }
            if !keep_accents {
                steps.extend([NFKD.into(), StripAccents.into()]);
            }
            if lower_case {
                steps.push(Lowercase.into());
            }
            steps.extend(precompiled(tokenizer.get_normalizer()));
            tokenizer
                .with_normalizer(Some(Normalizers::new(steps)))
                .map_err(|e| e.to_string())?;
            let prefix = match prefix_space {
                true => PrependScheme::Always,
                false => PrependScheme::Never,
            };
            tokenizer.with_pre_tokenizer(Some(words(prefix)));
        }
        (TokenizerScheme::Qwen2WithPrefix, ModelWrapper::BPE(_)) => {
            if let Some(PreTokenizerWrapper::Sequence(steps)) = tokenizer.get_pre_tokenizer() {
                let steps = steps.as_ref().iter().cloned().map(|step| match step {
                    PreTokenizerWrapper::ByteLevel(bytes) => {
                        PreTokenizerWrapper::ByteLevel(bytes.add_prefix_space(true))
                    }
                    other => other,
                });
                let steps = PreTokenizers::new(steps.collect());
                tokenizer.with_pre_tokenizer(Some(steps));
            }
        }
        (TokenizerScheme::XlmRobertaWithoutPrefix, ModelWrapper::Unigram(_)) => {
            tokenizer.with_pre_tokenizer(Some(words(PrependScheme::Never)));
        }
        _ => {}
    }
    Ok(())
}

/// Splits a text at white space, and puts sentencepiece's sign in the place of a space.
fn words(prefix: PrependScheme) -> PreTokenizers {
    let words = Metaspace::new('\u{2581}', prefix, true);
    PreTokenizers::new(vec![WhitespaceSplit.into(), words.into()])
}

/// The rules of sentencepiece within a normalizer.
fn precompiled(normalizer: Option<&NormalizerWrapper>) -> Option<NormalizerWrapper> {
    let is_rules = |step: &&NormalizerWrapper| matches!(step, NormalizerWrapper::Precompiled(_));
    match normalizer? {
        NormalizerWrapper::Sequence(steps) => steps.as_ref().iter().find(is_rules).cloned(),
        other => Some(other).filter(is_rules).cloned(),
    }
}

fn add_tokens(
    tokenizer: &mut Tokenizer,
    tokens: &[(Option<u32>, AddedToken)],
) -> Result<(), String> {
    for (id, token) in tokens {
        add_token(tokenizer, token)?;
        let content = &token.content;
        let found = tokenizer.token_to_id(content);
        if id.is_some() && found != *id {
            let (said, found) = (id.unwrap_or_default(), found.unwrap_or_default());
            return Err(format!(
                "has the token \"{content}\" as number {found}, and added_tokens_decoder of tokenizer_config.json as {said}: one \
                 of the files belongs to another model"
            ));
        }
    }
    Ok(())
}

/// Adds a token that is found in texts as a whole.
pub(super) fn add_token(tokenizer: &mut Tokenizer, token: &AddedToken) -> Result<(), String> {
    let AddedToken {
        content,
        lstrip,
        rstrip,
        normalized,
        single_word,
        special,
    } = token;
    let added = Added::from(content.as_str(), *special)
        .lstrip(*lstrip)
        .rstrip(*rstrip)
        .normalized(*normalized)
        .single_word(*single_word);
    let done = if *special {
        tokenizer.add_special_tokens([added])
    } else {
        tokenizer.add_tokens([added])
    };
    done.map(drop).map_err(|e| e.to_string())
}

/// Returns true when the reference takes the tokens around a text by their names, and not from `tokenizer.json`.
fn is_by_class(scheme: Option<TokenizerScheme>) -> bool {
    matches!(
        scheme,
        Some(TokenizerScheme::Bert { .. } | TokenizerScheme::Roberta { .. })
    )
}

/// Compares the tokens that are put around a text with those that the folder names.
fn check_begin_and_end(
    tokenizer: &Tokenizer,
    begin_and_end: &[Option<String>; 2],
) -> Result<(), String> {
    let empty = tokenizer.encode_fast("", true).map_err(|e| e.to_string())?;
    let ids = empty.get_ids();
    let around = [ids.first(), ids.last()];
    for ((name, said), id) in ["cls_token", "sep_token"]
        .iter()
        .zip(begin_and_end)
        .zip(around)
    {
        let (Some(said), Some(id)) = (said, id) else {
            continue;
        };
        let found = tokenizer.id_to_token(*id).unwrap_or_default();
        if found != *said {
            return Err(format!(
                "puts \"{found}\" where tokenizer_config.json, or special_tokens_map.json, says {name} = \"{said}\": make them \
                 agree"
            ));
        }
    }
    Ok(())
}
