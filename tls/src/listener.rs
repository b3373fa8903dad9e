//! Listening, with TLS or without, for axum and for tonic.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;

use crate::{
    Conn,
    credentials::{Configs, Credentials},
    metrics::TlsMetrics,
    plain_text::{Opening, close_with, grpc_answer, http_answer, opening},
    words::explain,
};

/// Handshakes under way; more connections wait in the kernel.
const MOST_HANDSHAKES: usize = 1024;
/// Longest that one may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same refusal is logged once in this time.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// After a failure of the system to accept, such as no free descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What is spoken behind TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http,
    Grpc,
    /// gRPC, with callers that have no certificate.
    GatewayGrpc,
}

/// A listener that does handshakes beside each other, so that a slow client holds up nobody.
///
/// It is an axum `Listener`; for tonic there is [`Listener::into_stream`].
pub struct Listener {
    tcp: TcpListener,
    server: Option<Arc<Server>>,
    handshakes: JoinSet<Option<(Conn, SocketAddr)>>,
}

/// How connections become TLS.
struct Server {
    credentials: Arc<Credentials>,
    spoken: Spoken,
    metrics: TlsMetrics,
    last_said: Mutex<Option<(String, Instant)>>,
}

impl Listener {
    /// Without TLS.
    pub fn plain(tcp: TcpListener) -> Self {
        Self { tcp, server: None, handshakes: JoinSet::new() }
    }

    pub(crate) fn tls(
        tcp: TcpListener,
        credentials: Arc<Credentials>,
        spoken: Spoken,
        metrics: TlsMetrics,
    ) -> Self {
        let server = Server { credentials, spoken, metrics, last_said: Mutex::default() };
        Self { tcp, server: Some(Arc::new(server)), handshakes: JoinSet::new() }
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.server.is_some()
    }

    /// The next connection whose handshake is done.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn accept(&mut self) -> (Conn, SocketAddr) {
        loop {
            tokio::select! {
                accepted = self.tcp.accept(), if self.handshakes.len() < MOST_HANDSHAKES => match accepted {
                    Ok((stream, peer)) => {
                        // A token is a small write that must not wait for the one before it to be acknowledged.
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%error, "TCP_NODELAY not set");
                        }
                        match &self.server {
                            None => return (Conn::plain(stream), peer),
                            Some(server) => {
                                self.handshakes.spawn(server.clone().shake_hands(stream, peer));
                            }
                        }
                    }
                    Err(error) => wait_after(error).await,
                },
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
            }
        }
    }

    /// Connections for a tonic server.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Conn>> {
        Incoming { next: Some(Box::pin(next_of(self))) }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Conn;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Conn, SocketAddr) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

impl Server {
    async fn shake_hands(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) -> Option<(Conn, SocketAddr)> {
        let reason = match timeout(PATIENCE, self.try_handshake(stream)).await {
            Ok(Ok(connection)) => return connection.map(|connection| (connection, peer)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no handshake within {} s", PATIENCE.as_secs()),
        };
        self.metrics.count_refusal(self.spoken);
        self.say(peer, reason);
        None
    }

    /// `None`: closed without a word.
    async fn try_handshake(&self, stream: TcpStream) -> io::Result<Option<Conn>> {
        match opening(&stream).await? {
            Opening::Nothing => return Ok(None),
            Opening::PlainText => {
                close_with(stream, &self.plain_answer()).await;
                return Err(io::Error::other("it speaks plain text, not TLS"));
            }
            Opening::Tls => {}
        }
        let acceptor = TlsAcceptor::from(self.config(&self.credentials.current()));
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Ok(Some(Conn::server(stream))),
            Err((error, stream)) => {
                // The reason is on its way to the other side.
                close_with(stream, &[]).await;
                Err(explain(error))
            }
        }
    }

    fn plain_answer(&self) -> Vec<u8> {
        match self.spoken {
            Spoken::Http => http_answer(),
            Spoken::Grpc | Spoken::GatewayGrpc => grpc_answer(),
        }
    }

    fn config(&self, configs: &Configs) -> Arc<ServerConfig> {
        match (self.spoken, &configs.grpc) {
            (Spoken::Grpc, Some(grpc)) => grpc.clone(),
            (Spoken::GatewayGrpc, _) => configs.gateway_grpc.clone(),
            _ => configs.http.clone(),
        }
    }

    /// Who is refused tries again; the log is not filled by it.
    fn say(&self, peer: SocketAddr, reason: String) {
        let mut last = self.last_said.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(said, at)| *said == reason && at.elapsed() < SAY_AGAIN) {
            return;
        }
        tracing::warn!(%peer, reason, "connection refused");
        *last = Some((reason, Instant::now()));
    }
}

async fn wait_after(error: io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    // Of a client that has left already.
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "no connection can be accepted");
        sleep(ACCEPT_AGAIN).await;
    }
}

type Next = std::pin::Pin<Box<dyn Future<Output = (Conn, Listener)> + Send>>;

async fn next_of(mut listener: Listener) -> (Conn, Listener) {
    let (connection, _) = listener.accept().await;
    (connection, listener)
}

/// [`Listener::accept`] as a stream.
struct Incoming {
    next: Option<Next>,
}

impl Stream for Incoming {
    type Item = io::Result<Conn>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let Some(next) = &mut self.next else { return std::task::Poll::Ready(None) };
        next.as_mut().poll(cx).map(|(connection, listener)| {
            self.next = Some(Box::pin(next_of(listener)));
            Some(Ok(connection))
        })
    }
}
