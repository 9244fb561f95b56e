//! An inspection as people read it.

use std::fmt;

use super::{
    Inspection,
    names::{Named, PACKAGE, VERSION, named},
};

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hooks: Vec<_> = self.hooks.iter().map(|hook| hook.name()).collect();
        let lifecycle = if self.has_lifecycle { "yes" } else { "no" };
        writeln!(f, "hooks      {}", hooks.join(", "))?;
        writeln!(f, "settings   {lifecycle} (lifecycle.init)")?;
        writeln!(f, "interface  {PACKAGE}@{VERSION}")?;
        writeln!(f, "size       {} bytes", self.bytes)?;
        writeln!(f, "sha256     {}", self.sha256)?;
        for (i, name) in self.imports.iter().enumerate() {
            let label = if i == 0 { "imports" } else { "" };
            writeln!(f, "{label:<11}{name}{}", grant_note(name))?;
        }
        Ok(())
    }
}

/// Returns a note on the configuration that an import needs.
fn grant_note(name: &str) -> &'static str {
    match named(name) {
        Named::Ours("secrets") => "  (grants.secrets)",
        Named::Ours("kv") => "  (grants.kv)",
        Named::Ours("metrics") => "  (grants.metrics)",
        Named::Ours("crypto") => "  (grants.crypto)",
        Named::Ours("http") => "  (grants.http)",
        Named::Wasi => "  (empty but for time and randomness: plugins have no WASI)",
        _ => "",
    }
}
