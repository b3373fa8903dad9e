//! Who prefills, as the scheduler's registry says: whom a client's header may name.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use baton_proto::v1::{
    PrefillCandidate, PrefillWorkers, WatchPrefillWorkersRequest, directory_client::DirectoryClient,
};
use baton_tls::Dial;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Endpoint};

use crate::leg::describe;

/// Between two attempts to reach the scheduler.
const RETRY: Duration = Duration::from_millis(500);

/// Prefill workers by endpoint. While the scheduler can't be reached, those that it named last.
#[derive(Clone, Default)]
pub(crate) struct Directory {
    workers: Arc<Mutex<HashMap<String, PrefillCandidate>>>,
}

impl Directory {
    /// The prefill worker at that address.
    pub(crate) fn find(&self, endpoint: &str) -> Option<PrefillCandidate> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).get(endpoint).cloned()
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<PrefillCandidate> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<PrefillCandidate> = workers.values().cloned().collect();
        all.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
        all
    }

    pub(super) fn set(&self, list: PrefillWorkers) {
        let by_endpoint = list.workers.into_iter().map(|worker| (worker.endpoint.clone(), worker)).collect();
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) = by_endpoint;
    }

    /// Keeps it up to date until `stop`.
    pub(crate) async fn follow(self, scheduler: Endpoint, dial: Dial, stop: CancellationToken) {
        let following = async {
            loop {
                if let Err(status) = self.follow_once(&scheduler, &dial).await {
                    tracing::debug!(
                        reason = describe(&status),
                        "the scheduler says nothing of prefill workers"
                    );
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = following => {}
            () = stop.cancelled() => {}
        }
    }

    async fn follow_once(&self, scheduler: &Endpoint, dial: &Dial) -> Result<(), Status> {
        let channel =
            dial.connect(scheduler).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut client = DirectoryClient::new(channel);
        let mut lists = client.watch_prefill_workers(WatchPrefillWorkersRequest {}).await?.into_inner();
        while let Some(list) = lists.message().await? {
            self.set(list);
        }
        Ok(())
    }
}
