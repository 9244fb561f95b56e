//! Knows callers by API keys, of which it has only the hashes.
//!
//! The key comes as `authorization: Bearer KEY` or `x-api-key: KEY`. A key that is not known is left to the next
//! authenticator.

mod index;
mod keys;

use std::time::Duration;

use embedgate_plugin::{
    Authenticator, Lifecycle, Principal, Rejection, RequestHead, Settings, crypto, secrets,
    settings,
};

use index::Index;
use keys::Key;

struct ApiKeyFile;

/// The plugin's settings; `keys` is read apart, because it may be a list or a text.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    keys: serde_json::Value,
    #[serde(default)]
    pepper: bool,
    #[serde(default = "default_valid_for_ms")]
    valid_for_ms: u32,
}

/// Keys change only when the gateway loads the plugin anew, so a minute costs nothing but the gateway's memory.
fn default_valid_for_ms() -> u32 {
    60_000
}

/// What `init` makes of the settings.
#[derive(Debug)]
struct Callers {
    index: Index,
    pepper: bool,
    valid_for: Duration,
}

static CALLERS: Settings<Callers> = Settings::new();

/// The secret's name. It is read in each call, so that it is not in the snapshot of the instance.
const PEPPER: &str = "PEPPER";

impl Lifecycle for ApiKeyFile {
    fn init(text: &str) -> Result<(), String> {
        let config: Config = settings::parse(text)?;
        if config.pepper && secrets::get(PEPPER).is_none() {
            return Err(
                "settings: pepper = true needs a grant: secrets = { PEPPER = ... }".to_owned(),
            );
        }
        let index = Index::new(keys::read(config.keys)?)?;
        let valid_for = Duration::from_millis(config.valid_for_ms.into());
        embedgate_plugin::info!("{} keys", index.len());
        CALLERS.set(Callers {
            index,
            pepper: config.pepper,
            valid_for,
        })
    }
}

impl Authenticator for ApiKeyFile {
    fn authenticate(head: RequestHead) -> Result<Option<Principal>, Rejection> {
        let Some(key) = head.bearer().or_else(|| head.header("x-api-key")) else {
            return Ok(None);
        };
        let callers = CALLERS.get();
        let digest = if callers.pepper {
            let Some(pepper) = secrets::get(PEPPER) else {
                return Err(Rejection::unavailable(
                    "the secret PEPPER is not granted any more",
                ));
            };
            crypto::hmac_sha256(pepper.as_bytes(), key.as_bytes())
        } else {
            crypto::sha256(key.as_bytes())
        };
        Ok(callers
            .index
            .find(&digest)
            .map(|key| principal(key, callers.valid_for)))
    }
}

fn principal(key: &Key, valid_for: Duration) -> Principal {
    Principal {
        tenant: key.tenant.clone(),
        scopes: key.scopes.clone(),
        allowed_models: key.models.clone(),
        lane: key.lane.map(Into::into),
        limit: key.limit.clone(),
        ..Principal::new(&key.name).with_valid_for(valid_for)
    }
}

embedgate_plugin::export!(ApiKeyFile: lifecycle, authenticator);

#[cfg(test)]
mod tests {
    use embedgate_plugin::Lane;
    use embedgate_plugin::test::{self, TestHost, Value, json};

    use super::*;

    /// The SHA-256 of `sesame`.
    const SESAME: &str = "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";

    fn host(settings: &Value) -> TestHost {
        let host = TestHost::new().with_crypto().with_secret(PEPPER, "salt");
        host.init::<ApiKeyFile>(settings)
            .expect("settings are right");
        host
    }

    fn subject(host: &TestHost, header: &str, value: &str) -> Option<String> {
        let answer = host.authenticate::<ApiKeyFile>(test::head().with_header(header, value));
        answer
            .expect("no rejection")
            .map(|principal| principal.subject)
    }

    #[test]
    fn a_key_is_read_from_either_header() {
        let host = host(&json!({ "keys": [{ "name": "ali", "sha256": SESAME }] }));
        assert_eq!(
            subject(&host, "authorization", "Bearer sesame"),
            Some("ali".to_owned())
        );
        assert_eq!(
            subject(&host, "x-api-key", "sesame"),
            Some("ali".to_owned())
        );
        assert_eq!(subject(&host, "x-other", "sesame"), None);
        assert_eq!(subject(&host, "authorization", "Bearer Sesame"), None);
        assert_eq!(subject(&host, "authorization", "Basic sesame"), None);
    }

    #[test]
    fn what_stands_beside_a_key_is_in_the_principal() {
        let settings = json!({ "valid_for_ms": 5, "keys": [{
            "name": "ali", "sha256": SESAME, "tenant": "t", "scopes": ["s"], "models": ["m", "n-*"], "lane": "bulk",
            "limit": "gold",
        }] });
        let expected = Principal::new("ali")
            .with_tenant("t")
            .with_scopes(["s"])
            .with_models(["m", "n-*"])
            .with_lane(Lane::Bulk)
            .with_limit("gold")
            .with_valid_for(Duration::from_millis(5));
        let answer = host(&settings)
            .authenticate::<ApiKeyFile>(test::head().with_header("x-api-key", "sesame"));
        assert_eq!(answer, Ok(Some(expected)));
    }

    #[test]
    fn a_text_of_keys_says_the_same_as_a_list() {
        let text = format!("# callers\n\nali {SESAME} models=m,n-* lane=query # of the door\n");
        let host = host(&json!({ "keys": text }));
        let answer =
            host.authenticate::<ApiKeyFile>(test::head().with_header("x-api-key", "sesame"));
        let principal = answer.expect("no rejection").expect("a principal");
        assert_eq!(
            principal.allowed_models,
            Some(vec!["m".to_owned(), "n-*".to_owned()])
        );
        assert_eq!(principal.lane, Some(Lane::Query));
    }

    #[test]
    fn peppered_keys_are_no_plain_hashes() {
        // The HMAC-SHA-256 of `sesame` under `salt`.
        let peppered = "cd48acdfca66c930336934adf6882a81ac0a1277d240e721c129fc68dd376b32";
        let computed: String = {
            let _host = TestHost::new().with_crypto();
            crypto::hmac_sha256(b"salt", b"sesame")
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        };
        assert_eq!(computed, peppered);
        let host = host(&json!({ "pepper": true, "keys": [
            { "name": "ali", "sha256": peppered }, { "name": "thief", "sha256": SESAME },
        ] }));
        assert_eq!(
            subject(&host, "x-api-key", "sesame"),
            Some("ali".to_owned())
        );
    }

    #[test]
    fn a_pepper_that_is_not_granted_is_an_error_of_the_settings() {
        let host = TestHost::new().with_crypto();
        let error = host
            .init::<ApiKeyFile>(&json!({ "pepper": true, "keys": [] }))
            .expect_err("no pepper");
        assert_eq!(
            error,
            "settings: pepper = true needs a grant: secrets = { PEPPER = ... }"
        );
    }
}
