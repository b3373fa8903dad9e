//! HTTPS.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// Why servers' certificates could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// Of a file that was named.
    #[error("no certificates could be read from {} (--tls-ca takes a PEM file with at least one)", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// There is none in it.
    #[error("{} holds no certificate that is a CA (--tls-ca takes a PEM file with at least one)", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// rustls refuses.
    #[error("TLS can't be set up")]
    Refused(#[from] rustls::Error),
}

/// Certificates are checked against those in the file, or else against the system's.
pub(super) fn config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    let config = match ca {
        None => builder.with_platform_verifier()?.with_no_client_auth(),
        Some(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsSetupError> {
    let unreadable = |source| TlsSetupError::Unreadable { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    if roots.is_empty() { Err(TlsSetupError::Empty { path: path.to_owned() }) } else { Ok(roots) }
}
