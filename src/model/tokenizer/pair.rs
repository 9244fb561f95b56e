//! Pairs of a query and a text, for cross-encoders: the query is tokenized once.

use embedgate_request::Side;
use tokenizers::Encoding;

use super::{TextTokenizer, Tokenized, unpanicked};

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

impl TextTokenizer {
    /// The tokens of a query, cut where it alone would be more than three quarters of the longest pair.
    ///
    /// Source: FlagEmbedding 1.4.2, `inference/reranker/encoder_only/base.py`: queries have three quarters at most.
    pub(super) fn encode_query_unless(
        &self,
        query: &str,
        given_up: impl Fn() -> bool,
    ) -> Result<Query, String> {
        unpanicked(|| {
            let most = (self.max_tokens * 3 / 4).min(self.room_of_pair());
            let (encoding, n_tokens_full) =
                self.encode_without_special(query, most, Side::Right, given_up)?;
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
    pub(super) fn encode_pair_unless(
        &self,
        query: &Query,
        text: &str,
        side: Side,
        given_up: impl Fn() -> bool,
    ) -> Result<Tokenized, String> {
        unpanicked(|| {
            let (text, n_text) =
                self.encode_without_special(text, self.room_beside(query), side, given_up)?;
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
}
