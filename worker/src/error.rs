//! Why a worker cannot run.

use std::net::SocketAddr;

use baton_process::BindError;
use baton_tls::TlsError;

use crate::{ByteSize, DraftRefused, Rejected};

/// The worker could not start, or ended by a fault.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Certificates or keys can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The model folder was refused.
    #[error("cannot load the model from {folder}")]
    Load {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: baton_engine::LoadError,
    },
    /// Loading did not come to an end.
    #[error("loading the model panicked")]
    LoadPanicked,
    /// An adapter that it was to start with was refused.
    #[error("cannot load lora adapter {name:?} of --lora-modules: {reason}")]
    Adapter {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The draft model does not go with the model.
    #[error("cannot use the draft model from {folder}")]
    DraftModel {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: DraftRefused,
    },
    /// The context asked for is longer than the model's.
    #[error("--max-context {asked}: the model was made for a context of {model} tokens")]
    ContextTooLong {
        /// Asked for.
        asked: usize,
        /// The model's.
        model: usize,
    },
    /// The KV cache holds less than one block.
    #[error("--kv-memory {asked}: one KV block of this model takes {}", ByteSize(*.block_bytes))]
    NoKvBlock {
        /// Asked for.
        asked: ByteSize,
        /// Bytes of a block.
        block_bytes: u64,
    },
    /// The fabric could not be started.
    #[error("cannot start fabric {fabric}")]
    Transfer {
        /// The fabric asked for.
        fabric: String,
        /// Why.
        #[source]
        source: baton_kv_transfer::StartError,
    },
    /// Model and pool do not fit, which is a bug.
    #[error("the model does not fit the KV pool made for it")]
    Pool(#[from] baton_engine::BindError),
    /// The engine cannot serve.
    #[error("the engine failed while warming up: {reason}")]
    WarmUp {
        /// Its word.
        reason: String,
    },
    /// The engine ended by itself.
    #[error("the engine failed: {reason}")]
    Engine {
        /// Its word.
        reason: String,
    },
    /// The fabric failed for good, so no KV block can come or go.
    #[error("kv-transfer failed")]
    TransferFailed(#[from] baton_kv_transfer::DataPlaneFailed),
    /// KV events have nowhere to go.
    #[error(transparent)]
    Events(#[from] baton_kv_events::StartError),
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
    /// An address that is no address.
    #[error("--registry {value}: {reason}")]
    BadRegistry {
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The gRPC server failed.
    #[error("the gRPC server failed")]
    Serve(#[from] tonic::transport::Error),
    /// The admin server failed, or a listener has no address.
    #[error("the admin server failed")]
    Admin(#[from] std::io::Error),
    /// The scheduler will not have this worker.
    #[error(transparent)]
    Rejected(#[from] Rejected),
}
