//! The command line of `bench`.

use std::{fmt, path::PathBuf};

use clap::{Args, ValueEnum};
use embedgate_config::Period;
use embedgate_request::Lane;
use embedgate_tools::bench::{Lengths, Target};

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Servers to measure side by side, as URL or NAME=URL; http only. A URL without a path means /v1/embeddings.
    #[arg(value_name = "TARGET", default_value = "http://127.0.0.1:9100")]
    pub targets: Vec<Target>,
    /// The model to name; none names none.
    #[arg(short, long, value_name = "NAME")]
    pub model: Option<String>,
    /// Closed loop: so many clients, each with one request at a time; several are measured one after another.
    #[arg(
        short = 'n',
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,8,32"
    )]
    pub concurrency: Vec<usize>,
    /// Open loop instead: so many requests a second, whether answers come or not.
    #[arg(
        short,
        long,
        value_name = "RATE,...",
        value_delimiter = ',',
        conflicts_with = "concurrency"
    )]
    pub rate: Vec<f64>,
    /// Length of each measurement.
    #[arg(short, long, value_name = "TIME", default_value = "10s")]
    pub duration: Period,
    /// Load before each measurement that does not count; 0s for none.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub warm_up: Period,
    /// Times that everything is measured, targets in turn; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: usize,
    /// Texts in each request.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub inputs: usize,
    /// Random words in a text: 100, or 10..400 with the logarithm spread evenly.
    #[arg(short, long, value_name = "LENGTHS", default_value = "10..200")]
    pub words: Lengths,
    /// Take the lines of this file as texts, instead of random words.
    #[arg(long, value_name = "FILE")]
    pub texts: Option<PathBuf>,
    /// Share of texts that were asked for before, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub hit_ratio: f64,
    /// How many texts those are taken from.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub hot: usize,
    /// How vectors are asked for.
    #[arg(short, long, value_enum, default_value_t = EncodingArg::Base64)]
    pub encoding: EncodingArg,
    /// Sent as x-embedgate-lane: query or bulk.
    #[arg(long, value_name = "LANE", value_parser = lane)]
    pub lane: Option<Lane>,
    /// Clients that send bulk beside what is measured, 16 texts a request.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub background: usize,
    /// The API key; a variable, EMBEDGATE_KEY, keeps it out of the list of processes.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// An answer that takes longer counts as an error.
    #[arg(long, value_name = "TIME", default_value = "2m")]
    pub timeout: Period,
    /// Makes the texts of the hot set; all others are new in every run.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Measure a server beside it that does nothing but send the same bytes: the ratio to it is what the gateway costs.
    #[arg(long)]
    pub bare: bool,
    /// Write the figures there, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a plot of latency against load there, as SVG.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// A form of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EncodingArg {
    /// JSON numbers.
    Float,
    /// Little-endian f32 in base64.
    Base64,
}

impl fmt::Display for EncodingArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::Base64 => "base64",
        })
    }
}

fn lane(text: &str) -> Result<Lane, String> {
    let known = Lane::ALL.into_iter().find(|lane| lane.name() == text);
    known.ok_or_else(|| "expected query or bulk".into())
}
