//! Hashes and tokens for guests.

use wasmtime::{Result, bail};

use crate::wasm::{
    bindings::embedgate::plugin::crypto,
    crypto::{Issuers, JwtError, equal, hmac_sha256, sha256},
    shared::not_granted,
    state::GuestState,
};

/// Bytes that one call of the host hashes: a millisecond.
const MOST_HASHED: usize = 1 << 20;

impl GuestState {
    fn crypto(&mut self) -> Result<&Issuers> {
        self.host_call()?;
        let issuers = self.shared.grants.crypto.as_ref();
        issuers.ok_or_else(|| not_granted(&self.shared.name, "crypto"))
    }
}

impl From<JwtError> for crypto::JwtError {
    fn from(error: JwtError) -> Self {
        match error {
            JwtError::Malformed => Self::Malformed,
            JwtError::UnknownIssuer => Self::UnknownIssuer,
            JwtError::UnknownKey => Self::UnknownKey,
            JwtError::BadSignature => Self::BadSignature,
            JwtError::Expired => Self::Expired,
            JwtError::NotYetValid => Self::NotYetValid,
            JwtError::WrongIssuer => Self::WrongIssuer,
            JwtError::WrongAudience => Self::WrongAudience,
        }
    }
}

impl crypto::Host for GuestState {
    fn verify_jwt(
        &mut self,
        token: String,
        issuer: String,
    ) -> Result<std::result::Result<String, crypto::JwtError>> {
        self.is_impure = true;
        let now = self.shared.clock.unix_ms() / 1000;
        let verified = self.crypto()?.verify(&token, &issuer, now);
        Ok(verified.map_err(Into::into))
    }

    fn sha256(&mut self, data: Vec<u8>) -> Result<Vec<u8>> {
        self.crypto()?;
        check_hashed(data.len())?;
        Ok(sha256(&data))
    }

    fn hmac_sha256(&mut self, key: Vec<u8>, data: Vec<u8>) -> Result<Vec<u8>> {
        self.crypto()?;
        check_hashed(key.len() + data.len())?;
        Ok(hmac_sha256(&key, &data))
    }

    fn equal(&mut self, a: Vec<u8>, b: Vec<u8>) -> Result<bool> {
        self.crypto()?;
        Ok(equal(&a, &b))
    }
}

/// Keeps one call of the host short: a guest cannot be stopped within it.
fn check_hashed(bytes: usize) -> Result<()> {
    if bytes > MOST_HASHED {
        bail!("at most {MOST_HASHED} bytes are hashed in one call, {bytes} were given");
    }
    Ok(())
}
