//! Who prefills, as the schedulers' registries say: whom a client's header may name.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use baton_membership::{Attendance, LastWords};
use baton_proto::v1::{
    PrefillCandidate, PrefillWorkers, WatchPrefillWorkersRequest, directory_client::DirectoryClient,
};
use baton_tls::Dial;
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Endpoint};

use crate::{channels::endpoint, leg::describe};

/// Between two attempts to reach a scheduler.
const RETRY: Duration = Duration::from_millis(500);

/// Prefill workers by endpoint, as all schedulers name them that can be reached. While none can, those that they named last.
#[derive(Clone, Default)]
pub(crate) struct Directory {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    lists: LastWords<PrefillWorkers>,
    workers: HashMap<String, PrefillCandidate>,
}

impl Directory {
    /// The prefill worker at that address.
    pub(crate) fn find(&self, endpoint: &str) -> Option<PrefillCandidate> {
        self.lock().workers.get(endpoint).cloned()
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<PrefillCandidate> {
        let mut all: Vec<PrefillCandidate> = self.lock().workers.values().cloned().collect();
        all.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
        all
    }

    /// `scheduler` names these.
    pub(super) fn set(&self, scheduler: &str, list: PrefillWorkers) {
        self.change(|lists| lists.said(scheduler, list));
    }

    fn change(&self, change: impl FnOnce(&mut LastWords<PrefillWorkers>)) {
        let mut known = self.lock();
        change(&mut known.lists);
        let workers = known.lists.counting().flat_map(|list| list.workers.iter().cloned());
        known.workers = workers.map(|worker| (worker.endpoint.clone(), worker)).collect();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it up to date until `stop`.
    pub(crate) async fn follow(
        self,
        mut schedulers: watch::Receiver<BTreeSet<String>>,
        dial: Dial,
        stop: CancellationToken,
    ) {
        // Dropping them ends the tasks.
        let mut following = JoinSet::new();
        let mut attendance = Attendance::new(stop.clone());
        let mut is_list_final = false;
        loop {
            let names = schedulers.borrow_and_update().clone();
            attendance.follow(&names, |name, gone| {
                let (directory, name, dial) = (self.clone(), name.to_owned(), dial.clone());
                following.spawn(async move {
                    tokio::select! {
                        () = directory.follow_one(&name, &dial) => {}
                        () = gone.cancelled() => {}
                    }
                    directory.change(|lists| lists.forget(&name));
                });
                true
            });
            tokio::select! {
                changed = schedulers.changed(), if !is_list_final => is_list_final = changed.is_err(),
                () = stop.cancelled() => return,
            }
        }
    }

    async fn follow_one(&self, name: &str, dial: &Dial) {
        let Ok(scheduler) = endpoint(name) else { return };
        loop {
            let followed = self.follow_once(name, &scheduler, dial).await;
            self.change(|lists| lists.lost(name));
            if let Err(status) = followed {
                tracing::debug!(
                    scheduler = name,
                    reason = describe(&status),
                    "it says nothing of prefill workers"
                );
            }
            sleep(RETRY).await;
        }
    }

    async fn follow_once(&self, name: &str, scheduler: &Endpoint, dial: &Dial) -> Result<(), Status> {
        let channel =
            dial.connect(scheduler).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut client = DirectoryClient::new(channel);
        let mut lists = client.watch_prefill_workers(WatchPrefillWorkersRequest {}).await?.into_inner();
        while let Some(list) = lists.message().await? {
            self.set(name, list);
        }
        Ok(())
    }
}
