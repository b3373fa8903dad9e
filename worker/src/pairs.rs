//! A prefill worker's connections to the decode workers: made ahead of any request, and kept.
//!
//! The registry says which decode workers there are. Each has a task that connects, waits for the connection's end, and
//! connects again; what came of it goes into a table, which the registration reports. So a pair that can never work, or does
//! not work now, gets no requests, and the first request on a path finds it warm.

mod table;

use std::{collections::BTreeMap, sync::Arc};

use baton_kv_transfer::TransferNode;
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

/// The list that the registry gave last, and what came of it.
#[derive(Debug)]
pub(crate) struct Pairs {
    wanted: watch::Sender<DecodeWorkers>,
    table: watch::Sender<Table>,
}

/// How a task says what came of its pair.
type Outcomes = mpsc::Sender<(Target, PairState)>;

impl Pairs {
    pub(crate) fn new() -> Self {
        Self { wanted: watch::Sender::default(), table: watch::Sender::default() }
    }

    /// The registry says who is there.
    pub(crate) fn want(&self, workers: DecodeWorkers) {
        self.wanted.send_replace(workers);
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
                    let list = wanted.borrow_and_update().clone();
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
