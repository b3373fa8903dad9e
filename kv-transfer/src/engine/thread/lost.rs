//! Peers that are gone: their transfers fail at once, their connections go when nothing of theirs is under way. And what senders
//! that write no more have on its way here: it is drained before a fence falls.
//!
//! All times are the thread's own: a process that was stopped has not drained anything meanwhile.

use std::time::Duration;

use tokio::sync::oneshot;

use super::in_flight::Flying;
use super::{DataPlane, Target};
use crate::engine::Sending;
use crate::fabric::LAST_POLLS;
use crate::ids::{PeerId, TransferKey};
use crate::{FabricError, TransferError};

/// A sender that writes no more. What it wrote is here from some moment on.
pub(super) struct Drain {
    what: Drained,
    /// In own time.
    until: Duration,
}

#[derive(Clone, Copy)]
enum Drained {
    /// All of a dead peer's.
    Peer(PeerId),
    /// That of one transfer.
    Part(TransferKey, PeerId),
    /// One write of a chunk, by its number.
    Stray(TransferKey, PeerId, u32),
}

impl DataPlane {
    pub(super) fn target_lost(&mut self, peer: PeerId, quiet: oneshot::Sender<()>) {
        let Some(target) = self.targets.get_mut(&peer) else {
            let _ = quiet.send(());
            return;
        };
        target.lost = Some(self.time.ran() + self.limits.drain);
        target.quiet = Some(quiet);
        // What is under way need not wait for the drain where the fabric can end it.
        self.fabric.sever(peer);
        let lost = |sending: &Sending| TransferError::PeerLost { peer: sending.cell.endpoint.clone() };
        self.end_all(|sending| sending.peer() == peer, lost);
    }

    pub(super) fn initiator_lost(&mut self, peer: PeerId, name: &str, silent: bool) {
        // What it had published before it died still counts: it may be all that was missing.
        if let Err(error) = self.poll() {
            tracing::debug!(%error, "polling after a peer's death");
        }
        self.receiver.peer_lost(peer, name);
        self.drain(Drained::Peer(peer), silent);
    }

    pub(super) fn drain_part(&mut self, key: TransferKey, sender: PeerId, stray: Option<u32>) {
        let part = Drained::Part(key, sender);
        self.drain(stray.map_or(part, |sequence| Drained::Stray(key, sender, sequence)), false);
    }

    fn drain(&mut self, what: Drained, silent: bool) {
        let buffers = self.capabilities.buffers_bytes;
        let buffered = if buffers { self.limits.fence(silent) } else { Duration::ZERO };
        self.drains.push(Drain { what, until: self.time.ran() + buffered });
    }

    /// When there is something to do here, in own time.
    pub(super) fn next_lost(&self) -> Option<Duration> {
        // One that was given up before waits for its writes, or for the end of the data plane.
        let waits = |target: &&Target| target.given_up.is_none() || target.in_flight == 0;
        let targets = self.targets.values().filter(waits).filter_map(|target| target.lost);
        targets.chain(self.drains.iter().map(|drain| drain.until)).min()
    }

    /// Disconnects dead peers once nothing of theirs is in flight, or has been for too long; says what is drained.
    pub(super) fn reap_lost(&mut self) -> Result<bool, FabricError> {
        if self.next_lost().is_none() {
            return Ok(false);
        }
        let now = self.time.ran();
        let may_give_up = |target: &Target| target.given_up.is_none();
        let over = |target: &Target| {
            target.lost.is_some_and(|at| target.in_flight == 0 || (at <= now && may_give_up(target)))
        };
        let targets: Vec<PeerId> =
            self.targets.iter().filter(|(_, t)| over(t)).map(|(&peer, _)| peer).collect();
        for &peer in &targets {
            let target = self.targets.remove(&peer);
            self.fabric.disconnect(peer);
            self.give_up_writes(peer);
            if let Some(quiet) = target.and_then(|target| target.quiet) {
                let _ = quiet.send(());
            }
        }
        let drained = self.end_drains(now)?;
        Ok(!targets.is_empty() || drained)
    }

    /// Takes out what came until now, closes the door behind dead senders, takes out what slipped in, and only then says so.
    fn end_drains(&mut self, now: Duration) -> Result<bool, FabricError> {
        let due: Vec<Drained> =
            self.drains.extract_if(.., |drain| drain.until <= now).map(|drain| drain.what).collect();
        if due.is_empty() {
            return Ok(false);
        }
        self.poll_out()?;
        for what in &due {
            if let Drained::Peer(peer) = *what {
                self.fabric.disconnect(peer);
            }
        }
        self.poll_out()?;
        for what in due {
            match what {
                Drained::Peer(peer) => self.receiver.peer_drained(peer),
                Drained::Part(key, sender) => self.receiver.part_drained(key, sender),
                Drained::Stray(key, sender, sequence) => self.receiver.stray_drained(key, sender, sequence),
            }
        }
        Ok(true)
    }

    fn poll_out(&mut self) -> Result<(), FabricError> {
        for _ in 0..LAST_POLLS {
            if !self.poll()? {
                break;
            }
        }
        Ok(())
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
