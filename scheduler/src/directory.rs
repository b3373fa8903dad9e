//! Tells sidecars who prefills. A sidecar whose HTTP front is told by a gateway where to prefill calls nobody else.

use std::sync::Arc;

use baton_proto::v1::{PrefillWorkers, Role, WatchPrefillWorkersRequest, directory_server::Directory};
use futures::{StreamExt as _, stream, stream::BoxStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{dispatch::prefill_candidate, fleet::Fleet};

/// The directory's gRPC service.
pub(crate) struct DirectoryService {
    fleet: Arc<Fleet>,
    stop: CancellationToken,
}

impl DirectoryService {
    pub(crate) fn new(fleet: Arc<Fleet>, stop: CancellationToken) -> Self {
        Self { fleet, stop }
    }
}

#[tonic::async_trait]
impl Directory for DirectoryService {
    type WatchPrefillWorkersStream = BoxStream<'static, Result<PrefillWorkers, Status>>;

    async fn watch_prefill_workers(
        &self,
        _: Request<WatchPrefillWorkersRequest>,
    ) -> Result<Response<Self::WatchPrefillWorkersStream>, Status> {
        let lists = watch(self.fleet.clone()).map(Ok).take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(lists.boxed()))
    }
}

/// The list as it is, then each that differs from the one before.
fn watch(fleet: Arc<Fleet>) -> impl stream::Stream<Item = PrefillWorkers> {
    let news = fleet.news();
    stream::unfold((fleet, news, None), |(fleet, mut news, told)| async move {
        loop {
            // First, so that what happens meanwhile is looked at again.
            news.mark_unchanged();
            let list = prefill_workers(&fleet);
            if told.as_ref() != Some(&list) {
                return Some((list.clone(), (fleet, news, Some(list))));
            }
            news.changed().await.ok()?;
        }
    })
}

fn prefill_workers(fleet: &Fleet) -> PrefillWorkers {
    let members = fleet.members();
    let prefill = members.iter().filter(|member| member.role() == Role::Prefill);
    PrefillWorkers { workers: prefill.map(|member| prefill_candidate(member)).collect() }
}
