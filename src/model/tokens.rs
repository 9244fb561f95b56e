//! The work of a model's tokenizer threads.

use std::sync::Arc;

use embedgate_request::{Error, Input, Lane, Side, Truncation};

use super::{
    Model,
    tokenizer::{Cutting, Parts, TextTokenizer, Tokenized, pair::Query},
};

impl Model {
    /// Turns an input into tokens on the model's tokenizer threads: a text behind a prompt, cut on one side.
    ///
    /// # Errors
    /// Unavailable when the model is shutting down; `InvalidRequest` when the tokenizer refuses the text.
    pub(crate) async fn tokenize(
        &self,
        prompt: &str,
        input: &Input,
        truncation: Truncation,
        lane: Lane,
    ) -> Result<Tokenized, Error> {
        match input {
            Input::Text(text) => {
                let text = Arc::new(format!("{prompt}{text}"));
                let bytes = text.len();
                let tokens = self.tokenizing.encode(text, truncation, lane).await?;
                self.observe_ratio(bytes, tokens.n_tokens_full);
                Ok(tokens)
            }
            Input::Tokens(ids) => {
                let most = truncation.most_tokens(self.info.max_sequence_tokens);
                Ok(Tokenized::native(ids, most, truncation.side()))
            }
        }
    }

    /// Turns a query into tokens, for as many pairs as there are.
    ///
    /// # Errors
    /// As [`Model::tokenize`].
    pub(crate) async fn tokenize_query(&self, query: String, lane: Lane) -> Result<Query, Error> {
        self.tokenizing.encode_query(Arc::new(query), lane).await
    }

    /// Turns a query and a text that may answer it into tokens; the text is cut on one side.
    ///
    /// # Errors
    /// As [`Model::tokenize`].
    pub(crate) async fn tokenize_pair(
        &self,
        query: &Arc<Query>,
        text: Arc<String>,
        side: Side,
        lane: Lane,
    ) -> Result<Tokenized, Error> {
        let bytes = text.len();
        let encoding = self.tokenizing.encode_pair(query, text, side, lane);
        let tokens = encoding.await?;
        // Where texts meet in a template there may be fewer tokens.
        let of_text = tokens.n_tokens_full.saturating_sub(query.n_tokens());
        self.observe_ratio(bytes, of_text);
        Ok(tokens)
    }

    /// Cuts a text into parts on the model's tokenizer threads.
    ///
    /// # Errors
    /// As [`Model::tokenize`].
    pub(crate) async fn parts(
        &self,
        text: &Arc<String>,
        cutting: Cutting,
        lane: Lane,
    ) -> Result<Parts, Error> {
        self.tokenizing.parts(text, cutting, lane).await
    }

    /// Counts the tokens that a text may have behind a prompt.
    ///
    /// # Errors
    /// As [`Model::tokenize`].
    pub(crate) async fn room_behind(&self, prompt: Arc<str>, lane: Lane) -> Result<usize, Error> {
        let bytes = prompt.len();
        let count =
            move |tokenizer: &TextTokenizer, _: &dyn Fn() -> bool| tokenizer.room_behind(&prompt);
        self.tokenizing.run(bytes, lane, count).await
    }
}
