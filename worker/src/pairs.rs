//! A prefill worker's connections to the decode workers: made ahead of any request, and kept.
//!
//! The schedulers say which decode workers there are. Each has a task that connects, waits for the connection's end, and
//! connects again; what came of it goes into a table, which the registration reports. So a pair that can never work, or does
//! not work now, gets no requests, and the first request on a path finds it warm.

mod table;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use baton_kv_transfer::TransferNode;
use baton_membership::LastWords;
use baton_proto::v1::registry_reply::DecodeWorkers;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

pub(crate) use table::{PairState, Table};
use table::{Target, pause};

/// Peers that are being connected to at once; the others wait for their turn.
const AT_ONCE: usize = 16;
/// Outcomes on their way.
const OUTCOMES: usize = 64;

/// The lists that the schedulers gave last, and what came of them.
#[derive(Debug)]
pub(crate) struct Pairs {
    lists: Mutex<LastWords<DecodeWorkers>>,
    /// All that any scheduler wants; `None`: none has said anything yet.
    wanted: watch::Sender<Option<DecodeWorkers>>,
    table: watch::Sender<Table>,
}

/// How a task says what came of its pair.
type Outcomes = mpsc::Sender<(Target, PairState)>;

impl Pairs {
    pub(crate) fn new() -> Self {
        Self { lists: Mutex::default(), wanted: watch::Sender::default(), table: watch::Sender::default() }
    }

    /// A scheduler says who is there.
    pub(crate) fn want(&self, scheduler: &str, workers: DecodeWorkers) {
        self.change(|lists| lists.said(scheduler, workers));
    }

    /// A scheduler can't be heard now.
    pub(crate) fn lost(&self, scheduler: &str) {
        self.change(|lists| lists.lost(scheduler));
    }

    /// A scheduler is none any more.
    pub(crate) fn forget(&self, scheduler: &str) {
        self.change(|lists| lists.forget(scheduler));
    }

    fn change(&self, change: impl FnOnce(&mut LastWords<DecodeWorkers>)) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut lists);
        if lists.all().next().is_none() {
            // Nobody has said anything, or nobody is left who could.
            return;
        }
        let mut workers = Vec::new();
        for worker in lists.counting().flat_map(|list| &list.workers) {
            if !workers.contains(worker) {
                workers.push(worker.clone());
            }
        }
        self.wanted.send_if_modified(|wanted| {
            let is_news = wanted.as_ref().is_none_or(|wanted| wanted.workers != workers);
            *wanted = Some(DecodeWorkers { workers });
            is_news
        });
    }

    /// What is known, now and from now on.
    pub(crate) fn table(&self) -> watch::Receiver<Table> {
        self.table.subscribe()
    }

    /// Connects `node` to whoever is wanted, until `stop`.
    pub(crate) async fn keep(self: Arc<Self>, node: TransferNode, stop: CancellationToken) {
        let mut wanted = self.wanted.subscribe();
        let (outcomes, mut came) = mpsc::channel(OUTCOMES);
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        // Dropping them ends the tasks.
        let mut tasks = JoinSet::new();
        let mut handles: BTreeMap<Target, AbortHandle> = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let Some(list) = wanted.borrow_and_update().clone() else { continue };
                    let mut changes = table::Changes::default();
                    self.table.send_modify(|table| changes = table.want(list));
                    for target in changes.gone {
                        tracing::debug!(decode_worker = target.worker_id, "no pair any more: it left");
                        handles.remove(&target).iter().for_each(AbortHandle::abort);
                    }
                    for target in changes.added {
                        let task = hold(node.clone(), target.clone(), turns.clone(), outcomes.clone());
                        handles.insert(target, tasks.spawn(task));
                    }
                }
                Some((target, state)) = came.recv() => self.note(&target, state),
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    fn note(&self, target: &Target, state: PairState) {
        self.table.send_if_modified(|table| {
            let Some(former) = table.set(target, state.clone()) else { return false };
            log(target, &former, &state);
            former != state
        });
    }
}

/// Holds one pair for as long as it can work.
async fn hold(node: TransferNode, target: Target, turns: Arc<Semaphore>, outcomes: Outcomes) {
    let mut failures = 0;
    loop {
        // Never closed.
        let turn = turns.acquire().await;
        let connected = node.connect(&target.control_endpoint, &target.node_id).await;
        drop(turn);
        let state = match connected {
            Ok(connected) => {
                failures = 0;
                if outcomes.send((target.clone(), PairState::Connected)).await.is_err() {
                    return;
                }
                connected.ended().await;
                PairState::Unreachable { reason: "the connection ended".to_owned() }
            }
            Err(error) => PairState::failed(error),
        };
        let is_final = matches!(state, PairState::Refused { .. });
        if outcomes.send((target.clone(), state)).await.is_err() || is_final {
            return;
        }
        sleep(pause(failures, rand::random())).await;
        failures = failures.saturating_add(1);
    }
}

/// Once for each change of kind, however often it is tried.
fn log(target: &Target, former: &PairState, state: &PairState) {
    let decode_worker = &target.worker_id;
    match state {
        _ if former.name() == state.name() => {}
        PairState::Trying => {}
        PairState::Connected => tracing::info!(decode_worker, "connected"),
        PairState::Refused { field, ours, theirs } => {
            tracing::error!(decode_worker, field, ours, theirs, "this pair can never exchange KV blocks");
        }
        PairState::Unreachable { reason } => {
            tracing::warn!(decode_worker, reason, "not connected; trying again");
        }
    }
}
