//! Small requests beside the load: what a server is, and what it knows of requests that are over.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Stamp,
    http::{End, ExchangeError, Head, Pool, Sink, exchange},
};

/// An answer in one piece.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// There was none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

const MOST_BODY_BYTES: usize = 64 << 20;

impl Sink for Fetched {
    fn sent(&mut self, _: Stamp) {}

    fn head(&mut self, head: &Head, _: Stamp) {
        self.status = head.status;
    }

    fn body(&mut self, bytes: &[u8], _: Stamp) -> bool {
        self.body.extend_from_slice(bytes);
        self.body.len() < MOST_BODY_BYTES
    }
}

/// Sends `request`, and reads the whole answer.
pub(crate) async fn fetch(
    pool: &Arc<Pool>,
    request: &[u8],
    timeout: Duration,
) -> Result<Fetched, FetchError> {
    let mut fetched = Fetched::default();
    match tokio::time::timeout(timeout, exchange(pool, request, &mut fetched)).await {
        Ok(Ok(End::Whole | End::Unwanted)) => Ok(fetched),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(FetchError::Timeout(timeout)),
    }
}
