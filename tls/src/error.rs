//! What can be wrong with certificates and keys: which file, and what to do.

use std::{path::PathBuf, time::SystemTime};

/// TLS cannot be used as the options say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{option} {}: {reason}", path.display())]
    Read {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        reason: String,
    },
    /// It holds something else.
    #[error("{option} {}: {reason}", path.display())]
    Content {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key is of another certificate.
    #[error("the key {} does not belong to the certificate {}: give the two that were made together", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Too late.
    #[error("the certificate {} expired at {}: renew it", cert.display(), humantime::format_rfc3339_seconds(*.at))]
    Expired {
        /// The certificate's file.
        cert: PathBuf,
        /// When.
        at: SystemTime,
    },
    /// Too early.
    #[error("the certificate {} is good only from {} on: check this machine's clock", cert.display(), humantime::format_rfc3339_seconds(*.from))]
    NotYet {
        /// The certificate's file.
        cert: PathBuf,
        /// From when on.
        from: SystemTime,
    },
    /// No other component would take it.
    #[error("the certificate {} is not of a CA in {}: components would refuse it ({reason})", cert.display(), ca.display())]
    OtherCa {
        /// The certificate's file.
        cert: PathBuf,
        /// The CA's file.
        ca: PathBuf,
        /// The verifier's word.
        reason: String,
    },
    /// `--tls-server-name` is no name.
    #[error("--tls-server-name {name:?} is neither a host name nor an IP address")]
    ServerName {
        /// The value.
        name: String,
    },
    /// `--front-client-ca` alone.
    #[error(
        "--front-client-ca needs a certificate of the front, too: give --tls-cert and --tls-key, or --front-tls-cert and --front-tls-key"
    )]
    NoFrontCertificate,
    /// Something that rustls says.
    #[error("TLS cannot be set up: {0}")]
    SetUp(String),
}
