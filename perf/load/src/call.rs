//! One request from its turn to its record.

use std::{future::Future, sync::Arc, time::Duration};

use baton_workload::Cancel;
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{Answer, StopAfter},
    clock::Stamp,
    http::{End, Pool, exchange},
    schedule::Due,
};

/// A request to be sent now.
pub(crate) struct Call {
    pub(crate) due: Due,
    /// Head and body.
    pub(crate) request: Vec<u8>,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) keeps_text: bool,
    pub(crate) keeps_output: bool,
    pub(crate) timeout: Duration,
}

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) due: Due,
    pub(crate) how: How,
    pub(crate) answer: Answer,
    pub(crate) at: Stamp,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Complete,
    Failed(String),
    /// As planned.
    Cancelled,
    /// The run ended before.
    Unfinished,
}

/// Sends it, and reads the answer to its end, its time-out, its cancellation, or until `stop`.
pub(crate) async fn perform(call: Call, pool: Arc<Pool>, stop: CancellationToken) -> Ended {
    let Call { due, request, cancel, keeps_text, keeps_output, timeout } = call;
    let stop_after = StopAfter {
        tokens: match cancel {
            Some(Cancel::AfterTokens(tokens)) => Some(tokens),
            _ => None,
        },
    };
    let mut answer = Answer::new(keeps_text, keeps_output, stop_after);
    let cancelled = async {
        match cancel {
            Some(Cancel::AfterTime(after)) => tokio::time::sleep(after).await,
            _ => std::future::pending().await,
        }
    };
    let read = exchange(&pool, &request, &mut answer);
    let limits = first_of(stop.cancelled(), cancelled, tokio::time::sleep(timeout));
    let (end, limit) = tokio::select! {
        biased;
        end = read => (Some(end), None),
        limit = limits => (None, Some(limit)),
    };
    let how = match (end, limit) {
        (Some(Ok(End::Unwanted)), _) if answer.is_stopped => How::Cancelled,
        (Some(Ok(_)), _) => answer.finish().map_or_else(How::Failed, |()| How::Complete),
        // Some servers do not end the body as HTTP says, once they said that there is no more.
        (Some(Err(_)), _) if answer.is_done && answer.error.is_none() => How::Complete,
        (Some(Err(error)), _) => How::Failed(error.to_string()),
        (None, Some(Limit::Stop)) => How::Unfinished,
        (None, Some(Limit::Cancel)) => How::Cancelled,
        (None, _) => How::Failed(format!("no whole answer within {timeout:?} (--request-timeout)")),
    };
    // An answer that was read ended when its last byte was; what was given up, now.
    let at = match &how {
        How::Complete => answer.last_read.unwrap_or_else(Stamp::now),
        _ => Stamp::now(),
    };
    Ended { due, how, answer, at }
}

enum Limit {
    Stop,
    Cancel,
    Timeout,
}

async fn first_of(
    stop: impl Future<Output = ()>,
    cancel: impl Future<Output = ()>,
    timeout: impl Future<Output = ()>,
) -> Limit {
    tokio::select! {
        biased;
        () = stop => Limit::Stop,
        () = cancel => Limit::Cancel,
        () = timeout => Limit::Timeout,
    }
}
