//! The gRPC service.

use std::sync::Arc;

use baton_process::{Span, SpanKind, TraceContext};
use baton_proto::{
    MAX_MESSAGE_BYTES,
    v1::{
        DecodeCommand, DecodeEvent,
        decode_server::{Decode, DecodeServer},
    },
};
use baton_worker::Worker;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::session;

/// Events on their way to the sidecar; the engine keeps what finds no room.
const EVENTS: usize = 64;

/// Serves `Decode` over a worker.
pub struct DecodeService {
    worker: Arc<Worker>,
}

impl DecodeService {
    /// A service over `worker`.
    pub fn new(worker: Arc<Worker>) -> Self {
        Self { worker }
    }

    /// For a server.
    pub fn into_server(self) -> DecodeServer<Self> {
        DecodeServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl Decode for DecodeService {
    type SessionStream = ReceiverStream<Result<DecodeEvent, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<DecodeCommand>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (events, stream) = mpsc::channel(EVENTS);
        let worker = self.worker.clone();
        let caller = TraceContext::of_headers(request.metadata().as_ref());
        let span = Span::begin("decode", SpanKind::Server, &caller);
        let serving = async move { session::serve(&worker, request.into_inner(), &events, span).await };
        self.worker.calls.spawn(serving);
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
