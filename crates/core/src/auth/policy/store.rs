//! The policies in force, and how they change while the server runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use notify::{RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Policies, PolicyError};

/// Editors write a file in several steps; one reload follows the last.
const QUIET: Duration = Duration::from_millis(200);
/// What is written without end is still read, so that open streams follow within a second.
const LONGEST_WAIT: Duration = Duration::from_millis(700);

struct Shared {
    folder: Option<PathBuf>,
    current: ArcSwap<Policies>,
    version: watch::Sender<u64>,
    /// One reload at a time: an older reading must not follow a newer one.
    reloading: Mutex<()>,
}

/// The policies in force. Cheap to clone.
#[derive(Clone)]
pub struct PolicyStore(Arc<Shared>);

impl std::fmt::Debug for PolicyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyStore")
            .field("folder", &self.0.folder)
            .finish_non_exhaustive()
    }
}

/// Keeps the folder watched for as long as it lives.
#[derive(Debug)]
pub struct Watching {
    _watcher: notify::RecommendedWatcher,
}

impl PolicyStore {
    /// The folder's policies, or the built-in ones.
    pub fn open(folder: Option<PathBuf>) -> Result<Self, PolicyError> {
        let policies = match &folder {
            Some(folder) => Policies::load(folder)?,
            None => Policies::builtin()?,
        };
        let shared = Shared {
            folder,
            current: ArcSwap::from_pointee(policies),
            version: watch::Sender::new(1),
            reloading: Mutex::default(),
        };
        Ok(Self(Arc::new(shared)))
    }

    /// The policies in force.
    #[must_use]
    pub fn current(&self) -> Arc<Policies> {
        self.0.current.load_full()
    }

    /// The version in force, for those who follow it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Reads the folder again. What does not validate leaves the running set in force.
    pub fn reload(&self) -> Result<(), PolicyError> {
        let Some(folder) = &self.0.folder else {
            return Ok(());
        };
        let _one = self.0.reloading.lock();
        let result = Policies::load(folder);
        let word = if result.is_ok() { "ok" } else { "refused" };
        metrics::counter!("tidings_policy_reloads_total", "result" => word).increment(1);
        match result {
            Ok(policies) => {
                tracing::info!(policies = policies.count(), "the policies were read again");
                self.0.current.store(Arc::new(policies));
                self.0.version.send_modify(|version| *version += 1);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the new policies cannot be used; the running ones stay");
                Err(error)
            }
        }
    }

    /// Reads the folder again whenever something in it changes. None where the policies are the built-in ones.
    pub fn watch(&self) -> Result<Option<Watching>, PolicyError> {
        let Some(folder) = self.0.folder.clone() else {
            return Ok(None);
        };
        let failed = |e: notify::Error| PolicyError::File {
            file: folder.clone(),
            why: e.to_string(),
        };
        let (changed, changes) = std::sync::mpsc::sync_channel::<()>(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let is_change =
                    event.is_ok_and(|e| !matches!(e.kind, notify::EventKind::Access(_)));
                if is_change {
                    // Full means that a reload is coming anyway.
                    let _ = changed.try_send(());
                }
            })
            .map_err(failed)?;
        watcher
            .watch(&folder, RecursiveMode::NonRecursive)
            .map_err(failed)?;
        let store = self.clone();
        let follow = move || {
            while changes.recv().is_ok() {
                let until = Instant::now() + LONGEST_WAIT;
                while Instant::now() < until && changes.recv_timeout(QUIET).is_ok() {}
                // What is wrong with it is in the log.
                let _ = store.reload();
            }
        };
        std::thread::Builder::new()
            .name("policies".into())
            .spawn(follow)
            .map_err(|e| PolicyError::File {
                file: folder.clone(),
                why: e.to_string(),
            })?;
        Ok(Some(Watching { _watcher: watcher }))
    }
}
