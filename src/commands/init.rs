//! `embedgate init`: writes a configuration to begin with.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, anyhow};
use embedgate_config::{Config, Environment, Source};
use embedgate_core::is_model_folder;
use embedgate_request::key;

use super::{Failure, literal, named_model::NamedModel, say, shell};
use crate::args::InitArgs;

pub(super) fn run(
    config: Option<&Path>,
    args: &InitArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    // --config names the file here as with every other command.
    let output = match (&args.output, config) {
        (Some(output), Some(config)) if output != config => {
            return Err(
                anyhow!("--output and --config name two files: leave out one of them").into(),
            );
        }
        (Some(file), _) => file,
        (None, Some(file)) => file,
        (None, None) => Path::new(USUAL),
    };
    let base = output.parent().unwrap_or(Path::new(""));
    let model = Model::of(&args.model, base)?;
    let name = args.name.clone().unwrap_or_else(|| model.name.clone());
    if name.is_empty() || name.chars().any(char::is_control) {
        let problem = "names are not empty and hold no control characters: say one with --name";
        return Err(anyhow!("{name:?} is no name: {problem}").into());
    }
    let (key, hash) = key::generate().context("the system gives no randomness")?;
    let text = text(args, &model, &name, &hash.to_string());
    // What it says of the model's folder is checked when it is served.
    let written = Config::parse(&text, base, environment);
    let problems = written.err().into_iter().flatten();
    let problems: Vec<String> = problems
        .filter(|problem| !problem.key.ends_with(".path"))
        .map(|problem| problem.to_string())
        .collect();
    if !problems.is_empty() {
        return Err(anyhow!("{}", problems.join("; ")).into());
    }
    write(output, &text, args.force)?;
    let file = output.display();
    let with_file = match output == Path::new(USUAL) {
        true => String::new(),
        false => format!(" --config {}", shell(&file.to_string())),
    };
    let first = match model.is_there {
        true => format!("embedgate check{with_file}"),
        false => format!("embedgate pull {}{with_file}", shell(&name)),
    };
    let told = format!(
        "{file} is written. The key of it is shown once; clients send it as \"Authorization: Bearer KEY\":\n\n{key}\n\nNext:\n\n  {first}\n  embedgate serve{with_file}\n"
    );
    Ok(say(&told)?)
}

/// The file that every command finds.
const USUAL: &str = "embedgate.toml";

/// The model that a configuration is written for.
struct Model {
    name: String,
    path: String,
    source: Option<Source>,
    is_there: bool,
}

impl Model {
    /// `base` is the folder of the configuration, to which its paths are relative.
    fn of(named: &str, base: &Path) -> Result<Self, Failure> {
        let path = Path::new(named);
        if path.is_dir() && !is_model_folder(path) {
            return Err(anyhow!("{named} is no model's folder: it has no config.json").into());
        }
        let named_model = NamedModel::of(named)?;
        let is_folder = named_model.source.is_none();
        let is_fitting = base == Path::new("") || path.is_absolute();
        Ok(Self {
            name: named_model.name(),
            is_there: is_folder || base.join(&named_model.path).is_dir(),
            path: match path.canonicalize() {
                Ok(real) if is_folder && !is_fitting => real.display().to_string(),
                _ => named_model.path,
            },
            source: named_model.source,
        })
    }
}

fn text(args: &InitArgs, model: &Model, name: &str, hash: &str) -> String {
    let toml = |text: &str| toml::Value::String(literal(text)).to_string();
    let source = match &model.source {
        Some(source) => format!(
            "# Where `embedgate pull` and `embedgate serve --pull` fetch it from.\nsource = {}\n",
            toml(&source.to_string())
        ),
        None => String::new(),
    };
    let source_name = model.source.as_ref().map(|source| source.model.as_str());
    let alias = source_name.unwrap_or("another-name");
    let aliases = match source_name {
        Some(alias) if alias == name => "aliases = []".to_owned(),
        Some(_) => format!("aliases = [{}]", toml(alias)),
        None => format!("#aliases = [{}]", toml(alias)),
    };
    format!(
        "# embedgate's configuration. config/embedgate.toml of the repository has every key with its default; `embedgate check` says what
# is wrong with this one. A reload (SIGHUP) takes changes over while the gateway serves.

[server]
# Address and port. \"0.0.0.0:9100\" is reached from other machines, and from containers.
listen = {listen}

[auth]
# One key a client. `embedgate key new` makes more; only their hashes are written here.
keys = [{{ name = \"first\", hash = {hash} }}]

[models.{name}]
# The folder with config.json, tokenizer.json and the weights. Relative to this file.
path = {path}
{source}# Other names that clients may use.
{aliases}
# \"cpu\" runs the model's own weights; \"auto\" takes bfloat16 where the processor has it, else f32.
backend = {{ type = \"cpu\", precision = \"auto\" }}

# [cache]
# Memory for results that are asked for again.
# max_size = \"512MiB\"
",
        listen = toml(&args.listen.to_string()),
        hash = toml(hash),
        path = toml(&model.path),
        name = quoted(name),
    )
}

/// A name as a key of TOML: bare where it can be.
fn quoted(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => toml::Value::String(name.to_owned()).to_string(),
    }
}

fn write(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let opened = options.open(file);
    let mut opened = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow!(
            "{} is there already: --force replaces it, --output writes another",
            file.display()
        ),
        _ => anyhow!("{} cannot be written: {error}", file.display()),
    })?;
    Ok(opened
        .write_all(text.as_bytes())
        .with_context(|| format!("{} cannot be written", file.display()))?)
}
