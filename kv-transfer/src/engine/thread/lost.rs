//! Peers that are gone: their transfers fail at once, their connections go when nothing of theirs is under way.

use std::time::Duration;

use tokio::time::Instant;

use super::in_flight::Flying;
use super::{DataPlane, Target};
use crate::TransferError;
use crate::engine::Sending;
use crate::ids::PeerId;

impl DataPlane {
    pub(super) fn target_lost(&mut self, peer: PeerId) {
        let Some(target) = self.targets.get_mut(&peer) else { return };
        target.lost = Some(Instant::now() + self.limits.drain);
        // What is under way need not wait for the drain where the fabric can end it.
        self.fabric.sever(peer);
        let lost = |sending: &Sending| TransferError::PeerLost { peer: sending.cell.endpoint.clone() };
        self.end_all(|sending| sending.peer() == peer, lost);
    }

    pub(super) fn initiator_lost(&mut self, peer: PeerId, name: &str) {
        // What it had published before it died still counts: it may be all that was missing.
        if let Err(error) = self.poll() {
            tracing::debug!(%error, "polling after a peer's death");
        }
        self.receiver.peer_lost(peer, name);
        let buffered = if self.capabilities.buffers_bytes { self.limits.drain } else { Duration::ZERO };
        self.initiators_lost.push((peer, Instant::now() + buffered));
    }

    pub(super) fn next_lost(&self) -> Option<Instant> {
        // One that was given up before waits for its writes, or for the end of the data plane.
        let waits = |target: &&Target| target.given_up.is_none() || target.in_flight == 0;
        let targets = self.targets.values().filter(waits).filter_map(|target| target.lost);
        targets.chain(self.initiators_lost.iter().map(|&(_, at)| at)).min()
    }

    /// Disconnects dead peers once nothing of theirs is in flight, or has been for too long.
    pub(super) fn reap_lost(&mut self) -> bool {
        if self.next_lost().is_none() {
            return false;
        }
        let now = Instant::now();
        let may_give_up = |target: &Target| target.given_up.is_none();
        let over = |target: &Target| {
            target.lost.is_some_and(|at| target.in_flight == 0 || (at <= now && may_give_up(target)))
        };
        let targets: Vec<PeerId> =
            self.targets.iter().filter(|(_, t)| over(t)).map(|(&peer, _)| peer).collect();
        for &peer in &targets {
            self.targets.remove(&peer);
            self.fabric.disconnect(peer);
            self.give_up_writes(peer);
        }
        let (gone, kept): (Vec<_>, Vec<_>) = self.initiators_lost.drain(..).partition(|&(_, at)| at <= now);
        self.initiators_lost = kept;
        gone.iter().for_each(|&(peer, _)| self.fabric.disconnect(peer));
        !targets.is_empty() || !gone.is_empty()
    }

    /// Writes to a dead peer that no completion came for. The peer cannot read or accept anything any more.
    fn give_up_writes(&mut self, peer: PeerId) {
        let theirs = |(i, entry): (usize, &Option<Flying>)| {
            entry.filter(|flying| flying.peer == peer && !flying.given_up).map(|_| i as u32)
        };
        let contexts: Vec<u32> = self.in_flight.entries.iter().enumerate().filter_map(theirs).collect();
        for context in contexts {
            if let Some(flying) = self.in_flight.give_up(context) {
                self.counters.in_flight_writes.sub(1);
                self.write_done(&flying, None);
            }
        }
    }
}
