//! Arguments of `pull` and `models`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use embedgate_hub::Source;

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The model, such as BAAI/bge-m3; modelscope:BAAI/bge-m3 and hf:BAAI/bge-m3 ask one hub alone, @REVISION behind it names a
    /// branch, a tag or a commit.
    #[arg(value_name = "MODEL")]
    pub source: Source,
    /// The model's folder [default: models/NAME].
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Where to ask: hf, modelscope, or the address of a mirror of Hugging Face, or modelscope=ADDRESS for one of ModelScope
    /// [default: both hubs, or those that HF_ENDPOINT and MODELSCOPE_ENDPOINT name].
    #[arg(long, value_name = "HUB,...", value_delimiter = ',')]
    pub from: Vec<String>,
    /// Fetch ONNX models and their data too.
    #[arg(long)]
    pub onnx: bool,
    /// Fetch all files of the repository.
    #[arg(long)]
    pub all: bool,
    /// Fetch files of this pattern too, such as "imgs/*".
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Connections at a time.
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    pub jobs: usize,
    /// List the files that would be fetched, and fetch none.
    #[arg(long)]
    pub dry_run: bool,
}

/// Commands on fetched models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Show the models of the configuration: their folders, where they are from, and their revision.
    List,
    /// Read every file of fetched models, and compare it with the record of the fetch; no request is sent.
    Verify {
        /// Models' folders [default: those of the configuration].
        #[arg(value_name = "DIR")]
        folders: Vec<PathBuf>,
    },
}
