//! TLS by option: for every listener, and in both directions between components, with files that may change while serving.
//!
//! ```text
//!  clients, Prometheus ── HTTPS ──► front, metrics listeners      --tls-cert --tls-key   (scheduler: --front-tls-…)
//!  components ◄── mutual TLS (gRPC) ──► components                 … and --tls-ca
//! ```
//!
//! [`TlsArgs`] are the options. [`Tls::load`] makes what a process needs of them: listeners that speak TLS or, without options,
//! do not ([`Listener`]), and a way to call other components ([`Dial`]). [`DevCa`] makes certificates to try it with.
//!
//! Deliberately absent: the data plane. KV blocks travel by one-sided writes that no TLS is in the way of; its network must be
//! trusted (SECURITY.md). Revocation: a certificate is good until it expires, so make them short-lived, as cert-manager does.
//!
//! # Invariants
//! - Who has no certificate of the CA gets no further than the handshake, and so does whoever we would have to trust blindly.
//! - Files that cannot be used end the start with their name and what is wrong with them; once serving, they change nothing.
//! - New connections use the newest certificates; those that are open go on.
//! - Handshakes are bounded in number and time, and none waits for another.

#![forbid(unsafe_code)]

mod args;
mod conn;
mod credentials;
mod dev_ca;
mod dial;
mod error;
mod files;
mod listener;
mod metrics;
mod plain_text;
mod tls;
mod words;

pub use args::{FrontTlsArgs, TlsArgs};
pub use conn::Conn;
pub use dev_ca::{DevCa, DevCaError, Issued, Validity};
pub use dial::Dial;
pub use error::TlsError;
pub use listener::Listener;
pub use tls::Tls;
