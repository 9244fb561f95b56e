//! `embedgate doctor`: sends a running server what a client of it sends, and says what the client would say.

#[cfg(feature = "cuda")]
pub(super) mod card;
mod ragflow;

use std::io::{self, Write};

use anyhow::Context;
use embedgate_config::Environment;

use self::ragflow::ragflow;
use super::{Failure, runtime};
use crate::args::doctor::DoctorCommand;

pub(super) fn run(command: &DoctorCommand, environment: &Environment) -> Result<(), Failure> {
    let args = match command {
        DoctorCommand::Ragflow(args) => args,
        #[cfg(feature = "cuda")]
        DoctorCommand::Cuda(args) => return card::run(args),
    };
    let runtime = runtime()?;
    let (report, is_well) = runtime.block_on(ragflow(args, environment))?;
    let told = io::stdout().write_all(report.as_bytes());
    told.context("standard output")?;
    if is_well {
        return Ok(());
    }
    Err(anyhow::anyhow!("RAGFlow would refuse what is marked FAIL").into())
}
