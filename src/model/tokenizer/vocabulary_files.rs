//! Builds the tokenizers of folders that have no `tokenizer.json`, but the files of a vocabulary, as older ones do.

use std::path::Path;

use embedgate_core::{AddedToken, TokenizerSettings, impostor};
use tokenizers::{
    Tokenizer,
    decoders::wordpiece::WordPiece as WordPieceDecoder,
    models::{bpe::BPE, wordpiece::WordPiece},
    pre_tokenizers::byte_level::ByteLevel,
    processors::{roberta::RobertaProcessing, template::TemplateProcessing},
};

use super::settings;

/// The names of special tokens, and each token where the folder does not say it.
type Usual = [(&'static str, &'static str)];

const BERT: &Usual = &[
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];
const MPNET: &Usual = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "[UNK]"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("cls_token", "<s>"),
    ("mask_token", "<mask>"),
];
const ROBERTA: &Usual = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("cls_token", "<s>"),
    ("mask_token", "<mask>"),
];

/// Builds the tokenizer of a folder without `tokenizer.json`.
///
/// Source: transformers 5.24, `tokenization_bert.py`, `tokenization_mpnet.py` and `tokenization_roberta.py`.
///
/// # Errors
/// A sentence that says which file is missing or damaged, and the way out.
pub(super) fn build(folder: &Path, settings: &TokenizerSettings) -> Result<Tokenizer, String> {
    match settings.class.as_str() {
        "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer"
            if folder.join("vocab.txt").exists() =>
        {
            word_piece(folder, settings, BERT)
        }
        "MPNetTokenizer" if folder.join("vocab.txt").exists() => {
            word_piece(folder, settings, MPNET)
        }
        "RobertaTokenizer" if folder.join("merges.txt").exists() => bpe(folder, settings),
        class => {
            let class = match class {
                "" => String::new(),
                class => format!(" of the class {class}"),
            };
            Err(format!(
                "is missing: without it vocab.txt is read of BertTokenizer, DistilBertTokenizer, ElectraTokenizer and MPNetTokenizer, \
                 vocab.json and merges.txt of RobertaTokenizer; a tokenizer{class} that has other files gets one where transformers is: \
                 python -c 'from transformers import AutoTokenizer as A; A.from_pretrained(\".\").save_pretrained(\".\")'"
            ))
        }
    }
}

fn word_piece(
    folder: &Path,
    settings: &TokenizerSettings,
    usual: &Usual,
) -> Result<Tokenizer, String> {
    let path = folder.join("vocab.txt");
    check(&path)?;
    let model = WordPiece::from_file(&path.display().to_string())
        .unk_token(named(settings, usual, "unk_token").content)
        .build()
        .map_err(|e| format!("vocab.txt: {e}"))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_decoder(Some(WordPieceDecoder::default()));
    finish(tokenizer, settings, usual)
}

fn bpe(folder: &Path, settings: &TokenizerSettings) -> Result<Tokenizer, String> {
    let paths = ["vocab.json", "merges.txt"].map(|name| folder.join(name));
    if let Some(path) = paths.iter().find(|path| !path.exists()) {
        return Err(format!("is missing, and {} with it", path.display()));
    }
    for path in &paths {
        check(path)?;
    }
    let [vocabulary, merges] = paths.map(|path| path.display().to_string());
    let model = BPE::from_file(&vocabulary, &merges).build();
    let model = model.map_err(|e| format!("vocab.json, merges.txt: {e}"))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_decoder(Some(ByteLevel::default()));
    finish(tokenizer, settings, ROBERTA)
}

/// Adds the special tokens, and puts those of begin and end around a text.
fn finish(
    mut tokenizer: Tokenizer,
    settings: &TokenizerSettings,
    usual: &Usual,
) -> Result<Tokenizer, String> {
    for (name, _) in usual {
        settings::add_token(&mut tokenizer, &named(settings, usual, name))?;
    }
    let [begin, end] = ["cls_token", "sep_token"].map(|name| {
        let token = named(settings, usual, name).content;
        let id = tokenizer.token_to_id(&token).unwrap_or_default();
        (token, id)
    });
    if usual == BERT {
        let template = |text: &str| text.replace("CLS", &begin.0).replace("SEP", &end.0);
        let processor = TemplateProcessing::builder()
            .try_single(template("CLS:0 $A:0 SEP:0"))
            .and_then(|builder| builder.try_pair(template("CLS:0 $A:0 SEP:0 $B:1 SEP:1")))
            .map_err(|e| e.to_string())?
            .special_tokens(vec![begin, end])
            .build()
            .map_err(|e| e.to_string())?;
        tokenizer.with_post_processor(Some(processor));
    } else {
        let processor = RobertaProcessing::new(end, begin).add_prefix_space(false);
        tokenizer.with_post_processor(Some(processor));
    }
    Ok(tokenizer)
}

/// A special token, as the folder says it or as is usual.
fn named(settings: &TokenizerSettings, usual: &Usual, name: &str) -> AddedToken {
    if let Some(token) = settings.named_tokens.get(name) {
        return token.clone();
    }
    let content = usual.iter().find(|(of, _)| *of == name);
    AddedToken {
        content: content.map_or("", |(_, token)| token).to_owned(),
        // It takes the space before it, as a word does; BERT's does not.
        lstrip: name == "mask_token" && usual != BERT,
        special: true,
        ..AddedToken::default()
    }
}

fn check(path: &Path) -> Result<(), String> {
    match impostor(path) {
        None => Ok(()),
        Some(problem) => Err(format!("is missing, and {} {problem}", path.display())),
    }
}
