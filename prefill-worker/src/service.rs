//! The gRPC service.

use std::sync::Arc;

use baton_process::{Span, SpanKind, TraceContext};
use baton_proto::{
    MAX_MESSAGE_BYTES,
    v1::{
        PrefillEvent, PrefillRequest,
        prefill_server::{Prefill, PrefillServer},
    },
};
use baton_worker::Worker;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::leg;

/// Events on their way to one caller: signs of life are left out when there is no room.
const EVENTS: usize = 16;

/// Serves `Prefill` over a worker.
pub struct PrefillService {
    worker: Arc<Worker>,
}

impl PrefillService {
    /// A service over `worker`.
    pub fn new(worker: Arc<Worker>) -> Self {
        Self { worker }
    }

    /// For a server.
    pub fn into_server(self) -> PrefillServer<Self> {
        PrefillServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl Prefill for PrefillService {
    type RunStream = ReceiverStream<Result<PrefillEvent, Status>>;

    async fn run(&self, request: Request<PrefillRequest>) -> Result<Response<Self::RunStream>, Status> {
        let (events, stream) = mpsc::channel(EVENTS);
        let worker = self.worker.clone();
        let caller = TraceContext::of_headers(request.metadata().as_ref());
        let span = Span::begin("prefill", SpanKind::Server, &caller);
        let serving = async move { leg::serve(&worker, request.into_inner(), &events, span).await };
        self.worker.calls.spawn(serving);
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
