//! The properties that a component states, read without compiling it.

mod names;
mod shown;

use embedgate_request::Hook;
use sha2::{Digest, Sha256};

use self::names::{Named, PACKAGE, VERSION, named, names};

/// Larger files are no plugins, and would take minutes to compile.
pub(super) const MOST_BYTES: u64 = 32 << 20;

/// A component's imports and exports.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The file's SHA-256, in hex.
    pub sha256: String,
    /// Its length.
    pub bytes: usize,
    /// Names of what it needs, such as `embedgate:plugin/log@0.1.0`.
    pub imports: Vec<String>,
    /// Names of what it has.
    pub exports: Vec<String>,
    /// The hooks among them.
    pub hooks: Vec<Hook>,
    /// True when the component has `lifecycle.init`.
    pub has_lifecycle: bool,
}

/// The reasons why a file is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum NotAPlugin {
    /// Something else, or cut off.
    #[error(
        "is no WebAssembly component ({0}): build it with `scripts/plugins`, or as docs/plugins.md says"
    )]
    NotWasm(String),
    /// A core module: the file that compilers make before it becomes a component.
    #[error(
        "is a core module, and plugins are components: link it with wasm-component-ld, or wrap it with `wasm-tools component new` (docs/plugins.md)"
    )]
    CoreModule,
    /// Machine code.
    #[error("is machine code, which cannot be checked: give the .wasm it was made from")]
    Precompiled,
    /// Too large.
    #[error("has {0} bytes, more than the {MOST_BYTES} that a plugin may have")]
    TooLarge(u64),
    /// It needs what is not here.
    #[error("imports {0}, which this gateway does not have; {1}")]
    UnknownImport(String, &'static str),
    /// It was made for another interface.
    #[error(
        "{0} is of another version than this gateway's {PACKAGE}@{VERSION}: update the gateway, or build the plugin anew with its SDK"
    )]
    OtherVersion(String),
    /// There is nothing to call.
    #[error(
        "exports no hook: it needs one of {PACKAGE}/authenticator@{VERSION}, preprocessor and observer"
    )]
    NoHook,
}

impl Inspection {
    /// Reads a component's bytes.
    ///
    /// # Errors
    /// When it is none, or not for this gateway.
    pub fn of(bytes: &[u8]) -> Result<Self, NotAPlugin> {
        if bytes.starts_with(b"\x7fELF") {
            return Err(NotAPlugin::Precompiled);
        }
        if !bytes.starts_with(b"\0asm") {
            return Err(NotAPlugin::NotWasm("it does not begin as one".into()));
        }
        let (imports, exports) = names(bytes)?;
        let mut inspection = Self {
            sha256: hex(&Sha256::digest(bytes)),
            bytes: bytes.len(),
            imports,
            exports,
            hooks: Vec::new(),
            has_lifecycle: false,
        };
        for name in &inspection.imports {
            check_import(name)?;
        }
        for name in &inspection.exports {
            match named(name) {
                Named::Ours("authenticator") => inspection.hooks.push(Hook::Authenticate),
                Named::Ours("preprocessor") => inspection.hooks.push(Hook::Preprocess),
                Named::Ours("observer") => inspection.hooks.push(Hook::Observe),
                Named::Ours("lifecycle") => inspection.has_lifecycle = true,
                Named::OtherVersion => return Err(NotAPlugin::OtherVersion(name.clone())),
                _ => {}
            }
        }
        inspection.hooks.sort_unstable();
        if inspection.hooks.is_empty() {
            return Err(NotAPlugin::NoHook);
        }
        Ok(inspection)
    }

    /// Returns true when the component imports an interface of embedgate.
    #[must_use]
    pub fn imports_interface(&self, interface: &str) -> bool {
        let mut ours = self.imports.iter().map(|name| named(name));
        ours.any(|name| matches!(name, Named::Ours(found) if found == interface))
    }

    /// The interfaces of WASI that it imports.
    pub fn wasi_imports(&self) -> impl Iterator<Item = &str> {
        let names = self.imports.iter().map(String::as_str);
        names.filter(|name| name.starts_with("wasi:"))
    }
}

fn check_import(name: &str) -> Result<(), NotAPlugin> {
    const KNOWN: [&str; 9] = [
        "types", "log", "clock", "random", "secrets", "kv", "metrics", "crypto", "http",
    ];
    match named(name) {
        Named::Ours(interface) if KNOWN.contains(&interface) => Ok(()),
        Named::Wasi if !name.starts_with("wasi:sockets") && !name.starts_with("wasi:http") => {
            Ok(())
        }
        Named::OtherVersion => Err(NotAPlugin::OtherVersion(name.to_owned())),
        Named::Wasi => Err(NotAPlugin::UnknownImport(
            name.to_owned(),
            "plugins reach other servers through embedgate:plugin/http alone",
        )),
        Named::Ours(_) | Named::Other => Err(NotAPlugin::UnknownImport(
            name.to_owned(),
            "build the plugin against plugins/wit/v0.1",
        )),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| {
        [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
    };
    bytes.iter().flat_map(digits).collect()
}
