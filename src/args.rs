//! The command line.

#[cfg(feature = "hub")]
pub(crate) mod hub;
#[cfg(feature = "tools")]
pub(crate) mod tools;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use embedgate_config::Period;
use embedgate_core::Precision;

#[cfg(feature = "hub")]
use self::hub::{ModelsCommand, PullArgs};
#[cfg(feature = "tools")]
use self::tools::{BenchArgs, BenchBackendArgs, DoctorCommand};

/// An embedding gateway: serves /v1/embeddings by model name, from models on this machine.
///
/// Every key of the configuration can also be set by a variable: EMBEDGATE_SERVER__MAX_BODY=64MiB sets server.max_body.
/// EMBEDGATE_CONFIG names the file, EMBEDGATE_LISTEN the address. A flag wins over a variable, a variable over the file.
///
/// Exit codes: 0 all well, 1 failed while running, 64 bad command line, 78 bad configuration.
#[derive(Debug, Parser)]
#[command(name = "embedgate", version, max_term_width = 110)]
#[cfg_attr(
    not(feature = "tools"),
    command(
        after_help = "bench, bench-backend and doctor are not in this build: they need the cargo feature tools."
    )
)]
pub struct Cli {
    /// The configuration file [default: $EMBEDGATE_CONFIG, embedgate.toml, /etc/embedgate/embedgate.toml].
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen here instead of server.listen, such as 0.0.0.0:9100.
    #[arg(short, long, value_name = "ADDRESS", value_parser = embedgate_config::resolve)]
    pub listen: Option<SocketAddr>,
    /// Write the port that is listened on to this file, once it is (with --listen 127.0.0.1:0, the system chooses one).
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (the default).
    Serve(ServeArgs),
    /// Write a configuration to begin with, and a key.
    Init(InitArgs),
    /// Check the configuration and the models' folders: print the resolved configuration, or every problem.
    Check(CheckArgs),
    /// Embed the lines of a file, and write JSON lines, Parquet or npz.
    Embed(EmbedArgs),
    /// Write an ONNX variant of a model from its own weights.
    Convert(ConvertArgs),
    /// Fetch a model from Hugging Face, ModelScope or a mirror: every byte checked, and gone on with where it was broken off.
    #[cfg(feature = "hub")]
    Pull(PullArgs),
    /// Say of fetched models where they are from, and whether every byte is right.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Put load on this and other embedding servers, and report what they make of it.
    #[cfg(feature = "tools")]
    Bench(Box<BenchArgs>),
    /// Send a running server what a client of it sends, and say what the client would say.
    #[cfg(feature = "tools")]
    #[command(subcommand)]
    Doctor(DoctorCommand),
    /// Make API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make, inspect, test, measure and pin plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Serve the same answer to everybody: what `bench --bare` compares with.
    #[cfg(feature = "tools")]
    #[command(hide = true)]
    BenchBare,
    /// Measure a model's backend alone: its speed by shape of batch, beside what the processor can do, and its accuracy.
    #[cfg(feature = "tools")]
    BenchBackend(BenchBackendArgs),
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
    /// Compile the configuration's plugins into server.state_dir, so that the next start finds them.
    Compile,
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
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Listen here instead of server.listen, such as 0.0.0.0:9100.
    #[arg(short, long, value_name = "ADDRESS", value_parser = embedgate_config::resolve)]
    pub listen: Option<SocketAddr>,
    /// Write the port that is listened on to this file, once it is.
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// Measure how fast models are once more, whatever is kept in server.state_dir.
    #[arg(long)]
    pub recalibrate: bool,
    /// Fetch models that have a source and are not there, while others serve.
    #[arg(long)]
    pub pull: bool,
    /// Serve this model without a configuration: a folder, or a model of a hub (with --pull it is fetched into models/NAME).
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// The name of --model [default: the folder's].
    #[arg(long, requires = "model")]
    pub name: Option<String>,
    /// Other names of --model.
    #[arg(
        long = "alias",
        value_name = "NAME,...",
        value_delimiter = ',',
        requires = "model"
    )]
    pub aliases: Vec<String>,
    /// The key that clients of --model send; EMBEDGATE_KEY says it too, where other users of this machine do not see it. Without
    /// one, anybody on this machine may use the server, and nobody else reaches it.
    #[arg(long, requires = "model")]
    pub key: Option<String>,
    /// Let anybody use --model, on any address.
    #[arg(long, requires = "model")]
    pub no_auth: bool,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// A model's folder, or a model of a hub, such as BAAI/bge-m3.
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// The name that clients use [default: the folder's].
    #[arg(short, long)]
    pub name: Option<String>,
    /// Where to listen.
    #[arg(short, long, value_name = "ADDRESS", default_value = "127.0.0.1:9100", value_parser = embedgate_config::resolve)]
    pub listen: SocketAddr,
    /// The file to write [default: embedgate.toml].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(short, long)]
    pub force: bool,
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
    /// What to read [default: as the file's ending says: .jsonl, .parquet, else lines of text].
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub input_format: Option<InputFormat>,
    /// The member, or column, that holds the text [default: text].
    #[arg(long, value_name = "NAME")]
    pub text: Option<String>,
    /// The member, or column, by which rows are known: strings or whole numbers, written as `id`.
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// What to do with a row that has no text or cannot be embedded.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "stop")]
    pub on_error: OnErrorArg,
    /// Replace an output that is there, and give up the parts of another run.
    #[arg(short, long)]
    pub force: bool,
    /// A file with the texts; - is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
}

impl EmbedArgs {
    /// What is read: as said, or by the file's ending.
    pub(crate) fn input_format(&self) -> InputFormat {
        let ending = self.file.extension().and_then(|ending| ending.to_str());
        self.input_format.unwrap_or(match ending {
            Some("jsonl" | "ndjson") => InputFormat::Jsonl,
            Some("parquet") => InputFormat::Parquet,
            _ => InputFormat::Lines,
        })
    }

    /// Whether bad rows are left out.
    pub(crate) fn skips(&self) -> bool {
        self.on_error == OnErrorArg::Skip
    }
}

/// How texts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A text a line.
    Lines,
    /// A JSON object a line.
    Jsonl,
    /// Apache Parquet, a text a row.
    Parquet,
}

/// What becomes of a bad row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnErrorArg {
    /// It ends the run. What was embedded is kept, and the next run goes on after it.
    Stop,
    /// It is said, and left out.
    Skip,
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
    /// model_int8.onnx_data. With --for gpu f32 writes model_gpu.onnx, f16 writes model_gpu_f16.onnx.
    #[arg(short, long, value_name = "PRECISION", default_value = "f32")]
    pub precision: OnnxPrecision,
    /// The device that the model is written for.
    #[arg(long = "for", value_name = "DEVICE", default_value = "cpu")]
    pub target: OnnxTarget,
    /// Replace an ONNX model that is there already.
    #[arg(short, long)]
    pub force: bool,
}

/// Number formats that ONNX models are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnnxPrecision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, for cards: half of the size.
    F16,
    /// Bytes, for the processor: a quarter of the size.
    Int8,
}

/// Devices that ONNX models are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnnxTarget {
    /// The processor.
    Cpu,
    /// Graphics cards, with ONNX Runtime's WebGPU plugin or its CUDA provider.
    Gpu,
    /// NVIDIA cards alone, without padding. It has never run on a card, and runs only where backend.file names it.
    CudaPacked,
}

impl From<OnnxPrecision> for Precision {
    fn from(precision: OnnxPrecision) -> Self {
        match precision {
            OnnxPrecision::F32 => Self::F32,
            OnnxPrecision::F16 => Self::F16,
            OnnxPrecision::Int8 => Self::Int8,
        }
    }
}
