//! Asking a publisher for what it has kept.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use zeromq::{DealerSocket, Socket as _, SocketRecv as _, SocketSend as _, ZmqMessage};

/// Number of the message after the last batch: -1.
const END: u64 = u64::MAX;
/// For a connection, and for each message.
const PATIENCE: Duration = Duration::from_secs(10);

/// A replay under way.
pub(super) struct Replay {
    socket: DealerSocket,
}

/// It came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error("the publisher took longer than {} s", PATIENCE.as_secs())]
    Slow,
    #[error("a message that is none of a replay")]
    Strange,
    #[error(transparent)]
    Socket(#[from] zeromq::ZmqError),
}

impl Replay {
    /// Asks for all batches from `first` on.
    pub(super) async fn ask(url: &str, first: u64) -> Result<Self, ReplayError> {
        let mut socket = DealerSocket::new();
        timeout(PATIENCE, socket.connect(url)).await.map_err(|_| ReplayError::Slow)??;
        let mut request = ZmqMessage::from(Bytes::new());
        request.push_back(Bytes::copy_from_slice(&first.to_be_bytes()));
        socket.send(request).await?;
        Ok(Self { socket })
    }

    /// The next one, or `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Bytes)>, ReplayError> {
        let message = timeout(PATIENCE, self.socket.recv()).await.map_err(|_| ReplayError::Slow)??;
        let (number, payload) = numbered(&message).ok_or(ReplayError::Strange)?;
        Ok((number != END).then_some((number, payload)))
    }
}

/// `[anything, number, payload]`: with nothing before it in a replay, with the topic when published.
pub(super) fn numbered(message: &ZmqMessage) -> Option<(u64, Bytes)> {
    let (number, payload) = (message.get(1)?, message.get(2)?);
    let number = <[u8; 8]>::try_from(number.as_ref()).ok()?;
    (message.len() == 3).then(|| (u64::from_be_bytes(number), payload.clone()))
}
