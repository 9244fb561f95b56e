//! The command line of `bench-backend`.

use std::path::PathBuf;

use clap::Args;
use embedgate_config::PrecisionChoice;
use embedgate_tools::bench::Lengths;

/// Arguments of `bench-backend`.
#[derive(Debug, Args)]
pub struct BenchBackendArgs {
    /// A model of the configuration.
    #[arg(short, long, value_name = "NAME")]
    pub model: Option<String>,
    /// Also run so many texts of random words, in batches of several sizes and one at a time.
    #[arg(short, value_name = "N", default_value_t = 0)]
    pub n: usize,
    /// Random words in such a text, as for bench.
    #[arg(short, long, value_name = "LENGTHS", default_value = "10..200")]
    pub words: Lengths,
    /// Makes the texts, as for bench.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Measure these number formats side by side, each loaded beside the others; f32 is what the others' vectors are
    /// compared with [default: the model's own].
    #[arg(
        short,
        long,
        value_name = "PRECISION,...",
        value_enum,
        value_delimiter = ','
    )]
    pub precision: Vec<PrecisionChoice>,
    /// Times that each shape of batch is measured, precisions in turn; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: usize,
    /// Leave out shapes with longer sequences, in tokens.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub longest: usize,
    /// Tokens of a batch on a card [default: the model's max_batch_tokens, or 16384].
    #[arg(long, value_name = "N")]
    pub batch_tokens: Option<usize>,
    /// Compare the vectors of this file's lines, instead of 144 sentences in twelve languages.
    #[arg(long, value_name = "FILE")]
    pub texts: Option<PathBuf>,
    /// So many of the texts look for their nearest among the rest [default: each looks among all others].
    #[arg(long, value_name = "N")]
    pub queries: Option<usize>,
}
