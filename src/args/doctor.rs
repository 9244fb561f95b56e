//! The command line of `doctor`.

#[cfg(feature = "cuda")]
use std::path::PathBuf;

use clap::{Args, Subcommand};
use embedgate_tools::bench::Target;

/// Whose requests to send.
#[derive(Debug, Subcommand)]
pub enum DoctorCommand {
    /// Those of each of RAGFlow's providers that reach embedgate.
    Ragflow(RagflowArgs),
    /// Examines an NVIDIA card: every kernel against arithmetic in f64, in every form, and the speed of products.
    #[cfg(feature = "cuda")]
    Cuda(CudaArgs),
}

/// Arguments of `doctor cuda`.
#[cfg(feature = "cuda")]
#[derive(Debug, Args)]
pub struct CudaArgs {
    /// The card, by the number that the driver gives it.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub device: usize,
    /// The driver's library; none: libcuda.so.1, where the system finds it.
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,
    /// Rows of the products that are timed.
    #[arg(long, default_value_t = 16384, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub rows: u64,
    /// Width of the model whose products are timed, in steps of 256 numbers; 4 is that of bge-m3.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=16))]
    pub width_steps: u64,
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
    /// Try this provider of RAGFlow's alone, such as OpenAI-API-Compatible or Ollama [default: all].
    #[arg(short, long, value_name = "NAME")]
    pub provider: Option<String>,
    /// The API key; a variable, EMBEDGATE_KEY, keeps it out of the list of processes.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}
