//! The process's environment: the one place that reads it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The process's environment, read once: its variables, and where its program lies.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    program: Option<PathBuf>,
}

impl Environment {
    /// Reads the process's environment; variables that are not UTF-8 are left out.
    #[must_use]
    pub fn current() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the environment"
        )]
        let (variables, program) = (std::env::vars_os(), std::env::current_exe());
        let utf8 = |(k, v): (std::ffi::OsString, std::ffi::OsString)| {
            Some((k.into_string().ok()?, v.into_string().ok()?))
        };
        Self {
            variables: variables.filter_map(utf8).collect(),
            program: program.ok(),
        }
    }

    /// The file of the running program.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }

    /// The folder of the running program.
    #[must_use]
    pub fn program_folder(&self) -> Option<&Path> {
        self.program.as_deref().and_then(Path::parent)
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The folder of this user for what can be made again.
    #[must_use]
    pub fn state_folder(&self) -> Option<PathBuf> {
        let below =
            |variable: &str, below: &str| Some(PathBuf::from(self.get(variable)?).join(below));
        // systemd may name several folders.
        let systemd = self
            .get("CACHE_DIRECTORY")
            .and_then(|all| all.split(':').next());
        systemd
            .map(PathBuf::from)
            .or_else(|| below("XDG_CACHE_HOME", "embedgate"))
            .or_else(|| below("HOME", ".cache/embedgate"))
    }

    /// The variables by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(variables: T) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            variables: variables.into_iter().map(owned).collect(),
            program: None,
        }
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        variables.into_iter().collect()
    }
}
