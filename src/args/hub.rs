//! Arguments of `pull` and `models`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The model, such as BAAI/bge-m3; modelscope:BAAI/bge-m3 and hf:BAAI/bge-m3 ask one hub alone, @REVISION behind it names a
    /// branch, a tag or a commit. Or the name of a model of the configuration that has a source [default: all of those].
    #[arg(value_name = "MODEL")]
    pub model: Option<String>,
    /// The model's folder [default: models/NAME, or the path that the configuration says].
    #[arg(long, value_name = "DIR", requires = "model")]
    pub to: Option<PathBuf>,
    /// Where to ask: hf, modelscope, or the address of a mirror of Hugging Face, or modelscope=ADDRESS for one of ModelScope; a
    /// folder (/mnt/bge-m3, ./bge-m3) is looked into for files that need not be fetched [default: hub.order of the
    /// configuration, else both hubs, or those that HF_ENDPOINT and MODELSCOPE_ENDPOINT name].
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
    /// Connections at a time [default: 4, or hub.connections of the configuration].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: Option<u8>,
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
        /// Names of the configuration, or folders [default: all that `list` shows].
        #[arg(value_name = "MODEL")]
        models: Vec<PathBuf>,
    },
    /// Delete a fetched model's files; others of its folder stay.
    Remove {
        /// Names of the configuration, or folders.
        #[arg(value_name = "MODEL", required = true)]
        models: Vec<PathBuf>,
        /// Delete folders that no pull has fetched too, with all that is in them.
        #[arg(short, long)]
        force: bool,
    },
    /// Write the record of a folder that no pull has fetched, as it is now: verify compares with it from then on.
    Lock {
        /// Names of the configuration, or folders [default: all that have none].
        #[arg(value_name = "MODEL")]
        models: Vec<PathBuf>,
    },
}
