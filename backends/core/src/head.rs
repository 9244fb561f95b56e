//! The heads of models: one table says what each of them gives, and all other code asks it.
//!
//! A new head is a variant of [`Head`], an entry of the table, and the code that computes it in the backends that have it.

mod per_head;
mod set;

pub use self::{
    per_head::PerHead,
    set::{Outputs, TokenSelection},
};

/// A head of a model: one kind of result for each sequence.
///
/// The number of a head is a part of keys and files that outlive the process: a new head comes last. A backend that does not compute it
/// need not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Head {
    /// One vector a sequence.
    Dense,
    /// One weight a distinct token of a sequence.
    Sparse,
    /// One vector a token (ColBERT).
    MultiVector,
    /// One vector a token, as the last layer gives it.
    TokenVectors,
    /// One score a sequence (cross-encoders): the logit as the head gives it, larger for a better match. No sigmoid.
    Score,
}

/// The form of a head's result for one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadForm {
    /// A vector of the model's dimensions, pooled, not normalized.
    Vector,
    /// A weight for each distinct token id.
    Weights,
    /// A vector of the model's dimensions for each token, not normalized.
    Rows {
        /// The number of first tokens that have no row.
        skipped: usize,
        /// True when an answer has rows of length 1.
        normalized: bool,
    },
    /// One number.
    Score,
}

/// The tokens whose rows a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Those that the model's pooling reads; of a cross-encoder, those that its head pools.
    Pooled,
    /// All tokens of a sequence.
    All,
}

/// The words for a head in requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadNames {
    /// The name by which a request asks for the head; in files, columns of weights and of offsets begin with it (`sparse_indices`).
    pub output: &'static str,
    /// The member of an answer that holds the result; in files, the column of vectors.
    pub member: &'static str,
    /// The result in words.
    pub help: &'static str,
}

/// The facts of one head.
struct HeadFacts {
    head: Head,
    /// The name in messages.
    name: &'static str,
    /// The results in messages.
    results: &'static str,
    form: HeadForm,
    reads: Reads,
    /// None: requests do not ask for the head by name, a route of its own gives it.
    names: Option<HeadNames>,
}

/// The table of heads, in the order of their numbers.
const TABLE: &[HeadFacts] = &[
    HeadFacts {
        head: Head::Dense,
        name: "dense",
        results: "dense vectors",
        form: HeadForm::Vector,
        reads: Reads::Pooled,
        names: Some(HeadNames {
            output: "dense",
            member: "embedding",
            help: "One vector",
        }),
    },
    HeadFacts {
        head: Head::Sparse,
        name: "sparse",
        results: "sparse weights",
        form: HeadForm::Weights,
        reads: Reads::All,
        names: Some(HeadNames {
            output: "sparse",
            member: "sparse_embedding",
            help: "A weight for each distinct token",
        }),
    },
    HeadFacts {
        head: Head::MultiVector,
        name: "multi-vector",
        results: "ColBERT vectors",
        form: HeadForm::Rows {
            skipped: 1,
            normalized: true,
        },
        reads: Reads::All,
        names: Some(HeadNames {
            output: "colbert",
            member: "colbert_embedding",
            help: "A vector for each token but the first",
        }),
    },
    HeadFacts {
        head: Head::TokenVectors,
        name: "token vectors",
        results: "token vectors",
        form: HeadForm::Rows {
            skipped: 0,
            normalized: false,
        },
        reads: Reads::All,
        names: None,
    },
    HeadFacts {
        head: Head::Score,
        name: "score",
        results: "scores",
        form: HeadForm::Score,
        reads: Reads::Pooled,
        names: None,
    },
];

/// The number of heads.
const COUNT: usize = TABLE.len();

impl Head {
    /// All heads, in the order of their numbers.
    pub const ALL: [Self; COUNT] = {
        let mut all = [Self::Dense; COUNT];
        let mut i = 0;
        while i < COUNT {
            assert!(TABLE[i].head as usize == i, "the table has another order");
            // Scores are of pairs: no request for embeddings asks for them.
            let is_score = matches!(TABLE[i].form, HeadForm::Score);
            assert!(!is_score || TABLE[i].names.is_none(), "a score has a name");
            all[i] = TABLE[i].head;
            i += 1;
        }
        all
    };

    fn facts(self) -> &'static HeadFacts {
        &TABLE[self as usize]
    }

    /// The name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The results in messages, such as "dense vectors".
    #[must_use]
    pub fn results(self) -> &'static str {
        self.facts().results
    }

    /// The form of the result for one sequence.
    #[must_use]
    pub fn form(self) -> HeadForm {
        self.facts().form
    }

    /// The words in requests and answers; none for a head that requests do not ask for by name.
    #[must_use]
    pub fn names(self) -> Option<HeadNames> {
        self.facts().names
    }

    /// The heads that requests ask for by name, with their words.
    pub fn named() -> impl Iterator<Item = (Self, HeadNames)> + Clone {
        Self::ALL
            .into_iter()
            .filter_map(|head| Some((head, head.names()?)))
    }

    /// The head that a request asks for by this name.
    #[must_use]
    pub fn of_output(output: &str) -> Option<Self> {
        let mut named = Self::named();
        named
            .find(|(_, names)| names.output == output)
            .map(|(head, _)| head)
    }
}
