//! Tokens for tests: signed with HS256, checked as the gateway checks those of real issuers.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::crypto::JwtError;

/// Who signs tokens, and what must stand in them.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The name that the plugin calls it by.
    pub name: String,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be or contain.
    pub audience: String,
}

impl Issuer {
    /// Makes an issuer with the URL `https://NAME.example.com` and the audience `rag`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            issuer: format!("https://{name}.example.com"),
            audience: "rag".to_owned(),
        }
    }

    /// Signs claims; `iss` and `aud` are put in where they are not there.
    ///
    /// # Panics
    /// The claims are not an object.
    pub fn sign(&self, claims: &Value) -> String {
        let mut claims = claims.as_object().expect("claims are an object").clone();
        claims.entry("iss").or_insert_with(|| json!(self.issuer));
        claims.entry("aud").or_insert_with(|| json!(self.audience));
        let header =
            URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256", "kid": self.name }).to_string());
        let payload = URL_SAFE_NO_PAD.encode(Value::Object(claims).to_string());
        let signed = format!("{header}.{payload}");
        let signature = URL_SAFE_NO_PAD.encode(self.signature(&signed));
        format!("{signed}.{signature}")
    }

    pub(crate) fn verify(&self, token: &str, now_s: u64) -> Result<String, JwtError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let header: Value = part(header)?;
        let claims: Value = part(payload)?;
        if header["kid"] != json!(self.name) {
            return Err(JwtError::UnknownKey);
        }
        if signature != URL_SAFE_NO_PAD.encode(self.signature(signed)) {
            return Err(JwtError::BadSignature);
        }
        if claims["exp"].as_u64().is_none_or(|exp| exp <= now_s) {
            return Err(JwtError::Expired);
        }
        if claims["nbf"].as_u64().is_some_and(|nbf| nbf > now_s) {
            return Err(JwtError::NotYetValid);
        }
        if claims["iss"] != json!(self.issuer) {
            return Err(JwtError::WrongIssuer);
        }
        let audience = json!(self.audience);
        if claims["aud"] != audience
            && claims["aud"]
                .as_array()
                .is_none_or(|list| !list.contains(&audience))
        {
            return Err(JwtError::WrongAudience);
        }
        Ok(claims.to_string())
    }

    fn signature(&self, signed: &str) -> Vec<u8> {
        let key = format!("the test key of {}", self.name);
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
        mac.update(signed.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }
}

fn part(text: &str) -> Result<Value, JwtError> {
    let json = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| JwtError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_checked_as_the_gateway_checks_them() {
        let main = Issuer::new("main");
        let verify = |claims: Value| main.verify(&main.sign(&claims), 1000).map(|_| ());
        assert_eq!(verify(json!({ "exp": 1001 })), Ok(()));
        assert_eq!(verify(json!({ "exp": 1001, "aud": ["rag", "x"] })), Ok(()));
        assert_eq!(verify(json!({})), Err(JwtError::Expired));
        assert_eq!(verify(json!({ "exp": 1000 })), Err(JwtError::Expired));
        assert_eq!(
            verify(json!({ "exp": 1001, "nbf": 1001 })),
            Err(JwtError::NotYetValid)
        );
        assert_eq!(
            verify(json!({ "exp": 1001, "iss": "x" })),
            Err(JwtError::WrongIssuer)
        );
        assert_eq!(
            verify(json!({ "exp": 1001, "aud": "x" })),
            Err(JwtError::WrongAudience)
        );
        let others = Issuer::new("other").sign(&json!({ "exp": 1001 }));
        assert_eq!(main.verify(&others, 1000), Err(JwtError::UnknownKey));
        let changed = main.sign(&json!({ "exp": 1001 })) + "x";
        assert_eq!(main.verify(&changed, 1000), Err(JwtError::BadSignature));
        assert_eq!(main.verify("x", 1000), Err(JwtError::Malformed));
    }
}
