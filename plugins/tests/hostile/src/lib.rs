//! The guest of the containment tests: it attacks its host in the way it is told. No example to follow.
//!
//! An attack is a name and, for some, an argument after a space. It is told
//! * to `init` in the settings: `{ attack = "NAME" }`,
//! * to `authenticate` and `preprocess`, in every call, in the settings too: `{ every_call = "NAME" }`,
//! * to `authenticate` in the header `x-attack`, with `x-url` in the argument's place where that is there,
//! * to `preprocess` in the first text: `attack:NAME`,
//! * to `observe` in the model of the first summary: `attack:NAME`.
//!
//! A name that is not known does nothing: no principal, nothing changed.

mod answers;
mod exhaust;
mod host_calls;

use std::sync::OnceLock;

use embedgate_plugin::{
    Authenticator, EmbedRequest, Lifecycle, Observer, Outcome, Preprocessor, Principal, Rejection,
    RequestHead, Summary, settings,
};

struct Hostile;

/// What to do, and with what.
#[derive(Clone, Copy, Debug)]
struct Attack<'a> {
    name: &'a str,
    argument: &'a str,
}

impl<'a> Attack<'a> {
    fn parse(text: &'a str) -> Self {
        let (name, argument) = text.split_once(' ').unwrap_or((text, ""));
        Self { name, argument }
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    attack: Option<String>,
    every_call: Option<String>,
}

/// What every call does first.
static EVERY_CALL: OnceLock<String> = OnceLock::new();

fn run_every_call() {
    if let Some(attack) = EVERY_CALL.get() {
        exhaust::run(Attack::parse(attack));
    }
}

impl Lifecycle for Hostile {
    fn init(text: &str) -> Result<(), String> {
        let config: Config = settings::parse(text)?;
        if let Some(attack) = config.every_call {
            // Set once: there is one init.
            drop(EVERY_CALL.set(attack));
        }
        let Some(attack) = &config.attack else {
            return Ok(());
        };
        let attack = Attack::parse(attack);
        exhaust::run(attack);
        match attack.name {
            "reject" => Err("the settings are refused".to_owned()),
            "huge-result" => Err(answers::huge_text()),
            _ => host_calls::run(attack).map_or(Ok(()), Err),
        }
    }
}

impl Authenticator for Hostile {
    fn authenticate(head: RequestHead) -> Result<Option<Principal>, Rejection> {
        run_every_call();
        let Some(text) = head.header("x-attack") else {
            return Ok(None);
        };
        let mut attack = Attack::parse(text);
        if let Some(url) = head.header("x-url") {
            attack.argument = url;
        }
        exhaust::run(attack);
        if let Some(said) = host_calls::run(attack) {
            return Err(Rejection::bad_request(said));
        }
        answers::authenticate(attack)
    }
}

impl Preprocessor for Hostile {
    fn preprocess(request: EmbedRequest, _: Option<Principal>) -> Result<Outcome, Rejection> {
        run_every_call();
        let Some(text) = request
            .texts()
            .first()
            .and_then(|text| text.strip_prefix("attack:"))
        else {
            return Ok(Outcome::Unchanged);
        };
        let attack = Attack::parse(text);
        exhaust::run(attack);
        if let Some(said) = host_calls::run(attack) {
            return Err(Rejection::bad_request(said));
        }
        answers::preprocess(attack, request.texts())
    }
}

impl Observer for Hostile {
    fn observe(batch: Vec<Summary>) {
        let Some(text) = batch
            .first()
            .and_then(|summary| summary.model.strip_prefix("attack:"))
        else {
            return;
        };
        let attack = Attack::parse(text);
        exhaust::run(attack);
        if let Some(said) = host_calls::run(attack) {
            embedgate_plugin::info!("{said}");
        }
    }
}

embedgate_plugin::export!(Hostile: lifecycle, authenticator, preprocessor, observer);

#[cfg(test)]
mod tests {
    use embedgate_plugin::test::{self, TestHost, json};

    use super::*;

    fn authenticate(attack: &str) -> Result<Option<Principal>, Rejection> {
        Hostile::authenticate(test::head().with_header("x-attack", attack))
    }

    #[test]
    fn a_name_that_is_not_known_does_nothing() {
        let host = TestHost::new();
        assert_eq!(host.init::<Hostile>(&json!({ "attack": "x" })), Ok(()));
        assert_eq!(authenticate("x"), Ok(None));
        assert_eq!(
            Hostile::preprocess(test::texts(&["attack:x"]), None),
            Ok(Outcome::Unchanged)
        );
        assert_eq!(
            Hostile::preprocess(test::texts(&["loop"]), None),
            Ok(Outcome::Unchanged)
        );
    }

    #[test]
    fn an_attack_may_have_an_argument() {
        let _host = TestHost::new().with_secret("A", "of the test");
        let said = authenticate("secrets-get A").expect_err("a rejection");
        assert_eq!(said.message, "of the test");
        assert_eq!(
            authenticate("secrets-get B")
                .expect_err("a rejection")
                .message,
            "none"
        );
        assert_eq!(
            authenticate("bad-status 200")
                .expect_err("a rejection")
                .status,
            200
        );
    }

    #[test]
    fn a_count_goes_on_where_the_instance_does() {
        assert_eq!(authenticate("count"), Ok(Some(Principal::new("1"))));
        assert_eq!(authenticate("count"), Ok(Some(Principal::new("2"))));
    }
}
