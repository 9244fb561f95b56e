//! Puts in front of texts what instruction-tuned models want there: one prefix for queries, another for passages.
//!
//! Which of them is meant comes with the request, else from the settings. Token ids stay as they are: the client had
//! its reasons.

use std::collections::BTreeMap;

use embedgate_plugin::{
    Edits, EmbedRequest, InputKind, Inputs, Lifecycle, Outcome, Preprocessor, Principal, Rejection,
    Replacement, Settings, settings,
};

struct InstructPrefix;

/// The plugin's settings.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Prefixes by model: its name as clients send it, or the beginning of names and a `*`.
    models: BTreeMap<String, Prefixes>,
    /// What inputs are where the request does not say.
    #[serde(default)]
    default_kind: DefaultKind,
    /// The model that is meant where the request names none.
    #[serde(default)]
    default_model: String,
    /// Leaves texts that have the prefix already, because their client puts it there.
    #[serde(default)]
    skip_prefixed: bool,
}

/// What a model wants in front of texts.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Prefixes {
    query: String,
    document: String,
}

/// A kind, by its name in the settings.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum DefaultKind {
    Query,
    Document,
    /// No prefix at all.
    #[default]
    None,
}

static CONFIG: Settings<Config> = Settings::new();

impl Lifecycle for InstructPrefix {
    fn init(text: &str) -> Result<(), String> {
        let config: Config = settings::parse(text)?;
        if let Some(pattern) = config
            .models
            .keys()
            .find(|pattern| pattern.trim_end_matches('*').contains('*'))
        {
            return Err(format!(
                "settings: models.{pattern:?}: a * may stand at the end only"
            ));
        }
        CONFIG.set(config)
    }
}

impl Preprocessor for InstructPrefix {
    fn preprocess(request: EmbedRequest, _: Option<Principal>) -> Result<Outcome, Rejection> {
        let config = CONFIG.get();
        let Some(prefix) = config.prefix(&request.model, request.kind) else {
            return Ok(Outcome::Unchanged);
        };
        let texts = match &request.inputs {
            Inputs::Texts(texts) => texts,
            Inputs::Tokens(_) => return Ok(Outcome::Unchanged),
        };
        let edits = if config.skip_prefixed {
            prefix_missing(texts, prefix)
        } else {
            Edits::prefix(prefix)
        };
        Ok(edits.into())
    }
}

impl Config {
    /// Returns what stands in front of texts for a model, if anything does.
    fn prefix(&self, model: &str, kind: InputKind) -> Option<&str> {
        let model = if model.is_empty() {
            &self.default_model
        } else {
            model
        };
        let prefixes = self.prefixes(model)?;
        let prefix = match (kind, self.default_kind) {
            (InputKind::Query, _) | (InputKind::Unspecified, DefaultKind::Query) => &prefixes.query,
            (InputKind::Document, _) | (InputKind::Unspecified, DefaultKind::Document) => {
                &prefixes.document
            }
            (InputKind::Unspecified, DefaultKind::None) => return None,
        };
        (!prefix.is_empty()).then_some(prefix)
    }

    /// Finds a model's own prefixes, else those of the longest pattern that matches.
    fn prefixes(&self, model: &str) -> Option<&Prefixes> {
        if let Some(prefixes) = self.models.get(model) {
            return Some(prefixes);
        }
        let matching = self.models.iter().filter(|(pattern, _)| {
            pattern
                .strip_suffix('*')
                .is_some_and(|beginning| model.starts_with(beginning))
        });
        matching
            .max_by_key(|(pattern, _)| pattern.len())
            .map(|(_, prefixes)| prefixes)
    }
}

/// Puts the prefix where it is not yet, with as little copying as that takes.
fn prefix_missing(texts: &[String], prefix: &str) -> Edits {
    let missing: Vec<(u32, &String)> = (0..)
        .zip(texts)
        .filter(|(_, text)| !text.starts_with(prefix))
        .collect();
    if missing.len() == texts.len() {
        return Edits::prefix(prefix);
    }
    let prefixed = |(index, text): (u32, &String)| Replacement {
        index,
        text: format!("{prefix}{text}"),
    };
    Edits::some(missing.into_iter().map(prefixed).collect())
}

embedgate_plugin::export!(InstructPrefix: lifecycle, preprocessor);

#[cfg(test)]
mod tests {
    use embedgate_plugin::test::{self, TestHost, Value, json};

    use super::*;

    fn settings() -> Value {
        json!({
            "default_kind": "document",
            "default_model": "e5-small",
            "models": {
                "e5-*": { "query": "query: ", "document": "passage: " },
                "e5-mistral-*": { "query": "Instruct: find\nQuery: " },
                "e5-plain": {},
            },
        })
    }

    fn run(settings: &Value, request: EmbedRequest) -> Outcome {
        let host = TestHost::new();
        host.init::<InstructPrefix>(settings)
            .expect("settings are right");
        host.preprocess::<InstructPrefix>(request, None)
            .expect("no rejection")
    }

    fn prefix(model: &str, kind: InputKind) -> Option<String> {
        match run(
            &settings(),
            test::texts(&["a"]).with_model(model).with_kind(kind),
        ) {
            Outcome::Unchanged => None,
            Outcome::Edited(edits) => {
                let embedgate_plugin::InputEdit::Prefix(prefix) = edits.inputs else {
                    panic!("no prefix")
                };
                Some(prefix)
            }
        }
    }

    #[test]
    fn the_prefix_is_that_of_the_model_and_the_kind() {
        assert_eq!(
            prefix("e5-large", InputKind::Query).as_deref(),
            Some("query: ")
        );
        assert_eq!(
            prefix("e5-large", InputKind::Document).as_deref(),
            Some("passage: ")
        );
        assert_eq!(prefix("bge-m3", InputKind::Query), None);
    }

    #[test]
    fn a_name_and_a_longer_pattern_go_before_a_shorter_one() {
        assert_eq!(
            prefix("e5-mistral-7b", InputKind::Query).as_deref(),
            Some("Instruct: find\nQuery: ")
        );
        assert_eq!(prefix("e5-mistral-7b", InputKind::Document), None);
        assert_eq!(prefix("e5-plain", InputKind::Query), None);
    }

    #[test]
    fn what_the_request_does_not_say_the_settings_do() {
        assert_eq!(prefix("", InputKind::Query).as_deref(), Some("query: "));
        assert_eq!(
            prefix("e5-large", InputKind::Unspecified).as_deref(),
            Some("passage: ")
        );
        let mut without = settings();
        without["default_kind"] = json!("none");
        assert_eq!(run(&without, test::texts(&["a"])), Outcome::Unchanged);
    }

    #[test]
    fn texts_that_have_the_prefix_can_be_left() {
        let mut settings = settings();
        settings["skip_prefixed"] = json!(true);
        let edited = |texts: &[&str]| run(&settings, test::texts(texts));
        assert_eq!(edited(&["passage: a", "passage: b"]), Outcome::Unchanged);
        assert_eq!(
            edited(&["a", "b"]),
            Outcome::Edited(Edits::prefix("passage: "))
        );
        let expected = Edits::some(vec![Replacement {
            index: 1,
            text: "passage: b".to_owned(),
        }]);
        assert_eq!(edited(&["passage: a", "b"]), Outcome::Edited(expected));
    }

    #[test]
    fn token_ids_stay_as_they_are() {
        assert_eq!(
            run(&settings(), test::tokens(&[&[1, 2]])),
            Outcome::Unchanged
        );
    }

    #[test]
    fn a_pattern_with_a_star_within_is_refused() {
        let error = TestHost::new()
            .init::<InstructPrefix>(&json!({ "models": { "a*b": {} } }))
            .expect_err("a star");
        assert_eq!(
            error,
            "settings: models.\"a*b\": a * may stand at the end only"
        );
    }
}
