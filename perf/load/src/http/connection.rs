//! Connections, and those that wait to be used again.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Target, TlsSetupError, tls};

/// An open connection.
#[derive(Debug)]
pub(crate) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A server, and how it is connected to.
#[derive(Debug)]
pub(crate) struct Server {
    target: Target,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Connections to one server that may be used again. They belong to the runtime in which they were made, and so does the pool.
#[derive(Debug)]
pub(crate) struct Pool {
    server: Arc<Server>,
    idle: Mutex<Vec<Connection>>,
}

/// Connections that are kept while nobody needs them; more are closed.
const MOST_IDLE: usize = 16 << 10;

impl Server {
    /// `ca`: certificates that the server's is checked against, instead of the system's.
    pub(crate) fn new(target: Target, ca: Option<&Path>) -> Result<Self, TlsSetupError> {
        let tls = match target.is_tls() {
            false => None,
            true => {
                let name = ServerName::try_from(target.host().to_owned());
                let name = name.map_err(|error| rustls::Error::General(error.to_string()))?;
                Some((tls::config(ca)?, name))
            }
        };
        Ok(Self { target, tls })
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    async fn connect(&self) -> io::Result<Connection> {
        let tcp = TcpStream::connect((self.target.host(), self.target.port())).await?;
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Connection::Plain(tcp)),
            Some((config, name)) => {
                let connector = TlsConnector::from(config.clone());
                Ok(Connection::Tls(Box::new(connector.connect(name.clone(), tcp).await?)))
            }
        }
    }
}

impl Pool {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server, idle: Mutex::new(Vec::new()) }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.server.target
    }

    /// Opens so many ahead of their use. A server that refuses them will refuse the requests, too, and is told of there.
    pub(crate) async fn open_ahead(&self, number: usize) {
        for _ in 0..number.min(MOST_IDLE) {
            match self.connect().await {
                Ok(connection) => self.put_back(connection),
                Err(_) => return,
            }
        }
    }

    /// One that was used before.
    pub(crate) fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// For somebody else, who may find that the server has closed it.
    pub(crate) fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(connection);
        }
    }

    /// A new one.
    pub(crate) async fn connect(&self) -> io::Result<Connection> {
        self.server.connect().await
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
