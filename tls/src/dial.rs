//! Calling other components.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint, Error},
};

use crate::{
    Conn,
    credentials::{Configs, Credentials},
    words::explain,
};

/// How other components are called: over mutual TLS, or in plain text. Cheap to clone.
#[derive(Clone, Default)]
pub struct Dial {
    credentials: Option<Arc<Credentials>>,
}

/// Makes connections for tonic.
#[derive(Clone)]
struct Connector(Arc<Credentials>);

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_tls() { "Dial(TLS)" } else { "Dial(plain text)" })
    }
}

impl Dial {
    /// In plain text.
    pub fn plain() -> Self {
        Self::default()
    }

    pub(crate) fn tls(credentials: Arc<Credentials>) -> Self {
        Self { credentials: Some(credentials) }
    }

    /// Whether calls are encrypted.
    pub fn is_tls(&self) -> bool {
        self.credentials.is_some()
    }

    /// Connects now. The endpoint's scheme stays `http`: what it is over is decided here.
    ///
    /// # Errors
    /// Nobody is there, or they are not to be trusted; the innermost cause says why.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        match &self.credentials {
            None => endpoint.connect().await,
            Some(credentials) => endpoint.connect_with_connector(Connector(credentials.clone())).await,
        }
    }

    /// Connects at the first call. Must be called on a tokio runtime.
    pub fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        match &self.credentials {
            None => endpoint.connect_lazy(),
            Some(credentials) => endpoint.connect_with_connector_lazy(Connector(credentials.clone())),
        }
    }

    /// A connection for HTTP/1.1 to `host` and `port`.
    ///
    /// # Errors
    /// As with [`Dial::connect`].
    pub async fn http(&self, host: &str, port: u16) -> io::Result<Conn> {
        let stream = TcpStream::connect((host, port)).await?;
        let Some(credentials) = &self.credentials else { return Ok(Conn::plain(stream)) };
        let configs = credentials.current();
        let config = configs.http_client.clone();
        shake_hands(stream, host, &configs, config).await
    }
}

async fn shake_hands(
    stream: TcpStream,
    host: &str,
    configs: &Configs,
    config: Option<Arc<ClientConfig>>,
) -> io::Result<Conn> {
    stream.set_nodelay(true)?;
    let config = config.ok_or_else(|| io::Error::other("no CA to know the other side by: give --tls-ca"))?;
    let name = match &configs.server_name {
        Some(name) => name.clone(),
        None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
    };
    TlsConnector::from(config).connect(name, stream).await.map(Conn::client).map_err(explain)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Conn>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Conn>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let configs = self.0.current();
        Box::pin(async move {
            // An IPv6 address stands in brackets there.
            let host = to.host().unwrap_or_default().trim_matches(['[', ']']);
            let stream = TcpStream::connect((host, to.port_u16().unwrap_or(443))).await?;
            let config = configs.client.clone();
            Ok(TokioIo::new(shake_hands(stream, host, &configs, config).await?))
        })
    }
}
