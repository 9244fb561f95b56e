//! `embedgate doctor`: sends a running server what a client of it sends, and says what the client would say.

#[cfg(feature = "cuda")]
pub(super) mod card;
mod ragflow;

use embedgate_config::Environment;

use self::ragflow::ragflow;
use super::{Failure, runtime, say};
use crate::args::doctor::DoctorCommand;

pub(super) fn run(command: &DoctorCommand, environment: &Environment) -> Result<(), Failure> {
    let args = match command {
        DoctorCommand::Ragflow(args) => args,
        #[cfg(feature = "cuda")]
        DoctorCommand::Cuda(args) => return card::run(args),
    };
    let runtime = runtime()?;
    let (report, is_well) = runtime.block_on(ragflow(args, environment))?;
    say(&report)?;
    if is_well {
        return Ok(());
    }
    Err(anyhow::anyhow!("RAGFlow would refuse what is marked FAIL").into())
}
