//! One request and its answer.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    connection::{Connection, Pool},
    response::{BadAnswer, Body, Head},
};
use crate::clock::Stamp;

/// Who takes an answer as it comes.
pub(crate) trait Sink {
    /// The first byte is about to be sent.
    fn sent(&mut self, at: Stamp);
    /// The head came.
    fn head(&mut self, head: &Head, at: Stamp);
    /// Bytes of the body, read at `at`. `false`: nothing more is wanted.
    fn body(&mut self, bytes: &[u8], at: Stamp) -> bool;
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the server closed the connection before its answer was over")]
    EndsEarly,
    #[error("{0}")]
    Bad(#[from] BadAnswer),
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The answer is over.
    Whole,
    /// The sink wanted no more, and the connection was closed.
    Unwanted,
}

const READ_BYTES: usize = 16 << 10;

/// Sends `request` (head and body) and gives the answer to `sink`.
///
/// # Cancel safety
/// Dropped, it closes the connection, which is how a server learns that a request is cancelled.
pub(crate) async fn exchange(
    pool: &Pool,
    request: &[u8],
    sink: &mut impl Sink,
) -> Result<End, ExchangeError> {
    if let Some(connection) = pool.take_idle() {
        match once(pool, connection, request, sink).await {
            // The server closed it while nobody looked; the request was not begun.
            Err(Failed { error: ExchangeError::Broken(_) | ExchangeError::EndsEarly, has_answer: false }) => {
            }
            other => return other.map_err(|failed| failed.error),
        }
    }
    sink.sent(Stamp::now());
    let connection = pool.connect().await.map_err(ExchangeError::Connect)?;
    once(pool, connection, request, sink).await.map_err(|failed| failed.error)
}

struct Failed {
    error: ExchangeError,
    /// Something of the answer came.
    has_answer: bool,
}

async fn once(
    pool: &Pool,
    mut connection: Connection,
    request: &[u8],
    sink: &mut impl Sink,
) -> Result<End, Failed> {
    let unanswered = |error: io::Error| Failed { error: error.into(), has_answer: false };
    sink.sent(Stamp::now());
    connection.write_all(request).await.map_err(unanswered)?;
    connection.flush().await.map_err(unanswered)?;
    let mut bytes = Vec::with_capacity(READ_BYTES);
    let head = read_head(&mut connection, &mut bytes, sink).await;
    let (mut head, mut at) = head.map_err(|error| Failed { error, has_answer: !bytes.is_empty() })?;
    let answered = |error: ExchangeError| Failed { error, has_answer: true };
    loop {
        let mut is_wanted = true;
        let mut give = |content: &[u8]| is_wanted = is_wanted && sink.body(content, at);
        let taken = head.body.read(&bytes, &mut give).map_err(|error| answered(error.into()))?;
        if !is_wanted {
            return Ok(End::Unwanted);
        }
        if head.body == Body::Over {
            if head.keeps_open && taken == bytes.len() {
                pool.put_back(connection);
            }
            return Ok(End::Whole);
        }
        bytes.clear();
        let read = connection.read_buf(&mut bytes).await.map_err(|error| answered(error.into()))?;
        at = Stamp::now();
        if read == 0 {
            return if head.body.may_end() {
                Ok(End::Whole)
            } else {
                Err(answered(ExchangeError::EndsEarly))
            };
        }
    }
}

/// Leaves in `bytes` what follows the head and was read at the same time.
async fn read_head(
    connection: &mut Connection,
    bytes: &mut Vec<u8>,
    sink: &mut impl Sink,
) -> Result<(Head, Stamp), ExchangeError> {
    loop {
        if connection.read_buf(bytes).await? == 0 {
            return Err(ExchangeError::EndsEarly);
        }
        let at = Stamp::now();
        if let Some((head, length)) = Head::parse(bytes)? {
            sink.head(&head, at);
            bytes.drain(..length);
            return Ok((head, at));
        }
    }
}
