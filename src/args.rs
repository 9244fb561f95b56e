//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use embedgate_core::Precision;

use crate::{
    bench::{Lengths, Target},
    config::{Period, PrecisionChoice},
    request::Lane,
};

/// An embedding gateway: serves /v1/embeddings by model name from local candle and ONNX Runtime backends.
///
/// Every key of the configuration can also be set by a variable: EMBEDGATE_SERVER__MAX_BODY=64MiB sets server.max_body.
/// EMBEDGATE_CONFIG names the file, EMBEDGATE_LISTEN the address. A flag wins over a variable, a variable over the file.
///
/// Exit codes: 0 all well, 1 failed while running, 64 bad command line, 78 bad configuration.
#[derive(Debug, Parser)]
#[command(name = "embedgate", version, max_term_width = 110)]
pub struct Cli {
    /// The configuration file [default: $EMBEDGATE_CONFIG, embedgate.toml, /etc/embedgate/embedgate.toml].
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen here instead of server.listen, such as 0.0.0.0:9100.
    #[arg(short, long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (the default).
    Serve(ServeArgs),
    /// Check the configuration and the models' folders: print the resolved configuration, or every problem.
    Check(CheckArgs),
    /// Embed the lines of a file, and write JSON lines, Parquet or npz.
    Embed(EmbedArgs),
    /// Write an ONNX variant of a model from its own weights.
    Convert(ConvertArgs),
    /// Put load on this and other embedding servers, and report what they make of it.
    Bench(Box<BenchArgs>),
    /// Send a running server what a client of it sends, and say what the client would say.
    #[command(subcommand)]
    Doctor(DoctorCommand),
    /// Make API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make, inspect, test, measure and pin plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Serve the same answer to everybody: what `bench --bare` compares with.
    #[command(hide = true)]
    BenchBare,
    /// Measure a model's backend alone: its speed by shape of batch, beside what the processor can do, and its accuracy.
    BenchBackend(BenchBackendArgs),
}

/// Whose requests to send.
#[derive(Debug, Subcommand)]
pub enum DoctorCommand {
    /// Those of each of RAGFlow's providers that reach embedgate.
    Ragflow(RagflowArgs),
}

/// Arguments of `doctor ragflow`.
#[derive(Debug, Args)]
pub struct RagflowArgs {
    /// The server, such as http://127.0.0.1:9100.
    #[arg(long, default_value = "http://127.0.0.1:9100")]
    pub url: Target,
    /// The embedding model, as it is named in RAGFlow.
    #[arg(short, long, value_name = "NAME")]
    pub model: String,
    /// The reranking model; none: reranking is not tried.
    #[arg(short, long, value_name = "NAME")]
    pub rerank_model: Option<String>,
    /// The API key; a variable, EMBEDGATE_KEY, keeps it out of the list of processes.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Print a new key once, and the line for the configuration, which holds its hash alone.
    New {
        /// Who will use it.
        #[arg(short, long)]
        name: Option<String>,
    },
}

/// What to do with plugins.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Make a folder with a plugin that builds.
    New(NewPluginArgs),
    /// Print a component's hooks, imports, interface, size and SHA-256.
    Inspect {
        /// The component.
        file: PathBuf,
    },
    /// Ask a plugin what a file of cases says, and compare its answers.
    Test(TestPluginArgs),
    /// Measure what a plugin's calls cost.
    Bench(BenchPluginArgs),
    /// Write the SHA-256 of plugins into the configuration file.
    Pin {
        /// Names of the configuration [default: all].
        names: Vec<String>,
    },
}

/// Arguments of `plugin new`.
#[derive(Debug, Args)]
pub struct NewPluginArgs {
    /// The plugin's name, and the folder's.
    pub name: String,
    /// The language that it is written in.
    #[arg(short, long, value_enum)]
    pub lang: LanguageArg,
}

/// A language of plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LanguageArg {
    /// With the SDK.
    Rust,
    /// By componentize-qjs.
    Js,
    /// By componentize-py.
    Py,
}

/// Arguments of `plugin test`.
#[derive(Debug, Args)]
pub struct TestPluginArgs {
    /// The component.
    pub file: PathBuf,
    /// What to ask it, and what to expect (docs/plugins.md).
    pub cases: PathBuf,
}

/// Arguments of `plugin bench`.
#[derive(Debug, Args)]
pub struct BenchPluginArgs {
    /// The component.
    pub file: PathBuf,
    /// A file of cases: its `plugin` table, and the cases to measure.
    pub cases: Option<PathBuf>,
    /// Length of each measurement.
    #[arg(short, long, value_name = "TIME", default_value = "1s")]
    pub duration: Period,
}

/// Arguments of `serve`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ServeArgs {
    /// Listen here instead of server.listen, such as 0.0.0.0:9100.
    #[arg(short, long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(value_name = "CONFIG")]
    pub file: Option<PathBuf>,
}

/// Arguments of `embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// A model of the configuration.
    #[arg(short, long, value_name = "NAME")]
    pub model: Option<String>,
    /// Cut vectors to so many dimensions.
    #[arg(short, long, value_name = "N")]
    pub dimensions: Option<usize>,
    /// What to print of each text: its vector, lexical weights, a vector for each token.
    #[arg(
        short,
        long,
        value_name = "OUTPUT,...",
        value_enum,
        value_delimiter = ',',
        default_value = "dense"
    )]
    pub outputs: Vec<OutputArg>,
    /// Write to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What to write [default: as the file's ending says: .jsonl, .parquet or .npz].
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// A file with one text a line; - is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet, one row a text.
    Parquet,
    /// NumPy's arrays in a zip.
    Npz,
}

/// What a model gives of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// One vector.
    Dense,
    /// A weight for each distinct token.
    Sparse,
    /// A vector for each token but the first.
    Colbert,
}

/// Arguments of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The model's folder, with config.json, tokenizer.json and weights.
    #[arg(value_name = "MODEL_DIR")]
    pub folder: PathBuf,
    /// Where to write the model [default: MODEL_DIR/onnx].
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Number format of the layers' products: f32 writes model.onnx and model.onnx_data, int8 writes model_int8.onnx and
    /// model_int8.onnx_data.
    #[arg(short, long, value_name = "PRECISION", default_value = "f32")]
    pub precision: OnnxPrecision,
    /// Replace an ONNX model that is there already.
    #[arg(short, long)]
    pub force: bool,
}

/// Number formats that ONNX models are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnnxPrecision {
    /// 32-bit floats.
    F32,
    /// Bytes: a quarter of the size.
    Int8,
}

impl From<OnnxPrecision> for Precision {
    fn from(precision: OnnxPrecision) -> Self {
        match precision {
            OnnxPrecision::F32 => Self::F32,
            OnnxPrecision::Int8 => Self::Int8,
        }
    }
}

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
    /// Compare the vectors of this file's lines, instead of 144 sentences in twelve languages.
    #[arg(long, value_name = "FILE")]
    pub texts: Option<PathBuf>,
    /// So many of the texts look for their nearest among the rest [default: each looks among all others].
    #[arg(long, value_name = "N")]
    pub queries: Option<usize>,
}

/// How vectors are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EncodingArg {
    /// JSON numbers.
    Float,
    /// Little-endian f32 in base64.
    Base64,
}

impl std::fmt::Display for EncodingArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
