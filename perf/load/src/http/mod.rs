//! An HTTP/1.1 client that stamps what it reads the moment that it is read.
//!
//! It reads the socket itself: between the kernel and the stamp there is no other task, no channel and no buffer that would have to be
//! emptied first.

mod connection;
mod exchange;
mod response;
mod target;
mod tls;

pub(crate) use connection::{Pool, Server};
pub(crate) use exchange::{End, ExchangeError, Sink, exchange};
pub(crate) use response::Head;
pub use target::{BadTarget, Target};
pub use tls::TlsSetupError;
