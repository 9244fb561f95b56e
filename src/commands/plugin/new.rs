//! `embedgate plugin new`: a folder with a plugin that builds.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, bail};
use include_dir::{Dir, include_dir};

use super::super::Failure;
use crate::args::plugin::{LanguageArg, NewPluginArgs};

/// A file: its path in the new folder, and its text.
type Template = (&'static str, &'static str);

const WIT: &str = include_str!("../../../plugins/wit/v0.1/plugin.wit");
const CASES: Template = (
    "cases.toml",
    include_str!("../../../plugins/templates/cases.toml"),
);

const IGNORED: Template = (".gitignore", "/target\n/node_modules\n/venv\n/*.wasm\n");
/// The settings that engines need when they take long to start.
const REUSED: &str = "[plugin]\ninstance = { reuse = 1000 }\nmax_memory = \"64MiB\"\n\n";

/// Not a `Cargo.toml` by name, which cargo would take for a package of this repository.
const RUST: [Template; 6] = [
    (
        "Cargo.toml",
        include_str!("../../../plugins/templates/rust/Cargo.toml.in"),
    ),
    (
        ".cargo/config.toml",
        include_str!("../../../plugins/templates/rust/config.toml.in"),
    ),
    (
        "src/lib.rs",
        include_str!("../../../plugins/templates/rust/lib.rs.in"),
    ),
    (
        "README.md",
        include_str!("../../../plugins/templates/rust/README.md"),
    ),
    (
        "sdk/Cargo.toml",
        include_str!("../../../plugins/sdk/Cargo.toml"),
    ),
    (
        "sdk/README.md",
        include_str!("../../../plugins/sdk/README.md"),
    ),
];

/// The SDK as it is here, so that a plugin builds without fetching it from anywhere.
const SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/plugins/sdk/src");

const JS: [Template; 4] = [
    (
        "package.json",
        include_str!("../../../plugins/templates/js/package.json"),
    ),
    (
        "plugin.js",
        include_str!("../../../plugins/templates/js/plugin.js"),
    ),
    (
        "README.md",
        include_str!("../../../plugins/templates/js/README.md"),
    ),
    (
        "wit/world.wit",
        include_str!("../../../plugins/templates/js/wit/world.wit"),
    ),
];

const PY: [Template; 4] = [
    (
        "requirements.txt",
        include_str!("../../../plugins/templates/py/requirements.txt"),
    ),
    (
        "plugin.py",
        include_str!("../../../plugins/templates/py/plugin.py"),
    ),
    (
        "README.md",
        include_str!("../../../plugins/templates/py/README.md"),
    ),
    (
        "wit/world.wit",
        include_str!("../../../plugins/templates/py/wit/world.wit"),
    ),
];

pub(super) fn run(args: &NewPluginArgs) -> Result<(), Failure> {
    Ok(create(args)?)
}

fn create(args: &NewPluginArgs) -> anyhow::Result<()> {
    let name = &args.name;
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !is_name {
        bail!(
            "\"{name}\" is no name for a plugin: a letter, then letters, digits and -, in lower case"
        );
    }
    let folder = Path::new(name);
    if folder.exists() {
        bail!("{name} is there already: choose another name, or another folder");
    }
    let (templates, wit, plugin): (&[Template], _, _) = match args.lang {
        LanguageArg::Rust => (&RUST, "wit/v0.1/plugin.wit", ""),
        LanguageArg::Js => (&JS, "wit/plugin.wit", REUSED),
        LanguageArg::Py => (&PY, "wit/plugin.wit", REUSED),
    };
    for (path, text) in templates.iter().chain([&CASES, &IGNORED, &(wit, WIT)]) {
        let text = text
            .replace("{{name}}", name)
            .replace("{{file}}", &name.replace('-', "_"))
            .replace("{{plugin}}\n", plugin);
        write(&folder.join(path), text.as_bytes())?;
    }
    if args.lang == LanguageArg::Rust {
        copy(&SDK, &folder.join("sdk/src"))?;
    }
    let done = writeln!(
        io::stdout(),
        "{name}/ is a plugin that trims texts: {name}/README.md says how to build, test and use it"
    );
    done.context("standard output")
}

fn copy(dir: &Dir<'_>, to: &Path) -> anyhow::Result<()> {
    for file in dir.files() {
        write(&to.join(file.path()), file.contents())?;
    }
    // The paths of what is below begin at the top, too.
    dir.dirs().try_for_each(|below| copy(below, to))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, bytes))
        .with_context(|| format!("{} cannot be written", path.display()))
}
