//! SCRAM-SHA-256 verifiers, as `pg_authid.rolpassword` holds them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pgwire::api::auth::sasl::scram::{ScramSecret, gen_salted_password};
use subtle::ConstantTimeEq as _;

/// What PostgreSQL derives with by default.
pub const DEFAULT_ITERATIONS: u32 = 4096;
pub const SALT_BYTES: usize = 16;
pub const KEY_BYTES: usize = 32;

/// Proves a password without containing it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub salt: Vec<u8>,
    pub iterations: u32,
    pub stored_key: Vec<u8>,
    pub server_key: Vec<u8>,
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
    pub fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| BASE64.decode(text).ok().filter(|key| key.len() == KEY_BYTES);
        Some(Self {
            salt: BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?,
            iterations: iterations.parse().ok().filter(|&iterations| iterations > 0)?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// Takes about a millisecond for 4,096 iterations, which is the point of it.
    pub fn derive(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let count = iterations.max(1) as usize;
        let salted = gen_salted_password(password, &salt, count);
        let secret = ScramSecret::verifier_from_salted_password(salt.clone(), salted, count);
        let (stored_key, server_key) = match secret {
            ScramSecret::Verifier { stored_key, server_key, .. } => (stored_key, server_key),
            ScramSecret::SaltedPassword { .. } => (Vec::new(), Vec::new()),
        };
        Self { salt, iterations, stored_key, server_key }
    }

    /// Derives again, so it takes as long as [`Verifier::derive`].
    pub fn matches(&self, password: &str) -> bool {
        let candidate = Self::derive(password, self.salt.clone(), self.iterations);
        candidate.stored_key.ct_eq(&self.stored_key).into()
    }

    pub fn secret(&self) -> ScramSecret {
        ScramSecret::Verifier {
            salt: self.salt.clone(),
            iterations: self.iterations as usize,
            stored_key: self.stored_key.clone(),
            server_key: self.server_key.clone(),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifiers_are_postgresqls() {
        for password in ["app", "pass word", "pässwörd", "\u{1680}not\u{0007}saslprep", ""] {
            let theirs = postgres_protocol::password::scram_sha_256(password.as_bytes());
            let verifier = Verifier::parse(&theirs).unwrap();
            assert_eq!(verifier.iterations, 4096);
            assert!(verifier.matches(password), "{password:?}");
            assert!(!verifier.matches(&format!("{password}x")), "{password:?}");
            assert_eq!(Verifier::derive(password, verifier.salt.clone(), 4096), verifier);
        }
    }

    #[test]
    fn what_is_no_verifier_is_refused() {
        let key = BASE64.encode([7; KEY_BYTES]);
        assert!(Verifier::parse(&format!("SCRAM-SHA-256$1:AA==${key}:{key}")).is_some());
        for bad in [
            String::new(),
            "md5d41d8cd98f00b204e9800998ecf8427e".to_owned(),
            format!("SCRAM-SHA-256$0:AA==${key}:{key}"),
            format!("SCRAM-SHA-256$-1:AA==${key}:{key}"),
            format!("SCRAM-SHA-256$99999999999:AA==${key}:{key}"),
            format!("SCRAM-SHA-256$4096:${key}:{key}"),
            format!("SCRAM-SHA-256$4096:*${key}:{key}"),
            format!("SCRAM-SHA-256$4096:AA==${key}"),
            format!("SCRAM-SHA-256$4096:AA==${key}:AA=="),
            format!("SCRAM-SHA-256$4096:AA==$:{key}"),
            format!("SCRAM-SHA-1$4096:AA==${key}:{key}"),
        ] {
            assert_eq!(Verifier::parse(&bad), None, "{bad}");
        }
    }
}
