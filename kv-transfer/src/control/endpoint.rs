//! Sockets of the control plane: abstract Unix or TCP.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, sockopt,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::ids::NodeId;

/// Descriptors that one offer may carry.
const MAX_DESCRIPTORS: usize = 8;

/// Where peers dial in.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix(UnixListener, String),
    Tcp(TcpListener),
    #[cfg(test)]
    Sim(usize, tokio::sync::Mutex<tokio::sync::mpsc::Receiver<crate::sim::End>>),
}

/// A control connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    #[cfg(test)]
    Sim(crate::sim::End),
}

impl Listener {
    /// An abstract socket named after the node: it vanishes with the process.
    pub(crate) fn unix(node: NodeId) -> io::Result<Self> {
        let name = format!("baton-kv-{node}");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
        let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(UnixListener::from_std(listener)?, name))
    }

    pub(crate) async fn tcp(ip: IpAddr) -> io::Result<Self> {
        Ok(Self::Tcp(TcpListener::bind((ip, 0)).await?))
    }

    /// Listens as a node of the simulated network.
    #[cfg(test)]
    pub(crate) fn sim(node: usize) -> Self {
        Self::Sim(node, tokio::sync::Mutex::new(crate::sim::listen(node)))
    }

    /// What goes into tickets: `unix:@NAME` or `tcp:IP:PORT`.
    pub(crate) fn endpoint(&self) -> io::Result<String> {
        match self {
            Self::Unix(_, name) => Ok(format!("unix:@{name}")),
            Self::Tcp(listener) => Ok(format!("tcp:{}", listener.local_addr()?)),
            #[cfg(test)]
            Self::Sim(node, _) => Ok(format!("sim:{node}")),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener, _) => Stream::unix(listener.accept().await?.0),
            Self::Tcp(listener) => Stream::tcp(listener.accept().await?.0),
            #[cfg(test)]
            Self::Sim(_, dialled) => {
                let stream = dialled.lock().await.recv().await;
                stream.map(Stream::Sim).ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

impl Stream {
    /// As [`dial`](Self::dial); a simulation must know who dials.
    #[cfg(test)]
    pub(crate) async fn dial_from(ours: &str, endpoint: &str) -> io::Result<Self> {
        match endpoint.strip_prefix("sim:") {
            Some(to) => crate::sim::connect(ours, to).await.map(Self::Sim),
            None => Self::dial(endpoint).await,
        }
    }

    pub(crate) async fn dial(endpoint: &str) -> io::Result<Self> {
        let unknown = || io::Error::new(io::ErrorKind::InvalidInput, "neither unix:@NAME nor tcp:IP:PORT");
        if let Some(name) = endpoint.strip_prefix("unix:@") {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            // A connect to a Unix socket either succeeds at once or fails; only a full backlog could hold it, so it is
            // non-blocking from the start.
            let socket = rustix::net::socket_with(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
                None,
            )?;
            let name = address.as_abstract_name().ok_or_else(unknown)?;
            rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new_abstract_name(name)?)?;
            return Self::unix(UnixStream::from_std(socket.into())?);
        }
        let address: SocketAddr =
            endpoint.strip_prefix("tcp:").and_then(|text| text.parse().ok()).ok_or_else(unknown)?;
        Self::tcp(TcpStream::connect(address).await?)
    }

    /// Abstract sockets have no permissions, so the peer's user is checked: it must be ours, or root.
    fn unix(stream: UnixStream) -> io::Result<Self> {
        let (theirs, ours) = (stream.peer_cred()?.uid(), rustix_uid());
        if theirs == ours || theirs == 0 {
            return Ok(Self::Unix(stream));
        }
        let reason = format!("the peer runs as user {theirs}, this process as {ours}");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
    }

    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// A host that vanishes sends no reset: ask after a quarter of that silence, give up at its end; and no later where something
    /// was sent and is not acknowledged, which is not asked about.
    pub(crate) fn watch_for_silence(&self, silence: Duration) {
        let Self::Tcp(stream) = self else { return };
        let quarter = (silence / 4).max(Duration::from_secs(1));
        let set = || -> io::Result<()> {
            sockopt::set_socket_keepalive(stream, true)?;
            sockopt::set_tcp_keepidle(stream, quarter)?;
            sockopt::set_tcp_keepintvl(stream, quarter)?;
            sockopt::set_tcp_keepcnt(stream, 3)?;
            sockopt::set_tcp_user_timeout(stream, silence.as_millis() as u32)?;
            Ok(())
        };
        if let Err(error) = set() {
            tracing::warn!(%error, "a peer whose host vanishes will not be noticed soon");
        }
    }

    /// Sends descriptors with one byte of their own, so that no frame is read together with them.
    pub(crate) async fn send_descriptors(&self, descriptors: &[OwnedFd]) -> io::Result<()> {
        let Self::Unix(stream) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
            }
            let byte = [io::IoSlice::new(b"F")];
            Ok(rustix::net::sendmsg(stream, &byte, &mut control, SendFlags::NOSIGNAL)?)
        };
        stream.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    pub(crate) async fn receive_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let Self::Unix(stream) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let mut into = [io::IoSliceMut::new(&mut byte)];
            let message = rustix::net::recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            if message.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut descriptors = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    descriptors.extend(received);
                }
            }
            Ok(descriptors)
        };
        stream.async_io(Interest::READABLE, receive).await
    }
}

fn rustix_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            #[cfg(test)]
            Self::Sim(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, from),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, from),
            #[cfg(test)]
            Self::Sim(stream) => Pin::new(stream).poll_write(cx, from),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Self::Sim(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Self::Sim(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
