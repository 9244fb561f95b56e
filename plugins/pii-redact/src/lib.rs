//! Replaces personal data in texts before they are embedded: e-mail addresses, phone numbers, payment cards and
//! national ids.
//!
//! What has a checksum is checked, so that order numbers stay. Token ids stay as they are: they cannot be searched.

mod email;
mod number;

use std::ops::Range;

use embedgate_plugin::{
    EmbedRequest, Lifecycle, Outcome, Preprocessor, Principal, Rejection, Settings, settings,
};

struct PiiRedact;

/// The plugin's settings: what is looked for, and what takes its place.
#[derive(Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    email: bool,
    phone: bool,
    card: bool,
    national_id: bool,
    /// `{kind}` in it becomes EMAIL, PHONE, CARD or ID.
    replacement: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            email: true,
            phone: true,
            card: true,
            national_id: true,
            replacement: "[{kind}]".to_owned(),
        }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Email,
    Phone,
    Card,
    NationalId,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Email => "EMAIL",
            Self::Phone => "PHONE",
            Self::Card => "CARD",
            Self::NationalId => "ID",
        }
    }
}

static CONFIG: Settings<Config> = Settings::new();

impl Lifecycle for PiiRedact {
    fn init(text: &str) -> Result<(), String> {
        CONFIG.set(settings::parse(text)?)
    }
}

impl Preprocessor for PiiRedact {
    fn preprocess(request: EmbedRequest, _: Option<Principal>) -> Result<Outcome, Rejection> {
        let config = CONFIG.get();
        Ok(request.replace_texts(|text| redact(text, config)))
    }
}

/// Returns the text without what was found in it, or none where nothing was.
fn redact(text: &str, config: &Config) -> Option<String> {
    let found = find(text, config);
    if found.is_empty() {
        return None;
    }
    let mut redacted = String::with_capacity(text.len());
    let mut end = 0;
    for (range, kind) in found {
        redacted.push_str(&text[end..range.start]);
        redacted.push_str(&config.replacement.replace("{kind}", kind.name()));
        end = range.end;
    }
    redacted.push_str(&text[end..]);
    Some(redacted)
}

/// Finds all, in order: first addresses, which may begin with a phone number, then numbers between them.
fn find(text: &str, config: &Config) -> Vec<(Range<usize>, Kind)> {
    let bytes = text.as_bytes();
    let emails = if config.email {
        email::find(bytes)
    } else {
        Vec::new()
    };
    let mut found = Vec::new();
    let mut start = 0;
    for email in emails {
        number::find(bytes, start..email.start, config, &mut found);
        start = email.end;
        found.push((email, Kind::Email));
    }
    number::find(bytes, start..bytes.len(), config, &mut found);
    found
}

embedgate_plugin::export!(PiiRedact: lifecycle, preprocessor);

#[cfg(test)]
mod tests;
