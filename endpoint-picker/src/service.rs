//! The gRPC service: an [`Exchange`] for each stream.

use std::{collections::VecDeque, sync::Arc};

use envoy_types::pb::envoy::service::ext_proc::v3::{
    ProcessingRequest, ProcessingResponse,
    external_processor_server::{ExternalProcessor, ExternalProcessorServer},
};
use futures::stream::{self, BoxStream};
use tonic::{Status, Streaming};

use crate::{
    Limits, Picker,
    exchange::{Exchange, Step},
};

/// Answers gateways with what a [`Picker`] chooses.
pub struct EndpointPicker<P> {
    picker: Arc<P>,
    limits: Limits,
}

impl<P: Picker> EndpointPicker<P> {
    /// The gRPC service.
    pub fn service(picker: Arc<P>, limits: Limits) -> ExternalProcessorServer<Self> {
        ExternalProcessorServer::new(Self { picker, limits })
    }
}

/// A stream of a gateway: one request.
struct Session<P> {
    incoming: Streaming<ProcessingRequest>,
    exchange: Exchange,
    ready: VecDeque<ProcessingResponse>,
    picker: Arc<P>,
}

impl<P: Picker> Session<P> {
    /// The next reply; `None` when the stream is over.
    async fn next(&mut self) -> Option<Result<ProcessingResponse, Status>> {
        loop {
            if let Some(reply) = self.ready.pop_front() {
                return Some(Ok(reply));
            }
            // After the last reply the gateway closes; a refusal is the last at once.
            let message = match self.incoming.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return None,
                Err(status) => {
                    tracing::debug!(%status, "the gateway broke off");
                    return None;
                }
            };
            match self.exchange.take(message) {
                Step::Reply(replies) => self.ready.extend(replies),
                Step::Pick(request) => {
                    let outcome = self.picker.pick(request).await;
                    self.ready.extend(self.exchange.placed(outcome));
                }
                Step::Broken(how) => {
                    tracing::warn!(how, "a gateway does not keep to the endpoint picker protocol");
                    return Some(Err(Status::invalid_argument(how)));
                }
            }
            if self.exchange.is_over() && self.ready.is_empty() {
                return None;
            }
        }
    }
}

#[tonic::async_trait]
impl<P: Picker> ExternalProcessor for EndpointPicker<P> {
    type ProcessStream = BoxStream<'static, Result<ProcessingResponse, Status>>;

    async fn process(
        &self,
        request: tonic::Request<Streaming<ProcessingRequest>>,
    ) -> Result<tonic::Response<Self::ProcessStream>, Status> {
        let session = Session {
            incoming: request.into_inner(),
            exchange: Exchange::new(self.limits),
            ready: VecDeque::new(),
            picker: Arc::clone(&self.picker),
        };
        let replies = stream::unfold(Some(session), |session| async {
            let mut session = session?;
            match session.next().await? {
                // Nothing follows an error.
                Err(status) => Some((Err(status), None)),
                reply => Some((reply, Some(session))),
            }
        });
        Ok(tonic::Response::new(Box::pin(replies)))
    }
}
