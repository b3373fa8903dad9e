//! The slot table behind its lock, and the carrying out of its effects.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{AttachError, Effect, Expected, IncomingCell, ReceiveTable, Scatter, TableRules};
use crate::control::Peers;
use crate::engine::{Command, CommandQueue};
use crate::ids::{PeerId, TransferKey};
use crate::layout::Conversion;
use crate::stats::Counters;
use crate::wire::{Amend, Body, Grant, Manifest, Reason, Withdrawn};
use crate::{DataPlaneFailed, ExpectError};

/// Shared by the owners of transfers, the control tasks and the data thread.
#[derive(Debug)]
pub(crate) struct Receiver {
    table: Mutex<ReceiveTable>,
    /// How to talk back to the peers that write here.
    peers: Arc<Peers>,
    /// To the data thread, which alone knows what is drained.
    queue: Arc<CommandQueue>,
    /// Signalled when the next deadline has moved.
    changed: Notify,
    /// Signalled when a slot was freed.
    freed: Notify,
}

/// Blocks that a fetch writes.
pub(crate) struct Claim {
    receiver: Arc<Receiver>,
    blocks: Box<[u32]>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.receiver.lock().unclaim(&self.blocks);
    }
}

impl Receiver {
    pub(crate) fn new(
        rules: TableRules,
        peers: Arc<Peers>,
        queue: Arc<CommandQueue>,
        counters: Arc<Counters>,
    ) -> Self {
        let table = Mutex::new(ReceiveTable::new(rules, counters));
        Self { table, peers, queue, changed: Notify::new(), freed: Notify::new() }
    }

    pub(crate) fn expect(&self, expected: &Expected<'_>) -> Result<Arc<IncomingCell>, ExpectError> {
        let cell = self.lock().expect(expected, Instant::now())?;
        self.changed.notify_one();
        Ok(cell)
    }

    /// Whether a sequence of `tokens` can lie in `blocks`, whoever owns them.
    pub(crate) fn check(&self, blocks: &[u32], tokens: u32) -> Result<(), ExpectError> {
        self.lock().check(blocks, tokens)
    }

    /// Makes blocks busy until the claim is dropped, so that nothing is expected into them.
    pub(crate) fn claim(this: &Arc<Self>, blocks: &[u32], tokens: u32) -> Result<Claim, ExpectError> {
        this.lock().claim(blocks, tokens)?;
        Ok(Claim { receiver: this.clone(), blocks: blocks.into() })
    }

    pub(crate) fn renew(&self, key: TransferKey, expires_in: Duration) -> bool {
        let mut renewed = false;
        self.change(|table, _| renewed = table.renew(key, expires_in, Instant::now()));
        renewed
    }

    pub(crate) fn abort(&self, key: TransferKey) {
        self.change(|table, effects| table.abort(key, effects));
    }

    pub(crate) fn attach(
        &self,
        from: PeerId,
        conversion: &Arc<Conversion>,
        key: TransferKey,
        secret: u64,
        staged: bool,
    ) -> Result<TransferKey, AttachError> {
        self.lock().attach(from, conversion, key, secret, staged)
    }

    pub(crate) fn want(&self, from: PeerId, key: TransferKey, chunks: u32) {
        self.change(|table, effects| table.want(from, key, chunks, effects));
    }

    pub(crate) fn scattered(&self, scatter: &Scatter, outcome: Result<(), String>) {
        self.change(|table, effects| table.scattered(scatter, outcome, effects));
    }

    pub(crate) fn manifest(&self, from: PeerId, key: TransferKey, manifest: &Manifest) {
        self.change(|table, effects| table.manifest(from, key, manifest, effects));
    }

    pub(crate) fn stray(&self, from: PeerId, key: TransferKey, sequence: u32) {
        self.change(|table, effects| table.stray(from, key, sequence, effects));
    }

    /// Whether a transfer waits for an amended manifest now.
    pub(crate) fn recall(&self, from: PeerId, key: TransferKey) -> bool {
        self.lock().recall(from, key)
    }

    pub(crate) fn amend(&self, from: PeerId, key: TransferKey, amend: &Amend) {
        self.change(|table, effects| table.amend(from, key, amend, effects));
    }

    pub(crate) fn withdrawn(&self, from: PeerId, key: TransferKey, withdrawn: &Withdrawn) {
        self.change(|table, effects| table.withdrawn(from, key, withdrawn, effects));
    }

    pub(crate) fn peer_lost(&self, peer: PeerId, name: &str) {
        self.change(|table, effects| table.peer_lost(peer, name, effects));
    }

    /// Said by the data thread, see [`ReceiveTable::peer_drained`].
    pub(crate) fn peer_drained(&self, peer: PeerId) {
        self.change(|table, effects| table.peer_drained(peer, effects));
    }

    /// Said by the data thread, see [`ReceiveTable::part_drained`].
    pub(crate) fn part_drained(&self, key: TransferKey, sender: PeerId) {
        self.change(|table, effects| table.part_drained(key, sender, effects));
    }

    /// Said by the data thread, see [`ReceiveTable::stray_drained`].
    pub(crate) fn stray_drained(&self, key: TransferKey, sender: PeerId, sequence: u32) {
        self.change(|table, effects| table.stray_drained(key, sender, sequence, effects));
    }

    pub(crate) fn close(&self, failure: Option<DataPlaneFailed>) {
        self.change(|table, effects| table.close(failure, effects));
    }

    /// Counts a batch of landed writes under one lock; puts chunks that are to be scattered into `scatters`. `effects` is the
    /// caller's scratch space.
    pub(crate) fn landed(
        &self,
        writes: impl Iterator<Item = (Option<PeerId>, u32)>,
        effects: &mut Vec<Effect>,
        scatters: &mut Vec<Scatter>,
    ) {
        {
            let mut table = self.lock();
            writes.for_each(|(from, immediate)| table.write_landed(from, immediate, effects));
        }
        self.carry_out(effects, scatters);
    }

    /// Keeps deadlines until cancelled.
    pub(crate) async fn keep_time(&self, cancel: CancellationToken) {
        loop {
            let changed = self.changed.notified();
            let next = self.lock().next_deadline();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = changed => {}
                () = due => self.change(|table, effects| table.tick(Instant::now(), effects)),
            }
        }
    }

    /// Returns once every slot is free: no transfer lives, no fence stands.
    pub(crate) async fn emptied(&self) {
        loop {
            let freed = self.freed.notified();
            if self.lock().is_empty() {
                return;
            }
            freed.await;
        }
    }

    fn change(&self, act: impl FnOnce(&mut ReceiveTable, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let nearer = {
            let mut table = self.lock();
            let before = table.next_deadline();
            act(&mut table, &mut effects);
            table.next_deadline() != before
        };
        if nearer {
            self.changed.notify_one();
        }
        let mut scatters = Vec::new();
        self.carry_out(&mut effects, &mut scatters);
        debug_assert!(scatters.is_empty(), "only what has landed is scattered");
    }

    fn carry_out(&self, effects: &mut Vec<Effect>, scatters: &mut Vec<Scatter>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Quiet(cell) => {
                    cell.quiet.open();
                    self.freed.notify_waiters();
                }
                Effect::TellAbort { peer, key, reason } => {
                    self.peers.send(peer, Body::Abort(Reason { key: key.into(), reason }));
                }
                Effect::Grant { peer, key, chunk } => {
                    self.peers.send(peer, Body::Grant(Grant { key: key.into(), chunk }));
                }
                Effect::Drain { key, sender, stray } => {
                    self.queue.send(Command::DrainPart { key, sender, stray });
                }
                Effect::Scatter(scatter) => scatters.push(scatter),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ReceiveTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
