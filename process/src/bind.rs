//! Taking a port, with an error that says what to do when it is taken.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

/// A listening address could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error(
        "{option} {address}: the port is in use by another process; stop it, or choose another port with {option}"
    )]
    InUse {
        /// Command-line option that sets the address.
        option: &'static str,
        /// The address asked for.
        address: SocketAddr,
    },
    /// Any other reason.
    #[error("{option} {address}: cannot listen there")]
    Other {
        /// Command-line option that sets the address.
        option: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

/// Listens on `address` (port 0: any free port). `option` is the command-line option to name in an error.
///
/// # Errors
/// [`BindError`].
pub async fn bind(address: SocketAddr, option: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { option, address },
        _ => BindError::Other { option, address, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_option_that_changes_it() {
        let holder = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "--port").await.unwrap();
        let error = bind(holder.local_addr().unwrap(), "--port").await.unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("--port"), "{error}");
    }
}
