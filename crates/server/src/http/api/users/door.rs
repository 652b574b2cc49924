//! Checks passwords: not more at once than the machine can bear, and not as often as a guesser would like.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tidings_core::auth::Guesses;
use tidings_core::auth::password::{self, PasswordError};
use tidings_core::clock::Timestamp;
use tokio::sync::Semaphore;

use crate::http::problem::Problem;

/// Hashes at once: each takes a core and 19 MiB.
const AT_ONCE: usize = 2;
/// Requests that may wait for one; one more is refused.
const WAITING: usize = 64;
/// Free attempts at one name from one address.
const FREE: u32 = 5;
/// Free attempts from one address, whatever the name.
const FREE_OF_ADDRESS: u32 = 50;
/// Free attempts at one name, wherever from.
const FREE_OF_NAME: u32 = 100;

/// The door. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    guesses: Arc<Guesses>,
    hashing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            guesses: Arc::default(),
            hashing: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
        }
    }
}

impl Door {
    /// Whether a password is that of a hash, which is none for a name that nobody has: that takes as long, and counts as
    /// much.
    pub(super) async fn try_password(
        &self,
        name: &str,
        address: &str,
        password: SecretString,
        hash: Option<String>,
        now: Timestamp,
    ) -> Result<bool, Problem> {
        let (of_name, of_address) = (format!("name {name}"), format!("address {address}"));
        let both = format!("{of_name} {of_address}");
        let keys = [
            (both.as_str(), FREE),
            (of_address.as_str(), FREE_OF_ADDRESS),
            (of_name.as_str(), FREE_OF_NAME),
        ];
        self.guesses
            .attempt(&keys, now)
            .map_err(Problem::too_many_attempts)?;
        let check = move || password::verify(&password, hash.as_deref());
        let is_right = self.at_most(check).await?;
        if is_right {
            self.guesses.succeeded(&keys);
        }
        Ok(is_right)
    }

    /// Hashes a new password.
    pub(super) async fn hash(
        &self,
        password: SecretString,
    ) -> Result<Result<String, PasswordError>, Problem> {
        self.at_most(move || password::hash(&password)).await
    }

    async fn at_most<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || Problem::unavailable("too many people sign in", Duration::from_secs(2));
        let _waiting = self.waiting.try_acquire().map_err(|_| busy())?;
        let permit = self.hashing.clone().acquire_owned().await;
        let permit = permit.map_err(|_| busy())?;
        // The permit goes with the thread: a caller that goes away leaves the hash to its end.
        let working = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        working
            .await
            .map_err(|e| Problem::internal(&format!("a password was not checked: {e}")))
    }
}

/// Whether two passwords of the same caller are one.
pub(super) fn is_same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}
