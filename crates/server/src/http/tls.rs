//! TLS by rustls, with certificates that are read again when their files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read as PEM.
    #[error("{}: {why}", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// Certificate and key do not go together, or are of a kind that rustls does not know.
    #[error("the certificate and its key: {0}")]
    Key(#[from] rustls::Error),
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// When a certificate and its key were written, and how long they are; none for a file that is not there.
type Look = [Option<(SystemTime, u64)>; 2];

/// What is known of the files.
struct Seen {
    /// The certificate in use was read from these.
    used: Look,
    /// These cannot be used, and that has been said.
    refused: Option<Look>,
}

/// The server's certificate chain and key.
pub(crate) struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
    seen: Mutex<Seen>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates")
            .field("cert", &self.cert)
            .finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files.
    pub(crate) fn open(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let used = look(cert, key);
        let current = Arc::new(Current(ArcSwap::from_pointee(load(cert, key)?)));
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self {
            cert: cert.into(),
            key: key.into(),
            current,
            acceptor,
            seen: Mutex::new(Seen {
                used,
                refused: None,
            }),
        })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files again if they have changed. What cannot be used leaves the running certificate in place, is said
    /// once, and is tried again: it may have been read while it was written.
    pub(crate) fn refresh(&self) {
        let now = look(&self.cert, &self.key);
        let mut seen = self.seen.lock();
        if seen.used == now {
            return;
        }
        match load(&self.cert, &self.key) {
            Ok(key) => {
                self.current.0.store(Arc::new(key));
                *seen = Seen {
                    used: now,
                    refused: None,
                };
                tracing::info!(file = %self.cert.display(), "the certificate was read again");
            }
            Err(error) => {
                if seen.refused.replace(now) != Some(now) {
                    tracing::error!(%error, "the new certificate cannot be used; the running one stays");
                }
            }
        }
    }
}

fn look(cert: &Path, key: &Path) -> Look {
    [cert, key].map(|file| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn load(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let failed = |file: &Path, e: pem::Error| TlsError::File {
        file: file.into(),
        why: e.to_string(),
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .map_err(|e| failed(cert, e))?
        .collect::<Result<_, _>>()
        .map_err(|e| failed(cert, e))?;
    if chain.is_empty() {
        return Err(failed(cert, pem::Error::NoItemsFound));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, e))?;
    let certified = CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(&secret)?);
    certified.keys_match()?;
    Ok(certified)
}
