//! The template of a reranker that is a language model: what stands around and between both texts of a pair.

use embedgate_core::ChatTemplate;
use minijinja::{
    Environment, context,
    syntax::SyntaxConfig,
    value::{Serde, Value},
};

/// The texts around and between both texts of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PairTemplate {
    before: String,
    between: String,
    after: String,
}

/// The reasons why a template is none for pairs, each a part of a sentence about it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// It is no template, or refuses the messages.
    #[error("cannot be rendered: {0}")]
    Broken(String),
    /// It was made for other conversations.
    #[error(
        "leaves out the query, or changes it: expected one that puts messages of the roles query and document into a text"
    )]
    NoQuery,
    /// It was made for other conversations.
    #[error("leaves out the document, changes it, or puts it before the query")]
    NoDocument,
    /// A text stands in more than one place.
    #[error("has a text of the pair twice")]
    Twice,
}

/// Stand for the texts while a template is rendered. White space around them shows whether it stays.
const QUERY: &str = " \n{{query 5c1f}}\n ";
const DOCUMENT: &str = " \n{{document 83ab}}\n ";

/// Steps of a template: more than any needs, and few enough to end at once.
const STEPS: u64 = 1_000_000;

/// Qwen3's instruction where nobody says another.
const INSTRUCTION: &str =
    "Given a web search query, retrieve relevant passages that answer the query";

impl PairTemplate {
    /// Renders a folder's template, with the system's message in front where there is one.
    ///
    /// # Errors
    /// [`Misfit`] when it cannot be rendered, or has no place for both texts.
    pub(crate) fn of(template: &ChatTemplate, system: Option<&str>) -> Result<Self, Misfit> {
        let mut environment = Environment::new();
        // As the reference sets it.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| Misfit::Broken(error.to_string()))?);
        environment.set_fuel(Some(STEPS));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| {
            Err::<Value, _>(minijinja::Error::new(
                minijinja::ErrorKind::InvalidOperation,
                message,
            ))
        });
        let message = |role: &str, content: &str| context! { role, content };
        let system = system.map(|text| message("system", text));
        let pair = [message("query", QUERY), message("document", DOCUMENT)];
        let messages: Vec<Value> = system.into_iter().chain(pair).collect();
        let mut variables = template.variables.clone();
        variables
            .entry("add_generation_prompt")
            .or_insert(false.into());
        let rendered = environment.render_str(
            &template.source,
            context! { messages, ..Value::from(Serde(&variables)) },
        );
        let rendered = rendered.map_err(|error| Misfit::Broken(error.to_string()))?;
        let (before, rest) = rendered.split_once(QUERY).ok_or(Misfit::NoQuery)?;
        let (between, after) = rest.split_once(DOCUMENT).ok_or(Misfit::NoDocument)?;
        if [QUERY, DOCUMENT].iter().any(|text| after.contains(text)) {
            return Err(Misfit::Twice);
        }
        Ok(Self {
            before: before.into(),
            between: between.into(),
            after: after.into(),
        })
    }

    /// The template of Qwen3's rerankers, with this instruction or the usual one.
    ///
    /// Source: the model card of Qwen3-Reranker.
    pub(crate) fn qwen3(instruction: Option<&str>) -> Self {
        let instruction = instruction.unwrap_or(INSTRUCTION);
        Self {
            before: format!(
                "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. \
                 Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n<Instruct>: {instruction}\n<Query>: "
            ),
            between: "\n<Document>: ".into(),
            after: "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n".into(),
        }
    }

    /// The text of a pair as far as the document.
    pub(super) fn with_query(&self, query: &str) -> String {
        [&self.before, query, &self.between].concat()
    }

    /// The text of a pair, with words in the place of both texts.
    pub(crate) fn example(&self) -> String {
        [&self.with_query("QUERY"), "DOCUMENT", &self.after].concat()
    }

    /// The text that stands behind the document.
    pub(super) fn after(&self) -> &str {
        &self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str, system: Option<&str>) -> Result<PairTemplate, Misfit> {
        let template = ChatTemplate {
            source: source.into(),
            variables: serde_json::from_str("{\"word\": \"answer\"}").unwrap(),
        };
        PairTemplate::of(&template, system)
    }

    const BY_ROLE: &str = "{%- for m in messages %}\n    {%- if m.role == 'system' %}\n<{{ m['content'] }}>\n    {%- elif \
                           m.role.startswith('query') %}\nQ:{{ m.content }}{% else %}\nD:{{ m.content }}\n    {%- endif %}\n{%- endfor \
                           %}\n{{ word }}:";

    #[test]
    fn texts_are_found_within_what_is_rendered() {
        let pieces = of(BY_ROLE, Some("be good")).unwrap();
        assert_eq!(pieces.before, "<be good>Q:");
        assert_eq!(pieces.between, "D:");
        assert_eq!(pieces.after, "answer:");
        assert_eq!(of(BY_ROLE, None).unwrap().before, "Q:");
        assert_eq!(pieces.with_query("q"), "<be good>Q:qD:");
    }

    /// A variable that is not there is empty, as in the reference; one of the folder wins over the usual one.
    #[test]
    fn variables_are_those_of_the_folder() {
        let mut template = ChatTemplate {
            source: "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
                .into(),
            variables: serde_json::Map::new(),
        };
        assert_eq!(PairTemplate::of(&template, None).unwrap().after, "");
        let variables = [
            ("bos_token", "<s>".into()),
            ("add_generation_prompt", true.into()),
        ];
        for (name, value) in variables {
            template.variables.insert(name.into(), value);
        }
        let pieces = PairTemplate::of(&template, None).unwrap();
        assert_eq!((&*pieces.before, &*pieces.after), ("<s>", "<answer>"));
    }

    #[test]
    fn a_template_that_has_no_place_for_both_texts_is_refused() {
        for (source, expected) in [
            ("{{ messages[0].content }}", "leaves out the document"),
            ("{{ messages[1].content }}", "leaves out the query"),
            (
                "{{ messages[0].content | trim }}{{ messages[1].content }}",
                "changes it",
            ),
            (
                "{{ messages[0].content }}{{ messages[1].content }}{{ messages[0].content }}",
                "twice",
            ),
            ("{% if %}", "cannot be rendered"),
            ("{{ messages | nothing_of_the_kind }}", "cannot be rendered"),
            ("{{ raise_exception('no pairs') }}", "no pairs"),
        ] {
            let error = of(source, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{source}: {error}");
        }
    }
}
