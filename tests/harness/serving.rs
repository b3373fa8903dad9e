//! Servers that a test plays itself, each on a thread of its own until it is dropped.

use std::{
    future::Future,
    net::{SocketAddr, TcpListener as StdListener},
    thread,
};

use axum::Router;
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};

use super::ANY;

/// Serves until it is dropped.
pub(super) struct Serving {
    address: SocketAddr,
    // Dropping it ends the thread.
    _end: oneshot::Sender<()>,
}

impl Serving {
    /// gRPC, on any free port.
    pub(super) fn start(services: Routes) -> Self {
        Self::http2(StdListener::bind(ANY).expect("a free port"), services)
    }

    /// HTTP/2 alone.
    pub(super) fn http2(listener: StdListener, services: Routes) -> Self {
        Self::with(listener, async move |listener| {
            let incoming = TcpListenerStream::new(listener);
            Server::builder().add_routes(services).serve_with_incoming(incoming).await.expect("it serves");
        })
    }

    /// HTTP/1.1.
    pub(super) fn http1(listener: StdListener, app: Router) -> Self {
        Self::with(listener, async move |listener| axum::serve(listener, app).await.expect("it serves"))
    }

    fn with<F: Future<Output = ()>>(
        listener: StdListener,
        serve: impl FnOnce(TcpListener) -> F + Send + 'static,
    ) -> Self {
        listener.set_nonblocking(true).expect("it can be polled");
        let address = listener.local_addr().expect("an address");
        let (_end, ended) = oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = serve(listener) => {}
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
