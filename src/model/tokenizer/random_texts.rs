//! Tokenizers of every class, held to those of transformers by random texts.

use std::path::Path;

use embedgate_core::ModelFolder;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::TextTokenizer;

/// White space, controls, and marks that join what stands before them.
const SPACES: [char; 16] = [
    '\t', '\n', '\r', '\u{a0}', '\u{3000}', '\u{200b}', '\u{200d}', '\u{feff}', '\u{85}',
    '\u{2028}', '\0', '\u{7f}', '\u{ad}', '\u{301}', '\u{300}', '\u{20dd}',
];
const TOKENS: [&str; 16] = [
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<mask>",
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[UNK]",
    "[MASK]",
    "<|endoftext|>",
    "<|im_end|>",
    "<bos>",
    "<eos>",
    "<tool_call>",
    "<extra_id_0>",
];

/// The numbers of one text: xorshift64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    fn char(&mut self, first: u32, n: usize) -> char {
        let code = first + u32::try_from(self.below(n)).unwrap();
        char::from_u32(code).unwrap_or('A')
    }

    /// The same text as `random_text` of tests/fixtures/make_tokenizers.py.
    fn text(&mut self, words: &[Vec<&str>]) -> String {
        let mut text = String::new();
        for _ in 0..self.below(24) {
            match self.below(12) {
                0..=3 => {
                    let words = &words[self.below(words.len())];
                    text.extend(words[self.below(words.len())].chars().take(40));
                }
                4 => text += &" ".repeat(1 + self.below(3)),
                5 => text.push(self.char(32, 95)),
                6 => text.push(SPACES[self.below(16)]),
                7 => text.push(self.char(0xc0, 0x24f - 0xc0)),
                8 => text.push(self.char(0x4e00, 0x51a5)),
                9 => text.push(self.char(0, 0xffff)),
                10 => text.push(self.char(0x10000, 0x20000)),
                _ => text += TOKENS[self.below(16)],
            }
            if self.below(3) == 0 {
                text.push(' ');
            }
        }
        text
    }
}

/// FNV-1a over whole ids.
fn hash_of(ids: &[u32]) -> u32 {
    let start = 0x811c_9dc5_u32;
    ids.iter()
        .fold(start, |made, id| (made ^ id).wrapping_mul(0x0100_0193))
}

#[derive(Deserialize)]
struct Case {
    name: String,
    /// Relative to the fixtures.
    folder: String,
    /// Fields of files, by the file's name.
    files: Map<String, Value>,
    /// Files that are left out.
    without: Vec<String>,
}

impl Case {
    fn tokenizer(&self, fixtures: &Path) -> TextTokenizer {
        let made = tempfile::tempdir().unwrap();
        for entry in fixtures.join(&self.folder).read_dir().unwrap() {
            let from = entry.unwrap().path();
            let name = from.file_name().unwrap().to_str().unwrap();
            if from.is_file() && !self.without.iter().any(|without| without == name) {
                std::fs::copy(&from, made.path().join(name)).unwrap();
            }
        }
        for (name, fields) in &self.files {
            let path = made.path().join(name);
            let text = std::fs::read_to_string(&path).unwrap();
            let mut file: Map<String, Value> = serde_json::from_str(&text).unwrap();
            file.extend(fields.as_object().unwrap().clone());
            std::fs::write(&path, serde_json::to_string(&file).unwrap()).unwrap();
        }
        // Modules of the folder lie in folders within, and are not read here.
        std::fs::remove_file(made.path().join("modules.json")).ok();
        let folder = ModelFolder::open(made.path()).unwrap();
        TextTokenizer::load(made.path(), 1 << 20, &folder.tokenizer).unwrap()
    }
}

#[test]
fn token_ids_are_those_of_transformers() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let read = |name: &str| std::fs::read_to_string(fixtures.join(name)).unwrap();
    let texts: Vec<String> = serde_json::from_str(&read("texts.json")).unwrap();
    let words: Vec<Vec<&str>> = texts.iter().map(|text| text.split(' ').collect()).collect();
    let cases: Vec<Case> = serde_json::from_str(&read("tokenizers/cases.json")).unwrap();
    assert!(cases.len() > 20);
    let mut wrong = Vec::new();
    for case in &cases {
        let tokenizer = case.tokenizer(&fixtures);
        let expected = std::fs::read(fixtures.join("tokenizers").join(&case.name)).unwrap();
        let (expected, rest) = expected.as_chunks::<4>();
        assert_eq!((expected.len(), rest.len()), (3000, 0), "{}", case.name);
        let of_case = expected.iter().zip(1_u64..).filter_map(|(expected, i)| {
            let text = Numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(i)).text(&words);
            let tokenized = tokenizer.encode(&text).unwrap();
            let is_wrong = hash_of(&tokenized.ids) != u32::from_le_bytes(*expected);
            is_wrong.then_some((text, tokenized.ids))
        });
        let of_case: Vec<_> = of_case.collect();
        if let Some((text, ids)) = of_case.first() {
            let n = of_case.len();
            wrong.push(format!(
                "{}: {n} texts, such as {text:?}: {ids:?}",
                case.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
