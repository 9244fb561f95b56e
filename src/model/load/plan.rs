//! The plan of a model: what its folder and its configuration say, before its weights are read.

use std::{collections::BTreeMap, io, sync::Arc};

use embedgate_config::ModelConfig;
use embedgate_core::{
    ModelFolder, Pooling, Variant,
    encoder::{AnswerTokens, Score},
};

use super::{
    super::{
        entry::Outline,
        fingerprint::vector_space,
        prompts::Prompts,
        tokenizer::{
            TextTokenizer, TokenizerError,
            template::{Misfit, PairTemplate},
        },
    },
    error::LoadError,
};

/// The facts of a model from its files and its configuration, before its weights are read.
pub(crate) struct Plan {
    /// The model's folder.
    pub folder: ModelFolder,
    /// The method that makes one vector of the token vectors.
    pub pooling: Pooling,
    /// Width of a dense vector; 0 where the model gives none.
    pub dimensions: usize,
    /// True when vectors are normalized to length 1.
    pub normalize: bool,
    /// Longest input in tokens.
    pub max_tokens: usize,
    /// The prompts that can be put in front of texts.
    pub prompts: Prompts,
    /// The template that the pairs of a cross-encoder go through, where they do so.
    pub template: Option<PairTemplate>,
}

impl Plan {
    /// Computes the hash that models share when their vectors can be compared.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn vector_space(&self) -> io::Result<blake3::Hash> {
        let facts = format!("{:?} {}", self.pooling, self.normalize);
        let mut facts = vec![&*facts, &*self.prompts.default];
        let variant = self.variant();
        if !variant.is_empty() {
            facts.push(&variant);
        }
        vector_space(&self.folder.folders(), &facts)
    }

    /// The model of those that the folder holds, and the cut of its vectors, in words; empty where there is nothing to tell.
    #[must_use]
    pub(crate) fn variant(&self) -> String {
        let (variant, truncation) = (self.folder.variant(), self.folder.truncation());
        let variant = (variant != Variant::default()).then(|| format!("{variant:?}"));
        let truncation = (!truncation.is_empty()).then(|| format!("{truncation:?}"));
        let said: Vec<String> = variant.into_iter().chain(truncation).collect();
        said.join(" ")
    }

    /// Returns the facts of the model that are known before it is loaded.
    #[must_use]
    pub(crate) fn outline(&self) -> Outline {
        Outline {
            scores: self.folder.is_cross_encoder,
            max_sequence_tokens: self.max_tokens,
            dimensions: self.dimensions,
        }
    }
}

/// Reads a model's folder and checks it against the configuration. Quick: no weights, no tokenizer.
///
/// # Errors
/// [`LoadError`] names the file or the key, and what would be right.
pub(crate) fn plan(config: &ModelConfig) -> Result<Plan, LoadError> {
    if let Some(problem) = to_fetch(config) {
        return Err(LoadError::Setting(problem));
    }
    let variant = Variant {
        adapter: config.adapter.as_deref(),
        route: config.route.as_deref(),
    };
    let mut folder = ModelFolder::open_variant(&config.path, variant)?;
    if let Some(names) = &config.classifier_from_token {
        answer_with(&mut folder, names)?;
    }
    folder.truncate(config.normalize);
    let limit = match folder.static_embedding {
        Some(_) => folder.max_sequence_tokens,
        None => folder.encoder.max_sequence_tokens,
    };
    if let Some(n) = config.max_length.filter(|n| *n > limit) {
        let message = format!("max_length is {n}, the model takes at most {limit}");
        return Err(LoadError::Setting(message));
    }
    let pooling = config.pooling.or(folder.pooling);
    if pooling.is_none() && !folder.is_sparse_alone() && !folder.is_cross_encoder {
        check_class(&folder)?;
    }
    let pooling = pooling.unwrap_or_else(|| usual_pooling(&folder));
    let mut prompts = prompts(config, &folder)?;
    let template = template(config, &folder, &prompts)?;
    if template.is_some() {
        // The template has the prompt in its own place.
        prompts = Prompts {
            default: Arc::default(),
            by_name: BTreeMap::new(),
            ..prompts
        };
    }
    Ok(Plan {
        template,
        prompts,
        pooling,
        dimensions: match folder.is_sparse_alone() {
            true => 0,
            false => folder.dimensions(pooling)?,
        },
        normalize: config
            .normalize
            .unwrap_or(folder.normalize || !folder.is_stated),
        max_tokens: config.max_length.unwrap_or(folder.max_sequence_tokens),
        folder,
    })
}

/// Makes a cross-encoder of a language model that answers with tokens of these names: the first for no, the second for yes.
fn answer_with(folder: &mut ModelFolder, names: &[String; 2]) -> Result<(), LoadError> {
    let path = &folder.encoder_path;
    let tokenizer = TextTokenizer::load_any(path, folder.max_sequence_tokens, &folder.tokenizer)?;
    let id = |name: &String| {
        tokenizer.id(name).ok_or_else(|| {
            LoadError::Setting(format!(
                "classifier_from_token names \"{name}\", which is no token of {}",
                path.join("tokenizer.json").display()
            ))
        })
    };
    let [no, yes] = names;
    let (yes, no) = (id(yes)?, Some(id(no)?));
    Ok(folder.answer_with(AnswerTokens { yes, no })?)
}

/// The template that the pairs of a cross-encoder go through; none where they go as the tokenizer joins them.
fn template(
    config: &ModelConfig,
    folder: &ModelFolder,
    prompts: &Prompts,
) -> Result<Option<PairTemplate>, LoadError> {
    let Some(head) = folder.scoring_head() else {
        return Ok(None);
    };
    let path = folder.encoder_path.display();
    let prompt = Some(&*prompts.default).filter(|text| !text.is_empty());
    let stated = folder.chat_template.as_ref();
    let made = stated.map(|template| PairTemplate::of(template, prompt));
    let is_language_model = matches!(head.score, Score::Logits { .. });
    // Its folder says nothing of pairs: what it has is the template of the language model that it was made of.
    let is_of_card = folder.encoder.model_type == "qwen3" && config.classifier_from_token.is_some();
    let problem = match made {
        Some(Ok(template)) => return Ok(Some(template)),
        None if !is_language_model => return Ok(None),
        Some(Err(problem)) if !is_language_model => {
            tracing::warn!(
                "{path}: the tokenizer joins both texts of a pair, since the folder's chat template {problem}"
            );
            return Ok(None);
        }
        None | Some(Err(Misfit::NoQuery | Misfit::NoDocument)) if is_of_card => {
            return Ok(Some(PairTemplate::qwen3(prompt)));
        }
        Some(Err(problem)) => format!("its chat template {problem}"),
        None => "it has no chat template for pairs: expected chat_template.jinja, and \"message\" in modality_config of \
                 sentence_bert_config.json where that file has it"
            .into(),
    };
    Err(LoadError::Setting(format!("{path}: {problem}")))
}

/// The ends of names of classes that are encoders, with whatever head.
const ENCODERS: [&str; 7] = [
    "Model",
    "ForMaskedLM",
    "ForPreTraining",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForConditionalGeneration",
];

/// Refuses a model that writes texts, or ranks them, and does not say how it makes vectors: rerankers are such models.
fn check_class(folder: &ModelFolder) -> Result<(), LoadError> {
    let is_encoder = |class: &str| ENCODERS.iter().any(|end| class.ends_with(end));
    let class = folder.architectures.first();
    match class.filter(|class| !is_encoder(class)) {
        None => Ok(()),
        Some(class) => Err(LoadError::Setting(format!(
            "{}: architectures is {class}, and the folder does not say how its token vectors become one: it may be a reranker or a \
             language model; if it is an embedder, say it with the model's key pooling, such as pooling = \"last\"; if it is a reranker \
             that answers yes or no, with classifier_from_token = [\"no\", \"yes\"]",
            folder.encoder_path.join("config.json").display()
        ))),
    }
}

/// Says how to fetch a model that has a source and is not there.
#[must_use]
pub(crate) fn to_fetch(config: &ModelConfig) -> Option<String> {
    let source = config.source.as_ref().filter(|_| !config.path.is_dir())?;
    let path = config.path.display();
    Some(format!(
        "{path} is not there: `embedgate serve --pull` fetches it, or `embedgate pull {source} --to {path}`"
    ))
}

/// Returns the pooling that the libraries use when a folder names none. FlagEmbedding, which saves bge-m3's heads and
/// no pooling, takes the first token; sentence-transformers takes the mean.
fn usual_pooling(folder: &ModelFolder) -> Pooling {
    if folder.has_m3_heads {
        Pooling::CLS
    } else {
        Pooling::MEAN
    }
}

/// The prompts of the folder and of the configuration; an empty name of the default turns the folder's off.
fn prompts(config: &ModelConfig, folder: &ModelFolder) -> Result<Prompts, LoadError> {
    let mut prompts = Prompts {
        default: Arc::default(),
        by_name: BTreeMap::new(),
        is_pooled: folder.prompt_is_pooled,
    };
    for (name, text) in folder.prompts.iter().chain(&config.prompts) {
        prompts.by_name.insert(name.clone(), text.as_str().into());
    }
    let name = config
        .default_prompt
        .as_ref()
        .or(folder.default_prompt.as_ref());
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(prompts);
    };
    let text = prompts.by_name.get(name);
    if text.is_some_and(|text| !text.is_empty()) && !folder.prompt_is_pooled {
        let message = "the pooling module says include_prompt = false, which is not supported: set default_prompt = \"\"";
        return Err(LoadError::Setting(message.into()));
    }
    prompts.default = text.cloned().ok_or_else(|| {
        let names: Vec<_> = prompts.by_name.keys().map(String::as_str).collect();
        LoadError::Setting(format!(
            "default_prompt is \"{name}\", the prompts are: {}",
            names.join(", ")
        ))
    })?;
    Ok(prompts)
}

/// Loads the tokenizer of a planned model.
///
/// # Errors
/// [`TokenizerError`] names the file and what is wrong with it.
pub(crate) fn tokenizer(plan: &Plan) -> Result<TextTokenizer, TokenizerError> {
    let (folder, settings) = (&plan.folder.encoder_path, &plan.folder.tokenizer);
    match plan.template.clone() {
        Some(template) => {
            TextTokenizer::load_with_template(folder, plan.max_tokens, settings, template)
        }
        None => TextTokenizer::load(folder, plan.max_tokens, settings),
    }
}

/// A tokenizer of another model would give ids that the weights do not have.
pub(super) fn check_vocabulary(tokenizer: &TextTokenizer, plan: &Plan) -> Result<(), LoadError> {
    let mut size = plan.folder.encoder.vocabulary_size();
    if plan.folder.static_embedding.is_some() {
        // The last stands for a text without tokens.
        size -= 1;
    }
    let max_id = tokenizer.max_id();
    if (max_id as usize) < size {
        return Ok(());
    }
    let path = plan.folder.encoder_path.join("tokenizer.json");
    let message = format!(
        "{} has the token id {max_id}, the model's vocabulary has {size} ids",
        path.display()
    );
    Err(LoadError::Setting(message))
}
