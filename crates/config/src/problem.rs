//! Problems of a configuration: each with its key, and all of a configuration together.

use std::{fmt, path::PathBuf};

/// Takes problems of one table: the key within the table, and the message.
pub(super) type Report<'a> = dyn FnMut(&str, String) + 'a;

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, where there is one.
    pub file: Option<PathBuf>,
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key that has the problem, such as `models.bge-m3.backend.threads`; empty for the file as a whole.
    pub key: String,
    /// The problem, and the text to write instead.
    pub message: String,
}

impl Problem {
    /// Makes a problem of a key.
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, message } = self;
        match key.as_str() {
            "" => f.write_str(message),
            key => write!(f, "{key}: {message}"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        let problems = if n == 1 { "problem" } else { "problems" };
        match &self.file {
            Some(file) => write!(f, "{n} {problems} in {}:", file.display())?,
            None => write!(f, "{n} {problems} in the configuration:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
