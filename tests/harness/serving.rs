//! A gRPC service that a test plays itself.

use std::{net::SocketAddr, thread};

use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};

use super::ANY;

/// Serves from a thread of its own until it is dropped.
pub(super) struct Serving {
    address: SocketAddr,
    // Dropping it ends the thread.
    _end: oneshot::Sender<()>,
}

impl Serving {
    /// On any free port.
    pub(super) fn start(services: Routes) -> Self {
        let listener = std::net::TcpListener::bind(ANY).expect("a free port");
        listener.set_nonblocking(true).expect("it can be polled");
        let address = listener.local_addr().expect("an address");
        let (_end, ended) = oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let incoming = TcpListenerStream::new(TcpListener::from_std(listener).expect("a listener"));
                tokio::select! {
                    served = Server::builder().add_routes(services).serve_with_incoming(incoming) => {
                        served.expect("it serves");
                    }
                    _ = ended => {}
                }
            });
        });
        Self { address, _end }
    }

    /// Where.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}
