//! One call to a sidecar, watched: it ends when it ends, when the worker is lost, or when its time is up.

use std::{pin::Pin, sync::Arc};

use baton_front::{Deadline, EventKind, GenerationEvent};
use baton_proto::v1::GenerateEvent;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, Streaming};

use crate::{
    error::{CallBroken, DeadlinePassed, GenerateError, WorkerFailed, WorkerLost},
    fleet::{DecodeShare, Member},
    router::Route,
};

/// A running generation. Dropping it cancels the call.
pub(crate) struct Generation {
    stream: Streaming<GenerateEvent>,
    decode: Arc<Member>,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
    expired: Pin<Box<Sleep>>,
    deadline: Deadline,
    fallback: String,
    route: Route,
    _share: DecodeShare,
}

impl Generation {
    pub(super) fn new(
        stream: Streaming<GenerateEvent>,
        decode: Arc<Member>,
        share: DecodeShare,
        route: Route,
        deadline: Deadline,
        fallback: String,
    ) -> Self {
        Self {
            stream,
            lost: Box::pin(decode.lost.clone().cancelled_owned()),
            expired: Box::pin(tokio::time::sleep_until(deadline.at.into())),
            decode,
            deadline,
            fallback,
            route,
            _share: share,
        }
    }

    /// The decode worker's id.
    pub(crate) fn decode_worker(&self) -> &str {
        self.decode.id()
    }

    /// Empty, or why it is not served as first intended.
    pub(crate) fn fallback(&self) -> &str {
        &self.fallback
    }

    /// The next event. After `Finished` or an error there is none: don't ask.
    ///
    /// # Cancel safety
    /// Cancel safe: an event is either returned or still to come.
    pub(crate) async fn next(&mut self) -> Result<GenerationEvent, GenerateError> {
        let next = self.receive().await;
        match &next {
            Ok(event) => self.note(event),
            Err(_) => self.route.failed(),
        }
        next
    }

    async fn receive(&mut self) -> Result<GenerationEvent, GenerateError> {
        loop {
            let message = tokio::select! {
                biased;
                message = self.stream.message() => message,
                () = &mut self.lost => return Err(WorkerLost { worker: self.worker() }.into()),
                () = &mut self.expired => return Err(DeadlinePassed { limit: self.deadline.limit }.into()),
            };
            let event = match message {
                Ok(Some(message)) => GenerationEvent::from_wire(message),
                Ok(None) => {
                    let reason = "it hung up before the request's end".to_owned();
                    return Err(CallBroken { worker: self.worker(), reason }.into());
                }
                Err(status) => {
                    return Err(CallBroken { worker: self.worker(), reason: describe(&status) }.into());
                }
            };
            match event {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(failure) => return Err(WorkerFailed::new(self.decode.id(), failure).into()),
            }
        }
    }

    /// For another attempt.
    pub(super) fn into_route(self) -> Route {
        self.route
    }

    /// What the router learns from.
    fn note(&mut self, event: &GenerationEvent) {
        if let Some(account) = &event.account {
            self.route.account(account);
        }
        match &event.kind {
            EventKind::Tokens(tokens) => {
                self.route.first_token();
                self.route.tokens(tokens.len());
            }
            EventKind::Finished(_) => self.route.complete(),
        }
    }

    fn worker(&self) -> String {
        self.decode.id().to_owned()
    }
}

/// The status' own words, and what lies beneath.
pub(super) fn describe(status: &Status) -> String {
    use std::error::Error as _;
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
