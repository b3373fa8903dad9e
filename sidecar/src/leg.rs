//! One leg of a request: a server-streaming call, from before it is connected to its last event.

use std::error::Error;

use futures::future::BoxFuture;
use tonic::{Response, Status, Streaming};

/// A call and its events. Dropping it cancels the call.
pub(crate) enum Leg<T> {
    /// No call.
    Idle,
    Opening(BoxFuture<'static, Result<Response<Streaming<T>>, Status>>),
    Open(Box<Streaming<T>>),
}

/// The call ended or broke.
#[derive(Debug)]
pub(crate) struct Lost {
    /// It never began.
    pub(crate) unreachable: bool,
    pub(crate) reason: String,
}

impl<T> Leg<T> {
    /// Starts when first polled by [`Self::next`].
    pub(crate) fn opening(
        call: impl Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
    ) -> Self {
        Self::Opening(Box::pin(call))
    }

    /// The next event; never, when there is no call. After [`Lost`] the leg is idle.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<T, Lost> {
        loop {
            let lost = match self {
                Self::Idle => std::future::pending().await,
                Self::Opening(call) => match call.await {
                    Ok(response) => {
                        *self = Self::Open(Box::new(response.into_inner()));
                        continue;
                    }
                    // A status with a cause was made here: no connection. One without was sent by the worker.
                    Err(status) => Lost { unreachable: status.source().is_some(), reason: describe(&status) },
                },
                Self::Open(events) => match events.message().await {
                    Ok(Some(event)) => return Ok(event),
                    Ok(None) => Lost { unreachable: false, reason: "its stream ended early".to_owned() },
                    Err(status) => Lost { unreachable: false, reason: describe(&status) },
                },
            };
            *self = Self::Idle;
            return Err(lost);
        }
    }
}

/// What a person needs of a status: the innermost cause says more than the code.
pub(crate) fn describe(status: &Status) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    let mut innermost = None;
    while let Some(error) = cause {
        innermost = Some(error.to_string());
        cause = error.source();
    }
    match innermost {
        Some(innermost) if innermost != status.message() => format!("{} ({innermost})", status.message()),
        _ if status.message().is_empty() => status.code().to_string(),
        _ => status.message().to_owned(),
    }
}
