//! Turns texts into the model's tokens, on threads of their own.

mod parts;
mod pool;
mod settings;
mod slices;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use embedgate_core::{TokenizerSettings, impostor};
use embedgate_request::{MOST_COUNTED, Side, Truncation};
use tokenizers::{Encoding, Tokenizer, TruncationDirection};

use self::slices::Slicing;
pub(crate) use self::{
    parts::{Cutting, Parts},
    pool::{TOKENIZER, TokenizerPool},
};

/// The tokens of one input, cut to the model's longest sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenized {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// The segment of each token of a pair; empty for one text.
    pub type_ids: Vec<u32>,
    /// Tokens of the whole input: more than `ids` holds where it was cut. More than [`MOST_COUNTED`] are not counted.
    pub n_tokens_full: usize,
}

impl Tokenized {
    /// Takes the model's own ids as they are, cut on one side.
    #[must_use]
    pub fn native(ids: &[u32], max_tokens: usize, side: Side) -> Self {
        let n_over = ids.len().saturating_sub(max_tokens);
        let kept = match side {
            Side::Left => &ids[n_over..],
            Side::Right => &ids[..ids.len() - n_over],
        };
        Self {
            ids: kept.to_vec(),
            type_ids: Vec::new(),
            n_tokens_full: ids.len(),
        }
    }
}

/// One token of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// As it stands in the vocabulary.
    pub name: String,
    /// The place of its begin and its end in the text, in characters; none for a special token.
    pub place: Option<(usize, usize)>,
}

/// The tokens of a query, for as many pairs as there are; cut to the most that a query may have of a pair.
pub struct Query {
    encoding: Encoding,
    /// Tokens of the whole query: more than [`Query::n_tokens`] where it was cut.
    pub n_tokens_full: usize,
}

impl Query {
    /// Tokens that stand in each pair.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.encoding.len()
    }
}

/// The tokenizer of one model.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Arc<Tokenizer>,
    slicing: Slicing,
    side: Side,
    max_tokens: usize,
    /// Special tokens that the post-processor puts around a text.
    n_added: usize,
    /// Special tokens that the post-processor puts around and between two texts.
    n_added_to_pair: usize,
}

/// The reason why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct TokenizerError {
    path: String,
    problem: String,
}

impl TextTokenizer {
    /// Loads `tokenizer.json` of a model folder, and does what the folder says beside it. Truncation and padding that the file
    /// may ask for are turned off: the cut is the model's longest sequence, and sequences are not padded here.
    ///
    /// # Errors
    /// [`TokenizerError`] names the file and what is wrong with it.
    pub fn load(
        folder: &Path,
        max_tokens: usize,
        settings: &TokenizerSettings,
    ) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let error = |problem: String| TokenizerError {
            path: path.display().to_string(),
            problem,
        };
        if !path.exists() {
            return Err(error(
                "is missing: expected the tokenizer in the format of the tokenizers library".into(),
            ));
        }
        if let Some(problem) = impostor(&path) {
            return Err(error(problem.into()));
        }
        let load = || -> Result<(Tokenizer, Side, usize, usize), String> {
            let mut inner = Tokenizer::from_file(&path).map_err(|e| e.to_string())?;
            let cuts_left = || {
                inner
                    .get_truncation()
                    .map(|t| t.direction == TruncationDirection::Left)
            };
            let side = match settings.cut_left.or_else(cuts_left) {
                Some(true) => Side::Left,
                Some(false) | None => Side::Right,
            };
            inner.with_padding(None);
            inner.with_truncation(None).map_err(|e| e.to_string())?;
            settings::apply(&mut inner, settings)?;
            let n_added = inner
                .encode_fast("", true)
                .map_err(|e| e.to_string())?
                .len();
            let n_pair = inner
                .encode_fast(("", ""), true)
                .map_err(|e| e.to_string())?
                .len();
            Ok((inner, side, n_added, n_pair))
        };
        let (inner, side, n_added, n_added_to_pair) =
            unpanicked(load).and_then(|loaded| loaded).map_err(error)?;
        if n_added >= max_tokens {
            let problem = format!(
                "adds {n_added} special tokens, which leaves no room within {max_tokens} tokens"
            );
            return Err(error(problem));
        }
        if n_added == 0 {
            return Err(error(
                "adds no special tokens: an empty text would have no token at all".into(),
            ));
        }
        Ok(Self {
            slicing: Slicing::of(&inner),
            inner: Arc::new(inner),
            side,
            max_tokens,
            n_added,
            n_added_to_pair,
        })
    }

    /// The side that a text loses where a request says nothing of it.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// Token ids of one text, with special tokens, cut so that these stay.
    ///
    /// # Errors
    /// The tokenizer's own sentence.
    pub fn encode(&self, text: &str) -> Result<Tokenized, String> {
        let truncation = Truncation::Cut {
            side: Side::Right,
            most: None,
        };
        self.encode_unless(text, truncation, || false)
    }

    /// Encodes a text as [`Self::encode`] does, but cut as asked. It gives up between two slices of a long text once
    /// `given_up` returns true.
    fn encode_unless(
        &self,
        text: &str,
        truncation: Truncation,
        given_up: impl Fn() -> bool,
    ) -> Result<Tokenized, String> {
        unpanicked(|| {
            // Special tokens stay.
            let most = truncation.most_tokens(self.max_tokens);
            let room = most.saturating_sub(self.n_added);
            let (encoding, n) = self.bare(text, room, truncation.side(), given_up)?;
            let encoding = self
                .inner
                .post_process(encoding, None, true)
                .map_err(|e| e.to_string())?;
            Ok(Tokenized {
                ids: encoding.get_ids().to_vec(),
                type_ids: Vec::new(),
                n_tokens_full: n + self.n_added,
            })
        })?
    }

    /// The tokens of a query, cut where it alone would be more than three quarters of the longest pair.
    ///
    /// Source: FlagEmbedding 1.4.2, `inference/reranker/encoder_only/base.py`: queries have three quarters at most.
    fn encode_query_unless(
        &self,
        query: &str,
        given_up: impl Fn() -> bool,
    ) -> Result<Query, String> {
        unpanicked(|| {
            let most = (self.max_tokens * 3 / 4).min(self.room_of_pair());
            let (encoding, n_tokens_full) = self.bare(query, most, Side::Right, given_up)?;
            Ok(Query {
                encoding,
                n_tokens_full,
            })
        })?
    }

    /// Token ids of a query and a text that may answer it, with special tokens and segments. The text is cut, on one
    /// side. Whether the query was cut is not counted here: that is the same in each of its pairs.
    ///
    /// Source: FlagEmbedding 1.4.2, `inference/reranker/encoder_only/base.py`: `truncation="only_second"`.
    fn encode_pair_unless(
        &self,
        query: &Query,
        text: &str,
        side: Side,
        given_up: impl Fn() -> bool,
    ) -> Result<Tokenized, String> {
        unpanicked(|| {
            let (text, n_text) = self.bare(text, self.room_beside(query), side, given_up)?;
            let encoding = self
                .inner
                .post_process(query.encoding.clone(), Some(text), true)
                .map_err(|e| e.to_string())?;
            Ok(Tokenized {
                ids: encoding.get_ids().to_vec(),
                type_ids: encoding.get_type_ids().to_vec(),
                n_tokens_full: query.n_tokens() + n_text + self.n_added_to_pair,
            })
        })?
    }

    /// Counts the tokens that a text may have in a pair with a query.
    #[must_use]
    pub fn room_beside(&self, query: &Query) -> usize {
        self.room_of_pair() - query.n_tokens()
    }

    /// Counts the tokens that both texts of a pair may have together.
    fn room_of_pair(&self) -> usize {
        self.max_tokens.saturating_sub(self.n_added_to_pair)
    }

    /// The tokens of a text without special ones, cut to `room`; and how many there were, counted to one more than
    /// [`MOST_COUNTED`]. What is beyond that is not read: it could not change the tokens that stay.
    fn bare(
        &self,
        text: &str,
        room: usize,
        side: Side,
        given_up: impl Fn() -> bool,
    ) -> Result<(Encoding, usize), String> {
        let (mut kept, mut n_tokens, mut rest) = (None::<Encoding>, 0, text);
        loop {
            let (slice, left) = self.slice(rest, side);
            let more = self.inner.encode_fast(slice, false);
            let mut more = more.map_err(|e| e.to_string())?;
            n_tokens += more.len();
            // What cannot stay is only counted: a token takes over 100 bytes while it is made.
            kept = Some(match (kept, side) {
                (Some(kept), _) if kept.len() >= room => kept,
                (Some(mut kept), Side::Right) => {
                    kept.merge_with(more, false);
                    kept
                }
                (Some(kept), Side::Left) => {
                    more.merge_with(kept, false);
                    more
                }
                (None, _) => more,
            });
            rest = left;
            let is_full = kept.as_ref().is_some_and(|kept| kept.len() >= room);
            if rest.is_empty() || (is_full && n_tokens > MOST_COUNTED) {
                break;
            }
            if given_up() {
                return Err("the caller left".into());
            }
        }
        let mut kept = kept.unwrap_or_default();
        cut(&mut kept, room, side);
        Ok((kept, n_tokens.min(MOST_COUNTED.max(room) + 1)))
    }

    /// The slice of a text at the side that stays, and the rest.
    fn slice<'a>(&self, text: &'a str, side: Side) -> (&'a str, &'a str) {
        match side {
            Side::Right => self.slicing.split(text, self.slice_bytes()),
            Side::Left => {
                let (before, slice) = self.slicing.split_end(text, self.slice_bytes());
                (slice, before)
            }
        }
    }

    /// Long texts go through the tokenizer in slices of so many bytes. All that fits into a sequence is in the first one
    /// unless its tokens are longer than 16 bytes on average, which is four times what texts have.
    fn slice_bytes(&self) -> usize {
        (self.max_tokens * 16).max(64 << 10)
    }

    /// The tokens of a text one by one, not cut.
    ///
    /// # Errors
    /// The tokenizer's own sentence.
    pub fn tokens(&self, text: &str, with_special: bool) -> Result<Vec<Token>, String> {
        unpanicked(|| {
            let encoding = self
                .inner
                .encode_char_offsets(text, with_special)
                .map_err(|e| e.to_string())?;
            let ids = encoding.get_ids().iter().zip(encoding.get_tokens());
            let places = encoding
                .get_offsets()
                .iter()
                .zip(encoding.get_special_tokens_mask());
            Ok(ids
                .zip(places)
                .map(|((id, name), (place, special))| Token {
                    id: *id,
                    name: name.clone(),
                    place: (*special == 0).then_some(*place),
                })
                .collect())
        })?
    }

    /// The text of token ids. An id outside of the vocabulary stands for nothing.
    ///
    /// # Errors
    /// The tokenizer's own sentence.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, String> {
        unpanicked(|| {
            self.inner
                .decode(ids, skip_special)
                .map_err(|e| e.to_string())
        })?
    }

    /// A token as it stands in the vocabulary; none where there is no such id.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The largest id that the tokenizer can give.
    #[must_use]
    pub fn max_id(&self) -> u32 {
        self.inner.get_vocab(true).into_values().max().unwrap_or(0)
    }

    /// Ids of the tokens that never get a sparse weight, sorted: begin, end, padding and unknown.
    #[must_use]
    pub fn special_token_ids(&self) -> Vec<u32> {
        let names = [
            "<s>", "</s>", "<pad>", "<unk>", "[CLS]", "[SEP]", "[PAD]", "[UNK]",
        ];
        let mut ids: Vec<u32> = names
            .iter()
            .filter_map(|name| self.inner.token_to_id(name))
            .collect();
        ids.sort_unstable();
        ids
    }
}

/// Cuts an encoding to so many tokens, and forgets the rest.
fn cut(encoding: &mut Encoding, room: usize, side: Side) {
    if encoding.len() > room {
        let direction = match side {
            Side::Left => TruncationDirection::Left,
            Side::Right => TruncationDirection::Right,
        };
        encoding.truncate(room, 0, direction);
        drop(encoding.take_overflowing());
    }
}

/// The library panics on some damaged files and on texts that meet them.
fn unpanicked<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f))
        .map_err(|_| "the tokenizer cannot handle it: its file is damaged".to_owned())
}

#[cfg(test)]
mod tests {
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
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-bert-reranker");
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
}
