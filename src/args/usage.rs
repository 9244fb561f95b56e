//! The arguments of `usage`.

use clap::{Args, ValueEnum};

use crate::usage::record::Day;

/// Arguments of `usage`.
#[derive(Debug, Args)]
pub struct UsageArgs {
    /// The first day (UTC), such as 2026-11-30.
    #[arg(long, value_name = "DAY")]
    pub(crate) from: Option<Day>,
    /// The last day (UTC).
    #[arg(long, value_name = "DAY")]
    pub(crate) to: Option<Day>,
    /// This caller alone, by the name of its key.
    #[arg(long, value_name = "NAME")]
    pub(crate) caller: Option<String>,
    /// The form of the output.
    #[arg(long, value_enum, default_value_t = UsageFormat::Csv)]
    pub(crate) format: UsageFormat,
}

/// A form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsageFormat {
    /// A line of names, and a line for each day, caller and model.
    Csv,
    /// An array of objects.
    Json,
}
