//! The functions of the host for plugins that authenticate: hashes, and JSON Web Tokens against configured keys.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use embedgate_config::{CryptoConfig, IssuerConfig};
use hmac::{Hmac, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind, jwk::JwkSet};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The reasons why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JwtError {
    Malformed,
    UnknownIssuer,
    UnknownKey,
    BadSignature,
    Expired,
    NotYetValid,
    WrongIssuer,
    WrongAudience,
}

/// The issuers whose tokens a plugin may have verified, with their keys.
pub(super) struct Issuers(BTreeMap<String, Issuer>);

struct Issuer {
    config: IssuerConfig,
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl Issuers {
    /// Reads the issuers' files of keys.
    pub(super) fn load(config: &CryptoConfig) -> anyhow::Result<Self> {
        let mut issuers = BTreeMap::new();
        for (name, config) in &config.issuers {
            let issuer =
                Issuer::load(config).with_context(|| format!("grants.crypto.issuers.{name}"))?;
            issuers.insert(name.clone(), issuer);
        }
        Ok(Self(issuers))
    }

    /// Checks a token's signature, times, issuer and audience, and returns its claims as JSON text.
    pub(super) fn verify(
        &self,
        token: &str,
        issuer: &str,
        unix_seconds: u64,
    ) -> Result<String, JwtError> {
        let issuer = self.0.get(issuer).ok_or(JwtError::UnknownIssuer)?;
        issuer.verify(token, unix_seconds)
    }
}

impl Issuer {
    fn load(config: &IssuerConfig) -> anyhow::Result<Self> {
        let shown = config.jwks.display();
        let text = super::files::read_to_string(&config.jwks)
            .with_context(|| format!("jwks {shown} cannot be read"))?;
        let set: JwkSet = serde_json::from_str(&text)
            .with_context(|| format!("jwks {shown} is no JSON Web Key Set"))?;
        let mut keys = Vec::new();
        for jwk in set.keys {
            // Keys for encryption, and of kinds that nobody here can use, are left out.
            let Ok(key) = DecodingKey::from_jwk(&jwk) else {
                continue;
            };
            let algorithm = jwk.common.key_algorithm;
            keys.push(Key {
                id: jwk.common.key_id,
                algorithm: algorithm.and_then(|name| name.to_string().parse().ok()),
                key,
            });
        }
        if keys.is_empty() {
            bail!("jwks {shown} has no key that can verify tokens");
        }
        if config.algorithms.is_empty() {
            bail!("algorithms is empty: no token can be verified");
        }
        Ok(Self {
            config: config.clone(),
            keys,
        })
    }

    fn verify(&self, token: &str, now: u64) -> Result<String, JwtError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Malformed)?;
        if !self.config.algorithms.contains(&header.alg) {
            return Err(JwtError::UnknownKey);
        }
        let mut error = JwtError::UnknownKey;
        for key in &self.keys {
            let is_other = header.kid.is_some() && key.id.is_some() && key.id != header.kid;
            if is_other
                || key
                    .algorithm
                    .is_some_and(|algorithm| algorithm != header.alg)
            {
                continue;
            }
            match verified(token, &key.key, header.alg) {
                Ok(claims) => return self.check_claims(&claims, now),
                Err(found) => error = found,
            }
        }
        Err(error)
    }

    fn check_claims(&self, claims: &Value, now: u64) -> Result<String, JwtError> {
        let leeway = self.config.leeway.0.as_secs();
        let seconds = |name: &str| match &claims[name] {
            Value::Null => Ok(None),
            Value::Number(n) => Ok(n.as_f64()),
            _ => Err(JwtError::Malformed),
        };
        // A token that never ends cannot be taken back.
        let expires = seconds("exp")?.ok_or(JwtError::Expired)?;
        if expires + leeway as f64 <= now as f64 {
            return Err(JwtError::Expired);
        }
        if seconds("nbf")?.is_some_and(|from| from > (now + leeway) as f64) {
            return Err(JwtError::NotYetValid);
        }
        let issuer = self.config.issuer.as_deref();
        if issuer.is_some_and(|issuer| claims["iss"] != issuer) {
            return Err(JwtError::WrongIssuer);
        }
        let accepted = &self.config.audience;
        let is_for_us = match &claims["aud"] {
            Value::String(audience) => accepted.contains(audience),
            Value::Array(all) => all
                .iter()
                .filter_map(Value::as_str)
                .any(|audience| accepted.iter().any(|a| a == audience)),
            _ => false,
        };
        if !accepted.is_empty() && !is_for_us {
            return Err(JwtError::WrongAudience);
        }
        Ok(claims.to_string())
    }
}

/// The claims of a token that this key has signed.
fn verified(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Value, JwtError> {
    let mut validation = Validation::new(algorithm);
    // Times and audience are checked by us, by the clock that guests have.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let decoded = jsonwebtoken::decode::<Value>(token, key, &validation);
    match decoded {
        Ok(decoded) if decoded.claims.is_object() => Ok(decoded.claims),
        Ok(_) => Err(JwtError::Malformed),
        Err(error) => Err(match error.kind() {
            ErrorKind::InvalidSignature => JwtError::BadSignature,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => JwtError::UnknownKey,
            _ => JwtError::Malformed,
        }),
    }
}

/// Returns the SHA-256 of data.
pub(super) fn sha256(data: &[u8]) -> Vec<u8> {
    Sha256::digest(data).to_vec()
}

/// Returns the HMAC of data, with SHA-256.
pub(super) fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// Compares in a time that depends on the lengths alone.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
