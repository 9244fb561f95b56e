use std::path::Path;

use embedgate_core::TokenizerSettings;
use embedgate_request::MOST_COUNTED;
use serde_json::json;

use super::*;

fn cut(side: Side) -> Truncation {
    Truncation::Cut { side, most: None }
}

fn tiny(max_tokens: usize) -> TextTokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-bge-m3");
    TextTokenizer::load(&folder, max_tokens, &TokenizerSettings::default()).unwrap()
}

#[test]
fn of_a_text_of_very_many_tokens_only_that_is_read_which_stays() {
    let tokenizer = tiny(512);
    let unit = "word and 向量 检索 ";
    let text = unit.repeat((4 << 20) / unit.len());
    let near = unit.repeat((100 << 10) / unit.len());
    for side in [Side::Right, Side::Left] {
        let n_slices = std::cell::Cell::new(1);
        let given_up = || {
            n_slices.set(n_slices.get() + 1);
            false
        };
        let cut_off = tokenizer.encode_unless(&text, cut(side), given_up).unwrap();
        let expected = tokenizer.encode_unless(&near, cut(side), || false).unwrap();
        assert_eq!(cut_off.ids, expected.ids, "{side:?}");
        assert_eq!(cut_off.n_tokens_full, MOST_COUNTED + 1 + 2);
        assert!(
            n_slices.get() < 16,
            "of 64 slices {} are read",
            n_slices.get()
        );
    }
    let over = tokenizer
        .encode_unless(&text, Truncation::Refuse, || false)
        .unwrap();
    assert!(over.n_tokens_full > MOST_COUNTED);
}

#[test]
fn a_long_text_has_the_tokens_of_the_whole_though_it_goes_in_slices() {
    let tokenizer = tiny(512);
    for unit in ["word and 向量 检索 ", "longer-than-most-words-are, 😀 "] {
        let text = unit.repeat((150 << 10) / unit.len());
        let whole = tokenizer.inner.encode_fast(text.as_str(), true).unwrap();
        let sliced = tokenizer.encode(&text).unwrap();
        assert_eq!(sliced.n_tokens_full, whole.len());
        assert_eq!(sliced.ids.len(), 512);
        assert_eq!(sliced.ids[..511], whole.get_ids()[..511]);
        assert_eq!(sliced.ids[511], 2, "the end token stays");
        let end = tokenizer
            .encode_unless(&text, cut(Side::Left), || false)
            .unwrap();
        assert_eq!((end.n_tokens_full, end.ids.len()), (whole.len(), 512));
        assert_eq!(end.ids[0], 0, "the begin token stays");
        assert_eq!(end.ids[1..], whole.get_ids()[whole.len() - 511..]);
    }
}

/// The BERT tokenizer of the fixtures, with what a test says in `tokenizer_config.json`.
fn bert(config: &serde_json::Value) -> Result<TextTokenizer, String> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-bert-reranker");
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(fixture.join(name), folder.path().join(name)).unwrap();
    }
    std::fs::write(
        folder.path().join("tokenizer_config.json"),
        config.to_string(),
    )
    .unwrap();
    // The fixture is a cross-encoder, which does not matter here.
    let opened = embedgate_core::ModelFolder::open(folder.path()).map_err(|e| e.to_string())?;
    TextTokenizer::load(folder.path(), 128, &opened.tokenizer).map_err(|e| e.to_string())
}

/// Source: `AutoTokenizer` of transformers 5.24 on the same files.
#[test]
fn what_tokenizer_config_says_is_obeyed_as_the_reference_does() {
    let text = "H\u{e9}llo World \u{6f22}\u{5b57} ab";
    let added = json!({"7": {"content": "ab", "lstrip": false, "rstrip": false, "normalized": false,
        "single_word": false, "special": false}});
    let unknown = "[UNK]";
    let chinese = "\u{5b57}";
    for (config, expected) in [
        (
            json!({}),
            vec!["hello", "world", unknown, chinese, "a", "##b"],
        ),
        (
            json!({"do_lower_case": false}),
            vec![unknown, unknown, unknown, chinese, "a", "##b"],
        ),
        (
            json!({"do_lower_case": false, "tokenizer_class": "ElectraTokenizerFast"}),
            vec![unknown, unknown, unknown, chinese, "a", "##b"],
        ),
        (
            json!({"do_lower_case": false, "tokenizer_class": "PreTrainedTokenizerFast"}),
            vec!["hello", "world", unknown, chinese, "a", "##b"],
        ),
        (
            json!({"strip_accents": false}),
            vec![unknown, "world", unknown, chinese, "a", "##b"],
        ),
        (
            json!({"tokenize_chinese_chars": false}),
            vec!["hello", "world", unknown, "a", "##b"],
        ),
    ] {
        let tokenizer = bert(&config).unwrap();
        let tokens = tokenizer.tokens(text, false).unwrap();
        let names: Vec<&str> = tokens.iter().map(|token| token.name.as_str()).collect();
        assert_eq!(names, expected, "{config}");
    }
    let error = bert(&json!({"added_tokens_decoder": added})).err().unwrap();
    assert!(
        error.contains("\"ab\"") && error.contains("as 7"),
        "{error}"
    );
    let error = bert(&json!({"cls_token": "[MASK]"})).err().unwrap();
    assert!(error.contains("cls_token = \"[MASK]\""), "{error}");
    let side = |config| bert(&config).unwrap().side();
    assert_eq!(side(json!({"truncation_side": "left"})), Side::Left);
    assert_eq!(side(json!({})), Side::Right);
}

#[test]
fn a_word_as_long_as_a_book_is_one_unknown_token() {
    let tokenizer = bert(&json!({})).unwrap();
    for n in [70_000, 1_000_000, 3_000_000] {
        let tokens = tokenizer.encode(&"a".repeat(n)).unwrap();
        assert_eq!((tokens.ids.len(), tokens.n_tokens_full), (3, 3), "{n}");
    }
    let chinese = "\u{5b57}".repeat(90_000);
    assert_eq!(tokenizer.encode(&chinese).unwrap().n_tokens_full, 90_002);
}

#[test]
fn a_text_that_nobody_waits_for_is_given_up() {
    let text = "word ".repeat(200 << 10);
    assert!(
        tiny(512)
            .encode_unless(&text, cut(Side::Right), || true)
            .is_err()
    );
}
