//! Why a sidecar cannot run.

use std::net::SocketAddr;

use baton_process::BindError;
use baton_tls::TlsError;
use baton_tokenizer::LoadError;

/// The sidecar could not start, or ended by a fault.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Certificates or keys can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A port could not be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Listening on every address says nothing about where others reach this one.
    #[error(
        "--listen {listen} is every address of this host: say which one others reach with --advertise HOST:PORT"
    )]
    NoAdvertisedAddress {
        /// The listening address.
        listen: SocketAddr,
    },
    /// The model folder's tokenizer can't be used.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// The gRPC server failed.
    #[error("the gRPC server failed")]
    Serve(#[from] tonic::transport::Error),
    /// The admin or HTTP server failed, or a listener has no address.
    #[error("the HTTP server failed")]
    Admin(#[from] std::io::Error),
}
