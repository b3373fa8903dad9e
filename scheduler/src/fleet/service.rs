//! The registry's gRPC service.

use std::sync::Arc;

use baton_proto::v1::{RegistryReply, WorkerReport, registry_server::Registry};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::{Fleet, membership};

/// Runs each membership as a task of its own, under `tasks`, until `stop`.
pub(crate) struct RegistryService {
    fleet: Arc<Fleet>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl RegistryService {
    pub(crate) fn new(fleet: Arc<Fleet>, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { fleet, tasks, stop }
    }
}

#[tonic::async_trait]
impl Registry for RegistryService {
    type JoinStream = ReceiverStream<Result<RegistryReply, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<WorkerReport>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        // The newest list of decode workers waits until there is room.
        let (replies, stream) = mpsc::channel(1);
        self.tasks.spawn(membership::serve(
            self.fleet.clone(),
            request.into_inner(),
            replies,
            self.stop.clone(),
        ));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
