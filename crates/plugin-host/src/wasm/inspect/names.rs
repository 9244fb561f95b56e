//! The names of a component's imports and exports.

use wasmparser::{Encoding, Parser, Payload};

use super::NotAPlugin;

/// The interface that this gateway has.
pub(super) const PACKAGE: &str = "embedgate:plugin";
/// Its version; those that share the first two numbers get along.
pub(super) const VERSION: &str = "0.1.0";

/// The kind of an import's or export's name.
pub(super) enum Named<'a> {
    /// Ours, by the name within the package.
    Ours(&'a str),
    OtherVersion,
    Wasi,
    Other,
}

/// Tells what kind of name it is.
pub(super) fn named(name: &str) -> Named<'_> {
    if name.starts_with("wasi:") {
        return Named::Wasi;
    }
    let ours = name
        .strip_prefix(PACKAGE)
        .and_then(|rest| rest.strip_prefix('/'));
    let Some(ours) = ours else {
        return Named::Other;
    };
    match ours.split_once('@') {
        Some((interface, version)) if version.starts_with("0.1.") => Named::Ours(interface),
        _ => Named::OtherVersion,
    }
}

/// The names of a component's imports and exports. Reads the whole file, so that one that is cut off is found.
pub(super) fn names(bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), NotAPlugin> {
    let broken =
        |error: wasmparser::BinaryReaderError| NotAPlugin::NotWasm(error.message().to_owned());
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(broken)? {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => return Err(NotAPlugin::CoreModule),
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.push(import.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.push(export.map_err(broken)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}
