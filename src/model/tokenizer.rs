//! Turns texts into the model's tokens, on threads of their own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use tokenizers::{
    NormalizerWrapper, Tokenizer, TruncationDirection,
    normalizers::{Lowercase, Sequence},
};
use tokio::sync::oneshot;

use crate::error::Error;

/// Texts waiting for a tokenizer thread. Admission bounds how many there can be; this bounds what lies in the channel.
const CHANNEL: usize = 1024;

/// The tokens of one input, cut to the model's longest sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenized {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Tokens of the whole input: more than `ids` holds where it was cut.
    pub n_tokens_full: usize,
}

impl Tokenized {
    /// Takes the model's own ids as they are, cut at the end.
    #[must_use]
    pub fn native(ids: &[u32], max_tokens: usize) -> Self {
        Self {
            ids: ids[..ids.len().min(max_tokens)].to_vec(),
            n_tokens_full: ids.len(),
        }
    }
}

/// The tokenizer of one model.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Arc<Tokenizer>,
    max_tokens: usize,
    /// Special tokens that the post-processor puts around a text.
    n_added: usize,
}

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct TokenizerError {
    path: String,
    problem: String,
}

impl TextTokenizer {
    /// Loads `tokenizer.json` of a model folder. Truncation and padding that it may ask for are turned off: the cut is
    /// the model's longest sequence, and sequences are not padded here.
    ///
    /// # Errors
    /// [`TokenizerError`] names the file and what is wrong with it.
    pub fn load(
        folder: &Path,
        max_tokens: usize,
        lower_case: bool,
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
        let load = || -> Result<(Tokenizer, usize), String> {
            let mut inner = Tokenizer::from_file(&path).map_err(|e| e.to_string())?;
            inner.with_padding(None);
            inner.with_truncation(None).map_err(|e| e.to_string())?;
            if lower_case {
                put_in_lower_case(&mut inner)?;
            }
            let n_added = inner
                .encode_fast("", true)
                .map_err(|e| e.to_string())?
                .len();
            Ok((inner, n_added))
        };
        let (inner, n_added) = unpanicked(load).and_then(|loaded| loaded).map_err(error)?;
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
            inner: Arc::new(inner),
            max_tokens,
            n_added,
        })
    }

    /// Token ids of one text, with special tokens, cut so that these stay.
    ///
    /// # Errors
    /// The tokenizer's own sentence.
    pub fn encode(&self, text: &str) -> Result<Tokenized, String> {
        unpanicked(|| {
            let mut encoding = self
                .inner
                .encode_fast(text, false)
                .map_err(|e| e.to_string())?;
            let n_tokens_full = encoding.len() + self.n_added;
            if n_tokens_full > self.max_tokens {
                encoding.truncate(
                    self.max_tokens - self.n_added,
                    0,
                    TruncationDirection::Right,
                );
            }
            let encoding = self
                .inner
                .post_process(encoding, None, true)
                .map_err(|e| e.to_string())?;
            Ok(Tokenized {
                ids: encoding.get_ids().to_vec(),
                n_tokens_full,
            })
        })?
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

/// What `do_lower_case` of sentence-transformers does.
fn put_in_lower_case(tokenizer: &mut Tokenizer) -> Result<(), String> {
    let mut steps = vec![NormalizerWrapper::from(Lowercase)];
    steps.extend(tokenizer.get_normalizer().cloned());
    tokenizer
        .with_normalizer(Some(Sequence::new(steps)))
        .map_err(|e| e.to_string())?;
    Ok(())
}

/// The library panics on some damaged files and on texts that meet them.
fn unpanicked<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f))
        .map_err(|_| "the tokenizer cannot handle it: its file is damaged".to_owned())
}

struct Job {
    text: String,
    reply: oneshot::Sender<Result<Tokenized, String>>,
}

/// Tokenizer threads of one model; they end when the pool is dropped.
pub struct TokenizerPool {
    jobs: async_channel::Sender<Job>,
}

impl TokenizerPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(model: &str, tokenizer: &TextTokenizer, threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = async_channel::bounded::<Job>(CHANNEL);
        for i in 0..threads {
            let (queue, tokenizer) = (queue.clone(), tokenizer.clone());
            let work = move || {
                while let Ok(job) = queue.recv_blocking() {
                    if !job.reply.is_closed() {
                        // An error means that the caller left in the meantime.
                        drop(job.reply.send(tokenizer.encode(&job.text)));
                    }
                }
            };
            std::thread::Builder::new()
                .name(format!("tokenizer-{i}-{model}"))
                .spawn(work)?;
        }
        Ok(Self { jobs })
    }

    /// Tokenizes one text.
    ///
    /// # Errors
    /// `InvalidRequest` when the tokenizer refuses the text; `Unavailable` when the threads are gone.
    pub async fn encode(&self, text: String) -> Result<Tokenized, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || {
            Error::unavailable(
                "the tokenizer has stopped",
                std::time::Duration::from_secs(1),
            )
        };
        self.jobs
            .send(Job { text, reply })
            .await
            .map_err(|_| gone())?;
        let result = answer.await.map_err(|_| gone())?;
        result.map_err(|e| Error::invalid("input", e))
    }
}
