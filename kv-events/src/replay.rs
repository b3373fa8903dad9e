//! The side that subscribers ask for what they missed.

use std::{
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::timeout;
use zeromq::{RouterSocket, SocketRecv as _, SocketSend as _, ZmqError, ZmqMessage};

use crate::{history::History, sender::EventStats};

/// Number of the message after the last batch: -1.
const END: [u8; 8] = [0xff; 8];
/// Time for one subscriber to take its replay; others wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers until dropped.
pub(crate) async fn serve(mut socket: RouterSocket, history: &Mutex<History>, stats: &EventStats) {
    loop {
        let request = match socket.recv().await {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(%error, "no more replays of KV events");
                return;
            }
        };
        let Some((who, first)) = parse(&request) else {
            tracing::debug!(frames = request.len(), "a request for a replay of KV events that is none");
            continue;
        };
        stats.counts.replays.fetch_add(1, Ordering::Relaxed);
        let batches = history.lock().unwrap_or_else(PoisonError::into_inner).from(first);
        let count = batches.len();
        match timeout(PATIENCE, answer(&mut socket, &who, batches)).await {
            Ok(Ok(())) => tracing::debug!(first, count, "KV events replayed"),
            Ok(Err(error)) => tracing::debug!(first, count, %error, "a replay of KV events failed"),
            Err(_) => tracing::debug!(first, count, "a replay of KV events took too long"),
        }
    }
}

/// Who asks, and for which number: `[identity, nothing, number]`.
fn parse(request: &ZmqMessage) -> Option<(Bytes, u64)> {
    let (who, empty, first) = (request.get(0)?, request.get(1)?, request.get(2)?);
    let first = <[u8; 8]>::try_from(first.as_ref()).ok()?;
    (request.len() == 3 && empty.is_empty()).then(|| (who.clone(), u64::from_be_bytes(first)))
}

async fn answer(socket: &mut RouterSocket, who: &Bytes, batches: Vec<(u64, Bytes)>) -> Result<(), ZmqError> {
    let batches = batches.into_iter().map(|(number, payload)| (number.to_be_bytes(), payload));
    for (number, payload) in batches.chain([(END, Bytes::new())]) {
        let mut message = ZmqMessage::from(who.clone());
        message.push_back(Bytes::new());
        message.push_back(Bytes::copy_from_slice(&number));
        message.push_back(payload);
        socket.send(message).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(frames: &[&'static [u8]]) -> ZmqMessage {
        let mut frames = frames.iter().map(|frame| Bytes::from_static(frame));
        let mut message = ZmqMessage::from(frames.next().unwrap());
        frames.for_each(|frame| message.push_back(frame));
        message
    }

    #[test]
    fn what_is_no_request_is_not_answered() {
        assert_eq!(parse(&message(&[b"me", b"", &[0, 0, 0, 0, 0, 0, 1, 2]])).unwrap().1, 0x102);
        for frames in [&[b"me".as_slice()][..], &[b"me", b""], &[b"me", b"", b"7"], &[b"me", b"x", &[0; 8]]] {
            assert_eq!(parse(&message(frames)), None, "{frames:?}");
        }
    }
}
