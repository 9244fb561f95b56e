//! Brings texts into one Unicode form before they are embedded, so that equal texts have equal vectors, and are equal
//! in the cache.
//!
//! Token ids stay as they are. A text that nothing would be left of stays as it was: the gateway refuses empty ones.

mod characters;
mod html;

use std::borrow::Cow;

use embedgate_plugin::{
    EmbedRequest, Lifecycle, Outcome, Preprocessor, Principal, Rejection, Settings, settings,
};

struct TextNormalize;

/// Which steps are done, in this order.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Tags are removed and entities resolved.
    html: bool,
    /// Unicode normalization form KC.
    nfkc: bool,
    /// Control characters are removed, but those that are white space.
    control: bool,
    /// Runs of white space become one space; none is left at the ends.
    whitespace: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            html: false,
            nfkc: true,
            control: true,
            whitespace: true,
        }
    }
}

static CONFIG: Settings<Config> = Settings::new();

impl Lifecycle for TextNormalize {
    fn init(text: &str) -> Result<(), String> {
        CONFIG.set(settings::parse(text)?)
    }
}

impl Preprocessor for TextNormalize {
    fn preprocess(request: EmbedRequest, _: Option<Principal>) -> Result<Outcome, Rejection> {
        let config = *CONFIG.get();
        Ok(request.replace_texts(|text| normalize(text, config)))
    }
}

/// Returns the normalized text, or none where it is the text itself or empty.
fn normalize(text: &str, config: Config) -> Option<String> {
    if characters::is_plain(text, config) {
        return None;
    }
    let mut changed = Cow::Borrowed(text);
    if config.html {
        changed = html::strip(changed);
    }
    if config.nfkc {
        changed = characters::nfkc(changed);
    }
    if config.control {
        changed = characters::remove_control(changed);
    }
    if config.whitespace {
        changed = characters::collapse_whitespace(changed);
    }
    (!changed.is_empty() && changed != text).then(|| changed.into_owned())
}

embedgate_plugin::export!(TextNormalize: lifecycle, preprocessor);

#[cfg(test)]
mod tests {
    use embedgate_plugin::test::{self, TestHost, Value, json};
    use embedgate_plugin::{Edits, Replacement};

    use super::*;

    fn run(settings: &Value, request: EmbedRequest) -> Outcome {
        let host = TestHost::new();
        host.init::<TextNormalize>(settings)
            .expect("settings are right");
        host.preprocess::<TextNormalize>(request, None)
            .expect("no rejection")
    }

    fn one(settings: &Value, text: &str) -> Option<String> {
        match run(settings, test::texts(&[text])) {
            Outcome::Unchanged => None,
            Outcome::Edited(edits) => {
                let embedgate_plugin::InputEdit::Some(mut some) = edits.inputs else {
                    panic!("not some")
                };
                some.pop().map(|replacement| replacement.text)
            }
        }
    }

    #[test]
    fn only_texts_that_change_are_sent_back() {
        let outcome = run(
            &json!({}),
            test::texts(&["as it was", "two  spaces", "猫坐在垫子上"]),
        );
        let expected = Edits::some(vec![Replacement {
            index: 1,
            text: "two spaces".to_owned(),
        }]);
        assert_eq!(outcome, Outcome::Edited(expected));
        assert_eq!(
            run(&json!({}), test::texts(&["as it was"])),
            Outcome::Unchanged
        );
        assert_eq!(
            run(&json!({}), test::tokens(&[&[1, 2]])),
            Outcome::Unchanged
        );
    }

    #[test]
    fn each_step_can_be_switched() {
        let text = "ﬁ\u{7}\u{3000}<b>x</b>";
        let none = json!({ "nfkc": false, "control": false, "whitespace": false });
        assert_eq!(one(&none, text), None);
        let with = |name: &str| {
            let mut settings = none.clone();
            settings[name] = json!(true);
            one(&settings, text)
        };
        assert_eq!(with("nfkc").as_deref(), Some("fi\u{7} <b>x</b>"));
        assert_eq!(with("control").as_deref(), Some("ﬁ\u{3000}<b>x</b>"));
        assert_eq!(with("whitespace").as_deref(), Some("ﬁ\u{7} <b>x</b>"));
        assert_eq!(with("html").as_deref(), Some("ﬁ\u{7}\u{3000}x"));
    }

    #[test]
    fn entities_are_normalized_too() {
        let settings = json!({ "html": true });
        assert_eq!(
            one(&settings, "a&nbsp;&nbsp;b &#xFB01;").as_deref(),
            Some("a b fi")
        );
    }

    #[test]
    fn a_text_that_nothing_would_be_left_of_stays() {
        assert_eq!(one(&json!({ "html": true }), "<br>"), None);
        assert_eq!(one(&json!({}), " \u{7} "), None);
    }

    #[test]
    fn an_unknown_setting_is_an_error() {
        let error = TestHost::new()
            .init::<TextNormalize>(&json!({ "nfc": true }))
            .expect_err("unknown");
        assert_eq!(
            error,
            "settings: unknown field `nfc`, expected one of `html`, `nfkc`, `control`, `whitespace`"
        );
    }
}
