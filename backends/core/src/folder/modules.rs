//! `modules.json`.

mod dense;
mod logit_score;
mod pooling;
mod router;
mod splade;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use self::pooling::pooling;
use super::{FolderError, StaticEmbedding, read_json};
use crate::{
    Pooling,
    encoder::{AnswerTokens, Norm},
    splade::SpladePooling,
    vector_module::VectorModule,
};

/// The modules of a folder: an encoder, then a pooling, then modules that make vectors of vectors.
pub(super) struct Modules {
    /// The folder of the encoder.
    pub(super) encoder: PathBuf,
    pub(super) pooling: Option<Pooling>,
    /// The folder of the module in the pooling's place.
    pub(super) pooling_folder: Option<PathBuf>,
    /// In the place of a pooling, of a masked language model.
    pub(super) splade: Option<SpladePooling>,
    /// In the place of a pooling, of a language model that scores pairs.
    pub(super) answer_tokens: Option<AnswerTokens>,
    /// In the place of the encoder and the pooling.
    pub(super) static_embedding: Option<StaticEmbedding>,
    /// The modules that follow the pooling, without a last normalization.
    pub(super) vectors: Vec<VectorModule>,
    /// True when a normalization comes last.
    pub(super) normalize: bool,
    /// True when there is a `modules.json`.
    pub(super) stated: bool,
    /// True when the prompt's tokens are left out of the pooling.
    pub(super) without_prompt: bool,
    /// The routes of a router, of which one is served; none where there is no router.
    pub(super) routes: Vec<String>,
    /// The route that is served.
    pub(super) route: Option<String>,
}

/// The kinds of modules that are obeyed, in words.
const SUPPORTED: &str = "supported are Transformer, Pooling, Dense, LayerNorm, Dropout and Normalize of sentence-transformers, MLMTransformer with \
     SpladePooling, Transformer with LogitScore, StaticEmbedding and SparseStaticEmbedding, and Router of these";

/// The module in the place of the first one that some models bring as Python code of their own.
const OWN_TRANSFORMER: &str = "custom_st.Transformer";
/// Kinds that come behind another.
const NOT_FIRST: [&str; 7] = [
    "Pooling",
    "SpladePooling",
    "LogitScore",
    "Dense",
    "LayerNorm",
    "Dropout",
    "Normalize",
];

impl Modules {
    /// Reads the files; without `modules.json` the pooling module is where it usually lies. Of a router one route is taken: this one, or
    /// else the default one.
    pub(super) fn read(folder: &Path, route: Option<&str>) -> Result<Self, FolderError> {
        let path = folder.join("modules.json");
        let mut modules = Self {
            encoder: folder.to_owned(),
            pooling: None,
            pooling_folder: None,
            splade: None,
            answer_tokens: None,
            static_embedding: None,
            vectors: Vec::new(),
            normalize: false,
            stated: false,
            without_prompt: false,
            routes: Vec::new(),
            route: None,
        };
        let Some(entries) = read_json::<Vec<ModuleEntry>>(&path)? else {
            if let Some(route) = route {
                let problem = format!("it is not there, and the model's key route is \"{route}\"");
                return Err(invalid(&path, problem));
            }
            modules.set_pooling(&folder.join("1_Pooling/config.json"))?;
            modules.check_model2vec()?;
            return Ok(modules);
        };
        modules.stated = true;
        let routed = router::resolve(entries, folder, route)?;
        let entries = routed.entries;
        (modules.routes, modules.route) = (routed.routes, routed.route);
        let kinds: Vec<&str> = entries.iter().map(ModuleEntry::kind).collect();
        let problem = match kinds[..] {
            [] => Some("it names no module"),
            ["Transformer" | "StaticEmbedding", ..]
            | ["MLMTransformer", "SpladePooling"]
            | ["SparseStaticEmbedding"] => None,
            ["SparseStaticEmbedding", ..] => Some("SparseStaticEmbedding is not alone"),
            ["MLMTransformer", ..] => Some("MLMTransformer is not followed by SpladePooling alone"),
            // What else there is, is named below.
            [first, ..] if !NOT_FIRST.contains(&first) => None,
            _ => Some("the first module is no Transformer"),
        };
        if let Some(problem) = problem {
            return Err(invalid(&path, format!("{problem}, {SUPPORTED}")));
        }
        let mut names: Vec<&str> = entries
            .iter()
            .filter_map(|entry| entry.name.as_deref())
            .collect();
        names.sort_unstable();
        if let Some(two) = names.windows(2).find(|two| two[0] == two[1]) {
            let problem = format!(
                "two modules have the name \"{}\", expected names of their own",
                two[0]
            );
            return Err(invalid(&path, problem));
        }
        for (i, entry) in entries.iter().enumerate() {
            modules.add((i, kinds.len()), entry, folder)?;
        }
        if modules.vectors.last() == Some(&VectorModule::Normalize) {
            modules.vectors.pop();
            modules.normalize = true;
        }
        Ok(modules)
    }

    /// Takes in module `i` of `n`.
    fn add(
        &mut self,
        (i, n): (usize, usize),
        entry: &ModuleEntry,
        folder: &Path,
    ) -> Result<(), FolderError> {
        let path = folder.join("modules.json");
        let kind = entry.kind();
        let is_first = i == 0;
        match kind {
            // Of jina's third embedders: what it adds is the choice of an adapter.
            OWN_TRANSFORMER if is_first && self.has_adapters()? => return Ok(()),
            "Transformer" | "MLMTransformer" if is_first => {
                if !matches!(entry.path.as_str(), "" | ".") {
                    self.encoder = inside(folder, &entry.path, &path)?;
                }
                return Ok(());
            }
            "StaticEmbedding" | "SparseStaticEmbedding" if is_first => {
                if !matches!(entry.path.as_str(), "" | ".") {
                    self.encoder = inside(folder, &entry.path, &path)?;
                }
                return self.set_static(kind == "SparseStaticEmbedding");
            }
            "Pooling" if self.pooling.is_none() && i == 1 => {
                return self.add_pooling(&inside(folder, &entry.path, &path)?, &path);
            }
            "SpladePooling" if i == 1 => {
                let folder = inside(folder, &entry.path, &path)?;
                self.splade = Some(splade::read(&folder)?);
                self.pooling_folder = Some(folder);
                return Ok(());
            }
            "LogitScore" if i == 1 && n == 2 => {
                let folder = inside(folder, &entry.path, &path)?;
                self.answer_tokens = Some(logit_score::read(&folder)?);
                self.pooling_folder = Some(folder);
                return Ok(());
            }
            // At inference it does nothing.
            "Dropout" => return Ok(()),
            "Transformer" | "MLMTransformer" | "StaticEmbedding" | "Pooling" | "SpladePooling"
            | "LogitScore" | "Dense" | "LayerNorm" | "Normalize" => {}
            "SparseStaticEmbedding" => {
                let problem =
                    "module \"SparseStaticEmbedding\" comes behind others, supported is it alone";
                return Err(invalid(&path, problem.into()));
            }
            other => {
                let problem = format!("module \"{other}\" is not supported, {SUPPORTED}");
                return Err(invalid(&path, problem));
            }
        }
        if self.pooling.is_none()
            || matches!(
                kind,
                "Transformer"
                    | "MLMTransformer"
                    | "StaticEmbedding"
                    | "Pooling"
                    | "SpladePooling"
                    | "LogitScore"
            )
        {
            let problem = format!(
                "module \"{kind}\" is number {}, supported is one Transformer, then one Pooling, then others",
                i + 1
            );
            return Err(invalid(&path, problem));
        }
        let module = match kind {
            "Normalize" => normalize(folder, entry)?,
            "Dense" => VectorModule::Dense(dense::read(&inside(folder, &entry.path, &path)?)?),
            _ => norm(&inside(folder, &entry.path, &path)?)?,
        };
        self.vectors.push(module);
        Ok(())
    }

    /// A folder of model2vec without `modules.json` is read by model2vec alone, which leaves out unknown tokens.
    fn check_model2vec(&self) -> Result<(), FolderError> {
        #[derive(Default, Deserialize)]
        struct Config {
            model_type: Option<String>,
        }
        let path = self.encoder.join("config.json");
        let config: Config = read_json(&path)?.unwrap_or_default();
        if config.model_type.as_deref() != Some("model2vec") {
            return Ok(());
        }
        let problem = "model_type is \"model2vec\", and the folder has no modules.json: save it with sentence-transformers, such as by \
                       SentenceTransformer(modules=[StaticEmbedding.from_model2vec(\".\")]).save(\"new\")";
        Err(invalid(&path, problem.into()))
    }

    /// Returns true for models whose weights have an adapter a task.
    fn has_adapters(&self) -> Result<bool, FolderError> {
        #[derive(Default, Deserialize)]
        struct Config {
            lora_adaptations: Option<serde_json::Value>,
        }
        let config: Option<Config> = read_json(&self.encoder.join("config.json"))?;
        Ok(config.is_some_and(|config| config.lora_adaptations.is_some()))
    }

    fn set_static(&mut self, is_sparse: bool) -> Result<(), FolderError> {
        self.static_embedding = Some(match is_sparse {
            true => StaticEmbedding::read_sparse(&self.encoder)?,
            false => StaticEmbedding::read(&self.encoder)?,
        });
        self.pooling = (!is_sparse).then_some(Pooling::MEAN);
        Ok(())
    }

    fn add_pooling(&mut self, module: &Path, path: &Path) -> Result<(), FolderError> {
        let config = module.join("config.json");
        self.set_pooling(&config)?;
        match self.pooling {
            Some(_) => Ok(()),
            None => Err(invalid(
                path,
                format!(
                    "names the module \"Pooling\", and {} is not there: download it, since it says how token vectors become one",
                    config.display()
                ),
            )),
        }
    }

    fn set_pooling(&mut self, path: &Path) -> Result<(), FolderError> {
        if let Some((pooling, include_prompt)) = pooling(path)? {
            (self.pooling, self.without_prompt) = (Some(pooling), !include_prompt);
            self.pooling_folder = path.parent().map(Path::to_owned);
        }
        Ok(())
    }
}

/// The module `Normalize`, whose folder is not there in older layouts.
fn normalize(folder: &Path, entry: &ModuleEntry) -> Result<VectorModule, FolderError> {
    let path = folder.join(&entry.path).join("config.json");
    if !entry.path.is_empty() && inside(folder, &entry.path, &path).is_ok() {
        let names: dense::Names = read_json(&path)?.unwrap_or_default();
        names.check().map_err(|problem| invalid(&path, problem))?;
    }
    Ok(VectorModule::Normalize)
}

/// The module `LayerNorm`.
fn norm(folder: &Path) -> Result<VectorModule, FolderError> {
    /// The default of torch, which the module takes.
    const EPS: f32 = 1e-5;
    let path = folder.join("config.json");
    let file: Option<LayerNormFile> = read_json(&path)?;
    let LayerNormFile { dimension } = file.ok_or_else(|| missing(&path))?;
    Ok(VectorModule::Norm {
        folder: folder.to_owned(),
        norm: Norm::layer("norm", dimension, EPS),
    })
}

#[derive(Deserialize)]
struct LayerNormFile {
    dimension: usize,
}

pub(super) fn invalid(path: &Path, problem: String) -> FolderError {
    FolderError::Invalid {
        path: path.to_owned(),
        problem,
    }
}

/// The error of a module whose configuration is not there.
fn missing(path: &Path) -> FolderError {
    let problem = "it is not there, and modules.json names its folder: download it";
    invalid(path, problem.into())
}

/// A module's folder must lie within the model's.
fn inside(folder: &Path, relative: &str, file: &Path) -> Result<PathBuf, FolderError> {
    let plain = Path::new(relative)
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_)));
    if plain {
        return Ok(folder.join(relative));
    }
    let problem = format!(
        "module path \"{relative}\" leaves the model folder, expected a plain relative path"
    );
    Err(invalid(file, problem))
}

#[derive(Deserialize)]
struct ModuleEntry {
    name: Option<String>,
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl ModuleEntry {
    /// The kind's last word, where it is one of sentence-transformers' own; else all of it.
    fn kind(&self) -> &str {
        let own = self.kind.strip_prefix("sentence_transformers.");
        own.and_then(|kind| kind.rsplit('.').next())
            .unwrap_or(&self.kind)
    }
}
