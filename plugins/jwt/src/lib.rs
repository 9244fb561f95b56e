//! Knows callers by signed tokens (JWT) in `authorization: Bearer`, as OpenID providers give them out.
//!
//! The gateway checks signature, issuer, audience and times; this plugin reads the claims. A credential that is no
//! token, or a token of an issuer that is not listed, is left to the next authenticator.

mod claims;

use std::time::Duration;

use embedgate_plugin::crypto::{self, JwtError};
use embedgate_plugin::{
    Authenticator, Lifecycle, Principal, Rejection, RequestHead, Settings, clock, settings,
};

use claims::Claims;

struct Jwt;

/// The plugin's settings. A claim is named by its name or, inside others, by the path to it: `realm_access.roles`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Names of issuers in the grant `crypto`, in the order in which they are tried.
    issuers: Vec<String>,
    #[serde(default = "default_subject_claim")]
    subject_claim: String,
    tenant_claim: Option<String>,
    #[serde(default = "default_scopes_claim")]
    scopes_claim: String,
    models_claim: Option<String>,
    #[serde(default)]
    required_scopes: Vec<String>,
    #[serde(default = "default_max_valid_for_ms")]
    max_valid_for_ms: u32,
}

fn default_subject_claim() -> String {
    "sub".to_owned()
}

/// As in RFC 8693 and RFC 9068.
fn default_scopes_claim() -> String {
    "scope".to_owned()
}

/// A token that its provider revokes is refused after a minute at the latest.
fn default_max_valid_for_ms() -> u32 {
    60_000
}

static CONFIG: Settings<Config> = Settings::new();

impl Lifecycle for Jwt {
    fn init(text: &str) -> Result<(), String> {
        let config: Config = settings::parse(text)?;
        if config.issuers.is_empty() {
            return Err(
                "settings: issuers must name at least one issuer of the grant crypto".to_owned(),
            );
        }
        for issuer in &config.issuers {
            // No token, but it finds out whether the name is known.
            if crypto::verify_jwt("", issuer) == Err(JwtError::UnknownIssuer) {
                return Err(format!(
                    "settings: issuer {issuer:?} is not in the grant crypto.issuers"
                ));
            }
        }
        CONFIG.set(config)
    }
}

impl Authenticator for Jwt {
    fn authenticate(head: RequestHead) -> Result<Option<Principal>, Rejection> {
        let Some(token) = head.bearer().filter(|token| looks_like_a_token(token)) else {
            return Ok(None);
        };
        let config = CONFIG.get();
        let Some(claims) = verify(token, &config.issuers)? else {
            return Ok(None);
        };
        let scopes = claims.words(&config.scopes_claim).unwrap_or_default();
        if let Some(missing) = config
            .required_scopes
            .iter()
            .find(|required| !scopes.contains(required))
        {
            return Err(insufficient_scope(missing));
        }
        principal(&claims, scopes, config).map(Some)
    }
}

/// Three parts of base64url, the first of which begins as all JSON objects do.
fn looks_like_a_token(token: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    token.starts_with("eyJ")
        && token.bytes().filter(|&byte| byte == b'.').count() == 2
        && token.bytes().all(allowed)
}

/// Returns the claims of a token, or none where no issuer made it.
///
/// # Errors
/// An issuer made it, or may have, but it does not hold.
fn verify(token: &str, issuers: &[String]) -> Result<Option<Claims>, Rejection> {
    let mut reason = None;
    for issuer in issuers {
        match crypto::verify_jwt(token, issuer) {
            Ok(json) => return Claims::parse(&json).map(Some),
            Err(JwtError::Malformed) => return Ok(None),
            // Perhaps the next one's. Whoever misses the key or cannot check the signature may still be its issuer.
            Err(JwtError::WrongIssuer) => {}
            Err(JwtError::UnknownKey) => {
                reason = reason.or(Some("it is signed with a key that is not known"))
            }
            Err(JwtError::BadSignature) => reason = reason.or(Some("its signature is wrong")),
            Err(JwtError::Expired) => return Err(invalid_token("it is expired")),
            Err(JwtError::NotYetValid) => return Err(invalid_token("it is not valid yet")),
            Err(JwtError::WrongAudience) => {
                return Err(invalid_token("it is for another audience"));
            }
            Err(JwtError::UnknownIssuer) => {
                return Err(Rejection::unavailable(format!(
                    "issuer {issuer} is not granted any more"
                )));
            }
        }
    }
    reason.map_or(Ok(None), |reason| Err(invalid_token(reason)))
}

fn principal(
    claims: &Claims,
    scopes: Vec<String>,
    config: &Config,
) -> Result<Principal, Rejection> {
    let Some(subject) = claims
        .text(&config.subject_claim)
        .filter(|subject| is_subject(subject))
    else {
        return Err(invalid_token(&format!(
            "its claim {} is no subject",
            config.subject_claim
        )));
    };
    let mut principal = Principal::new(subject).with_scopes(scopes);
    principal.tenant = config
        .tenant_claim
        .as_ref()
        .and_then(|claim| claims.text(claim));
    if let Some(claim) = &config.models_claim {
        // A token that does not name models opens none: whoever set the claim's name wants it to be there.
        principal = principal.with_models(claims.words(claim).unwrap_or_default());
    }
    let left = claims.expires().saturating_sub(clock::since_epoch());
    Ok(principal.with_valid_for(left.min(Duration::from_millis(config.max_valid_for_ms.into()))))
}

/// What the gateway takes for a subject: with anything else it would answer 503, as if the plugin were broken.
fn is_subject(subject: &str) -> bool {
    (1..=256).contains(&subject.len()) && !subject.contains(char::is_control)
}

/// As RFC 6750 says, section 3.1.
fn invalid_token(reason: &str) -> Rejection {
    Rejection::unauthorized(format!("the token is not accepted: {reason}"))
        .with_code("invalid_token")
        .with_header("www-authenticate", "Bearer error=\"invalid_token\"")
}

fn insufficient_scope(missing: &str) -> Rejection {
    Rejection::forbidden(format!("the token lacks the scope {missing}"))
        .with_code("insufficient_scope")
        .with_header("www-authenticate", "Bearer error=\"insufficient_scope\"")
}

embedgate_plugin::export!(Jwt: lifecycle, authenticator);

#[cfg(test)]
mod tests;
