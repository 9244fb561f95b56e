//! Pairs of a query and a text, for cross-encoders: the query is tokenized once.

use std::sync::Arc;

use embedgate_request::Side;
use tokenizers::Encoding;

use super::{Cutting, TextTokenizer, Tokenized, template::PairTemplate, unpanicked};

/// A query, for as many pairs as there are; cut to the most that a query may have of a pair.
pub struct Query {
    form: Form,
    n_tokens: usize,
    /// Tokens of the whole query: more than [`Query::n_tokens`] where it was cut.
    pub n_tokens_full: usize,
}

/// The query as it goes into pairs.
enum Form {
    /// As tokens, between those that separate texts.
    Tokens(Box<Encoding>),
    /// As text, with what stands around it in the template: where texts meet there may be other tokens than each has alone.
    Text {
        before: String,
        template: Arc<Templated>,
    },
}

impl Query {
    /// Tokens that stand in each pair.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }
}

/// The template of a tokenizer's pairs.
pub(super) struct Templated {
    template: PairTemplate,
    /// Tokens that stand behind the document.
    after: Vec<u32>,
}

impl Templated {
    /// # Errors
    /// The tokenizer's own sentence, or that there is no room for texts.
    pub(super) fn new(
        template: PairTemplate,
        tokenizer: &tokenizers::Tokenizer,
        max_tokens: usize,
    ) -> Result<Self, String> {
        let encode = |text: &str| {
            tokenizer
                .encode_fast(text, false)
                .map_err(|e| e.to_string())
        };
        let after = encode(template.after())?.get_ids().to_vec();
        let n = encode(&template.with_query(""))?.len() + after.len();
        if n + 2 > max_tokens {
            return Err(format!(
                "has {n} tokens without texts, which leaves no room within {max_tokens} tokens"
            ));
        }
        Ok(Self { template, after })
    }
}

impl TextTokenizer {
    /// Returns true when its pairs go through this template, or through none.
    #[must_use]
    pub(crate) fn has_template(&self, template: Option<&PairTemplate>) -> bool {
        let own = self.template.as_ref();
        own.map(|templated| &templated.template) == template
    }

    /// The tokens of a query, cut where it alone would be more than three quarters of the longest pair.
    ///
    /// Source: FlagEmbedding 1.4.2, `inference/reranker/encoder_only/base.py`: queries have three quarters at most.
    pub(super) fn encode_query_unless(
        &self,
        query: &str,
        given_up: impl Fn() -> bool,
    ) -> Result<Query, String> {
        if let Some(templated) = &self.template {
            return self.query_in_template(templated, query, given_up);
        }
        unpanicked(|| {
            let most = (self.max_tokens * 3 / 4).min(self.room_of_pair());
            let (encoding, n_tokens_full) =
                self.encode_without_special(query, most, Side::Right, given_up)?;
            Ok(Query {
                n_tokens: encoding.len(),
                form: Form::Tokens(encoding.into()),
                n_tokens_full,
            })
        })?
    }

    fn query_in_template(
        &self,
        templated: &Arc<Templated>,
        query: &str,
        given_up: impl Fn() -> bool,
    ) -> Result<Query, String> {
        let count = |text: &str| self.count(text, &given_up);
        let template = &templated.template;
        let n_around = count(&template.with_query(""))? + templated.after.len();
        let cutting = Cutting {
            max_tokens: Some((self.max_tokens - n_around) * 3 / 4),
            side: Side::Right,
            room: None,
            max_windows: 1,
        };
        let parts = self.parts_unless(query, cutting, &given_up)?;
        let kept = parts.ranges.into_iter().next().unwrap_or_default();
        let text = template.with_query(&query[kept]);
        let n_tokens = count(&text)? + templated.after.len();
        Ok(Query {
            form: Form::Text {
                before: text,
                template: Arc::clone(templated),
            },
            n_tokens,
            n_tokens_full: n_tokens + parts.n_tokens - parts.n_counted,
        })
    }

    /// Token ids of a query and a text that may answer it, with special tokens and segments. The text is cut, on one
    /// side. Whether the query was cut is not counted here: that is the same in each of its pairs.
    ///
    /// Source: FlagEmbedding 1.4.2, `inference/reranker/encoder_only/base.py`: `truncation="only_second"`; of templates
    /// sentence-transformers 6.2, `base/modules/transformer.py`: what stands behind the document is never cut.
    pub(super) fn encode_pair_unless(
        &self,
        query: &Query,
        text: &str,
        side: Side,
        given_up: impl Fn() -> bool,
    ) -> Result<Tokenized, String> {
        unpanicked(|| {
            let encoding = match &query.form {
                Form::Tokens(encoding) => encoding,
                Form::Text { before, template } => {
                    return self.encode_in_template((before, text, template), side, given_up);
                }
            };
            let (text, n_text) =
                self.encode_without_special(text, self.room_beside(query), side, given_up)?;
            let encoding = self
                .inner
                .post_process((**encoding).clone(), Some(text), true)
                .map_err(|e| e.to_string())?;
            Ok(Tokenized {
                ids: encoding.get_ids().to_vec(),
                type_ids: encoding.get_type_ids().to_vec(),
                n_tokens_full: query.n_tokens() + n_text + self.n_added_to_pair,
            })
        })?
    }

    /// Token ids of what stands before a text, the text, and what stands behind it.
    fn encode_in_template(
        &self,
        (before, text, templated): (&str, &str, &Templated),
        side: Side,
        given_up: impl Fn() -> bool,
    ) -> Result<Tokenized, String> {
        let encode = |text: &str, room: usize, side: Side| {
            self.encode_without_special(text, room, side, &given_up)
        };
        let Templated { template, after } = templated;
        let whole = [before, text, template.after()].concat();
        let (whole, n) = encode(&whole, self.max_tokens, Side::Right)?;
        let mut ids = whole.get_ids().to_vec();
        if n > self.max_tokens {
            let room = self.max_tokens - after.len();
            ids = match side {
                Side::Right => {
                    let cut = encode(&[before, text].concat(), room, side)?.0;
                    cut.get_ids().to_vec()
                }
                Side::Left => {
                    let before = encode(before, room, Side::Right)?.0;
                    let (text, _) = encode(text, room - before.len(), side)?;
                    [before.get_ids(), text.get_ids()].concat()
                }
            };
            ids.extend_from_slice(after);
        }
        Ok(Tokenized {
            ids,
            type_ids: Vec::new(),
            n_tokens_full: n,
        })
    }

    /// Counts the tokens that a text may have in a pair with a query.
    #[must_use]
    pub fn room_beside(&self, query: &Query) -> usize {
        self.room_of_pair().saturating_sub(query.n_tokens())
    }

    /// Counts the tokens that both texts of a pair may have together, and what a template has around them.
    fn room_of_pair(&self) -> usize {
        match self.template {
            Some(_) => self.max_tokens,
            None => self.max_tokens.saturating_sub(self.n_added_to_pair),
        }
    }
}
