//! The command line of `embed`.

use std::path::PathBuf;

use clap::{
    Args, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use embedgate_core::Head;

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
        value_parser = output(),
        value_delimiter = ',',
        default_value = "dense"
    )]
    pub outputs: Vec<Head>,
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
    /// Returns the form of the input: as said, or by the file's ending.
    pub(crate) fn input_format(&self) -> InputFormat {
        let ending = self.file.extension().and_then(|ending| ending.to_str());
        self.input_format.unwrap_or(match ending {
            Some("jsonl" | "ndjson") => InputFormat::Jsonl,
            Some("parquet") => InputFormat::Parquet,
            _ => InputFormat::Lines,
        })
    }

    /// Returns true when bad rows are left out.
    pub(crate) fn skips(&self) -> bool {
        self.on_error == OnErrorArg::Skip
    }
}

/// A form of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A text a line.
    Lines,
    /// A JSON object a line.
    Jsonl,
    /// Apache Parquet, a text a row.
    Parquet,
}

/// A way to treat a bad row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnErrorArg {
    /// It ends the run. What was embedded is kept, and the next run goes on after it.
    Stop,
    /// It is said, and left out.
    Skip,
}

/// A form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet, one row a text.
    Parquet,
    /// NumPy's arrays in a zip.
    Npz,
}

/// Reads the name of a head that can be asked for.
fn output() -> impl TypedValueParser<Value = Head> {
    let names = Head::named().map(|(_, names)| PossibleValue::new(names.output).help(names.help));
    PossibleValuesParser::new(names).try_map(|name| {
        let head = Head::of_output(&name);
        head.ok_or_else(|| format!("no output is named {name}"))
    })
}
