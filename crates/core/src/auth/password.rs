//! Passwords of local users: Argon2id (RFC 9106), in PHC form, with what OWASP advises of memory and time.

use std::sync::LazyLock;

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret as _, SecretString};

/// The shortest password, in characters.
pub const MIN_PASSWORD_CHARS: usize = 8;
/// The longest, in bytes: what is hashed has to be bounded.
pub const MAX_PASSWORD_BYTES: usize = 1_024;
/// Memory of one hash, in KiB.
const MEMORY: u32 = 19 * 1_024;
/// Passes over it.
const PASSES: u32 = 2;
const SALT_BYTES: usize = 16;

/// Why there is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short or too long.
    #[error(
        "a password has at least {MIN_PASSWORD_CHARS} characters and at most {MAX_PASSWORD_BYTES} bytes"
    )]
    Length,
    /// The system gives no randomness, or no memory.
    #[error("the password cannot be hashed now")]
    Failed,
}

/// A hash that no password has: what a guess at an unknown name is compared with, so that it takes as long as any other.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| {
    let mut secret = [0u8; 32];
    aws_lc_rs::rand::fill(&mut secret).ok()?;
    hashed(&secret).ok()
});

fn argon2() -> Option<Argon2<'static>> {
    let params = Params::new(MEMORY, PASSES, 1, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hashed(password: &[u8]) -> Result<String, PasswordError> {
    let mut salt = [0u8; SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| PasswordError::Failed)?;
    let salt = SaltString::encode_b64(&salt).map_err(|_| PasswordError::Failed)?;
    let argon2 = argon2().ok_or(PasswordError::Failed)?;
    let hash = argon2.hash_password(password, &salt);
    hash.map(|hash| hash.to_string())
        .map_err(|_| PasswordError::Failed)
}

/// Hashes a password with a fresh salt. Takes some ten milliseconds of a core and 19 MiB.
pub fn hash(password: &SecretString) -> Result<String, PasswordError> {
    let text = password.expose_secret();
    if text.chars().count() < MIN_PASSWORD_CHARS || text.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::Length);
    }
    hashed(text.as_bytes())
}

/// Whether a password is the one of a hash. Takes as long where there is none, as for a name that nobody has.
#[must_use]
pub fn verify(password: &SecretString, hash: Option<&str>) -> bool {
    let text = password.expose_secret();
    let Some(known) = hash.or(NOBODY.as_deref()) else {
        return false;
    };
    let is_it = PasswordHash::new(known).is_ok_and(|known| {
        let bytes = text.as_bytes();
        let bytes = &bytes[..bytes.len().min(MAX_PASSWORD_BYTES)];
        argon2().is_some_and(|argon2| argon2.verify_password(bytes, &known).is_ok())
    });
    is_it && hash.is_some() && text.len() <= MAX_PASSWORD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash_alone() {
        let password = SecretString::from("correct horse battery");
        let first = hash(&password).unwrap();
        let second = hash(&password).unwrap();
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_ne!(first, second);
        assert!(verify(&password, Some(&first)) && verify(&password, Some(&second)));
        assert!(!verify(&"correct horse battery ".into(), Some(&first)));
        assert!(!verify(&password, None));
        assert!(!verify(&password, Some("nonsense")));
    }

    #[test]
    fn what_is_too_short_or_too_long_is_no_password() {
        for text in ["", "1234567", &"x".repeat(MAX_PASSWORD_BYTES + 1)] {
            assert_eq!(hash(&text.into()), Err(PasswordError::Length));
        }
        let longest = SecretString::from("x".repeat(MAX_PASSWORD_BYTES));
        let longer = SecretString::from("x".repeat(MAX_PASSWORD_BYTES + 1));
        let known = hash(&longest).unwrap();
        assert!(verify(&longest, Some(&known)) && !verify(&longer, Some(&known)));
    }
}
