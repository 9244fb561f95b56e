//! Builds the tokenizers of folders that have no `tokenizer.json`, but the files of a vocabulary, as older ones do.

mod sentencepiece;

use std::path::Path;

use embedgate_core::{AddedToken, TokenizerSettings, impostor};
use tokenizers::{
    Tokenizer,
    decoders::wordpiece::WordPiece as WordPieceDecoder,
    models::{bpe::BPE, wordpiece::WordPiece},
    pre_tokenizers::byte_level::ByteLevel,
    processors::{roberta::RobertaProcessing, template::TemplateProcessing},
};

use self::sentencepiece::Sentencepiece;
use super::settings;

/// The facts that the tokenizers of a class have in common.
struct Class {
    /// The names of special tokens, and each token where the folder does not say it.
    tokens: &'static [(&'static str, &'static str)],
    around: Around,
}

/// The tokens around a text, and around and between two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    /// `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, the second text in a segment of its own.
    Bert,
    /// `<s> a </s>` and `<s> a </s> </s> b </s>`.
    Roberta,
    /// `a </s>` and `a </s> b </s>`.
    EndAlone,
}

const BERT: Class = Class {
    tokens: &[
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ],
    around: Around::Bert,
};
const MPNET: Class = Class {
    tokens: &[
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("unk_token", "[UNK]"),
        ("sep_token", "</s>"),
        ("pad_token", "<pad>"),
        ("cls_token", "<s>"),
        ("mask_token", "<mask>"),
    ],
    around: Around::Roberta,
};
const ROBERTA: Class = Class {
    tokens: &[
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("unk_token", "<unk>"),
        ("sep_token", "</s>"),
        ("pad_token", "<pad>"),
        ("cls_token", "<s>"),
        ("mask_token", "<mask>"),
    ],
    around: Around::Roberta,
};
const T5: Class = Class {
    tokens: &[
        ("sep_token", "</s>"),
        ("unk_token", "<unk>"),
        ("pad_token", "<pad>"),
    ],
    around: Around::EndAlone,
};

/// Builds the tokenizer of a folder without `tokenizer.json`.
///
/// Source: transformers 5.24, `tokenization_bert.py`, `tokenization_mpnet.py` and `tokenization_roberta.py`.
///
/// # Errors
/// A sentence that says which file is missing or damaged, and the way out.
pub(super) fn build(folder: &Path, settings: &TokenizerSettings) -> Result<Tokenizer, String> {
    let name = settings.class.as_str();
    let has = |file: &str| folder.join(file).exists();
    if let Some(spm) = Sentencepiece::of(name).filter(|spm| has(spm.file())) {
        return sentencepiece::build(spm, folder, settings);
    }
    match name {
        "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" if has("vocab.txt") => {
            word_piece(folder, settings, &BERT)
        }
        "MPNetTokenizer" if has("vocab.txt") => word_piece(folder, settings, &MPNET),
        "RobertaTokenizer" if has("merges.txt") => bpe(folder, settings),
        _ => {
            let class = match name {
                "" => String::new(),
                name => format!(" of the class {name}"),
            };
            Err(format!(
                "is missing: without it vocab.txt is read of BertTokenizer, DistilBertTokenizer, ElectraTokenizer and MPNetTokenizer, \
                 vocab.json and merges.txt of RobertaTokenizer, and the file of sentencepiece of XLMRobertaTokenizer, \
                 DebertaV2Tokenizer and T5Tokenizer; a tokenizer{class} that has other files gets one where transformers is: \
                 python -c 'from transformers import AutoTokenizer as A; A.from_pretrained(\".\").save_pretrained(\".\")'"
            ))
        }
    }
}

fn word_piece(
    folder: &Path,
    settings: &TokenizerSettings,
    class: &Class,
) -> Result<Tokenizer, String> {
    let path = folder.join("vocab.txt");
    check(&path)?;
    let model = WordPiece::from_file(&path.display().to_string())
        .unk_token(named(settings, class, "unk_token").content)
        .build()
        .map_err(|e| format!("vocab.txt: {e}"))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_decoder(Some(WordPieceDecoder::default()));
    finish(tokenizer, settings, class)
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
    finish(tokenizer, settings, &ROBERTA)
}

/// Adds the special tokens, and puts those of begin and end around a text.
fn finish(
    mut tokenizer: Tokenizer,
    settings: &TokenizerSettings,
    class: &Class,
) -> Result<Tokenizer, String> {
    for (name, _) in class.tokens {
        settings::add_token(&mut tokenizer, &named(settings, class, name))?;
    }
    let [begin, end] = ["cls_token", "sep_token"].map(|name| {
        let token = named(settings, class, name).content;
        let id = tokenizer.token_to_id(&token).unwrap_or_default();
        (token, id)
    });
    let template = |text: &str| text.replace("CLS", &begin.0).replace("SEP", &end.0);
    let (one, two) = match class.around {
        Around::Bert => ("CLS:0 $A:0 SEP:0", "CLS:0 $A:0 SEP:0 $B:1 SEP:1"),
        Around::EndAlone => ("$A:0 SEP:0", "$A:0 SEP:0 $B:0 SEP:0"),
        Around::Roberta => {
            let processor = RobertaProcessing::new(end, begin).add_prefix_space(false);
            tokenizer.with_post_processor(Some(processor));
            return Ok(tokenizer);
        }
    };
    let mut around = vec![end.clone()];
    if class.around == Around::Bert {
        around.push(begin.clone());
    }
    let processor = TemplateProcessing::builder()
        .try_single(template(one))
        .and_then(|builder| builder.try_pair(template(two)))
        .map_err(|e| e.to_string())?
        .special_tokens(around)
        .build()
        .map_err(|e| e.to_string())?;
    tokenizer.with_post_processor(Some(processor));
    Ok(tokenizer)
}

/// A special token, as the folder says it or as is usual.
fn named(settings: &TokenizerSettings, class: &Class, name: &str) -> AddedToken {
    if let Some(token) = settings.named_tokens.get(name) {
        return token.clone();
    }
    let content = class.tokens.iter().find(|(of, _)| *of == name);
    AddedToken {
        content: content.map_or("", |(_, token)| token).to_owned(),
        // It takes the space before it, as a word does; BERT's does not.
        lstrip: name == "mask_token" && class.around == Around::Roberta,
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
