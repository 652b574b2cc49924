//! The server's own key: seals what clients keep for us, so that nobody can read or change it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::db::{Conn, DbError};

/// Bytes of the key.
const KEY_BYTES: usize = 32;

/// Nothing could be sealed: the system gave no random bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("nothing could be sealed: the system gave no random bytes")]
pub struct SealError;

/// Seals and opens with AES-256-GCM.
pub struct Sealer(RandomizedNonceKey);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// The key that the database holds; made at its first use, so that all nodes and every restart share it.
    pub fn load(conn: &mut Conn) -> Result<Self, DbError> {
        let mut fresh = [0u8; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut fresh).map_err(|_| DbError::Fault(SealError.to_string()))?;
        let fresh = URL_SAFE_NO_PAD.encode(fresh);
        conn.execute(
            "INSERT INTO facts (name, value) VALUES ('seal_key', $1) ON CONFLICT (name) DO NOTHING",
            &[fresh.as_str().into()],
        )?;
        let key = conn.row(
            "SELECT value FROM facts WHERE name = 'seal_key'",
            &[],
            |row| Ok(row.text(0)?.to_owned()),
        )?;
        let unusable =
            || DbError::Fault("the server's own key in the database cannot be used".into());
        let key = URL_SAFE_NO_PAD
            .decode(key.ok_or_else(unusable)?)
            .map_err(|_| unusable())?;
        Self::new(&key).ok_or_else(unusable)
    }

    /// A sealer with a key of 32 bytes.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        RandomizedNonceKey::new(&AES_256_GCM, key).ok().map(Self)
    }

    /// Seals bytes to text. They open only with the same `about`.
    pub fn seal(&self, content: &[u8], about: &str) -> Result<String, SealError> {
        let mut sealed = content.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(about), &mut sealed)
            .map_err(|_| SealError)?;
        let mut out = nonce.as_ref().to_vec();
        out.append(&mut sealed);
        Ok(URL_SAFE_NO_PAD.encode(out))
    }

    /// Opens what [`Sealer::seal`] made, unchanged and about the same.
    #[must_use]
    pub fn open(&self, sealed: &str, about: &str) -> Option<Vec<u8>> {
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        if bytes.len() < NONCE_LEN {
            return None;
        }
        let mut content = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).ok()?;
        self.0
            .open_in_place(nonce, Aad::from(about), &mut content)
            .ok()
            .map(|opened| opened.to_vec())
    }
}
