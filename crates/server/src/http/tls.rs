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
use rustls_pki_types::pem::PemObject;
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

/// The server's certificate chain and key.
pub(crate) struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
    read: Mutex<[Option<SystemTime>; 2]>,
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
        let read = modified(cert, key);
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
            read: Mutex::new(read),
        })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files again if they have changed. What cannot be read leaves the running certificate in place.
    pub(crate) fn refresh(&self) {
        let now = modified(&self.cert, &self.key);
        if std::mem::replace(&mut *self.read.lock(), now) == now {
            return;
        }
        match load(&self.cert, &self.key) {
            Ok(key) => {
                self.current.0.store(Arc::new(key));
                tracing::info!(file = %self.cert.display(), "the certificate was read again");
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate cannot be used; the running one stays");
            }
        }
    }
}

fn modified(cert: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [cert, key].map(|file| fs::metadata(file).and_then(|m| m.modified()).ok())
}

fn load(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let failed = |file: &Path, e: rustls_pki_types::pem::Error| TlsError::File {
        file: file.into(),
        why: e.to_string(),
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .map_err(|e| failed(cert, e))?
        .collect::<Result<_, _>>()
        .map_err(|e| failed(cert, e))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, e))?;
    let certified = CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(&secret)?);
    certified.keys_match()?;
    Ok(certified)
}
