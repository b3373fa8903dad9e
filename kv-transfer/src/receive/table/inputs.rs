//! What comes in: attaches, writes, manifests, withdrawals, deaths, time.

use tokio::time::Instant;

use super::{Effect, Fence, ReceiveTable, State};
use crate::TransferError;
use crate::ids::{Immediate, PeerId, TransferKey};
use crate::receive::CheckedManifest;
use crate::receive::manifest::Wanted;
use crate::tally::Tally;
use crate::wire::{MAX_REASON_CHARS, Manifest};

impl ReceiveTable {
    /// A sender asks to write. Refused unless the transfer is live, unclaimed, and the secret is that of the ticket.
    pub(crate) fn attach(&mut self, from: PeerId, key: TransferKey, secret: u64) -> Result<(), &'static str> {
        match self.live(key) {
            None => Err("it completed, was aborted or expired"),
            Some(live) if live.secret != secret => Err("the ticket is forged"),
            Some(live) if live.sender.is_some() => Err("another sender is attached"),
            Some(live) => {
                live.sender = Some(from);
                self.attached += 1;
                Ok(())
            }
        }
    }

    /// One write landed. `from` is known on fabrics that tell.
    pub(crate) fn write_landed(&mut self, from: Option<PeerId>, word: u32, effects: &mut Vec<Effect>) {
        let Some(Immediate { key, sequence }) = Immediate::decode(word) else {
            return self.counters.late_writes.add(1);
        };
        let expected = |sender: PeerId| from.is_none_or(|from| from == sender);
        match self.state(key) {
            Some(State::Live(live)) if live.sender.is_some_and(expected) => {
                live.arrived.add(sequence);
                self.counters.writes_received.add(1);
                self.judge(key, effects);
            }
            Some(State::Fenced(fenced)) if expected(fenced.sender) => {
                fenced.arrived.add(sequence);
                let all_here = fenced.withdrawn && fenced.announced == Some(fenced.arrived);
                self.counters.late_writes.add(1);
                if all_here {
                    self.lift(key, effects);
                }
            }
            _ => self.counters.late_writes.add(1),
        }
    }

    pub(crate) fn manifest(
        &mut self,
        from: PeerId,
        key: TransferKey,
        manifest: &Manifest,
        effects: &mut Vec<Effect>,
    ) {
        let (geometry, checksums) = (self.rules.geometry, self.rules.checksums);
        match self.state(key) {
            Some(State::Live(live)) if live.sender == Some(from) && live.manifest.is_none() => {
                let blocks = live.cell.blocks.len() as u32;
                let wanted = Wanted { geometry, blocks, tokens: live.tokens, checksums, seed: live.secret };
                match CheckedManifest::check(manifest, &wanted) {
                    Ok(checked) => {
                        live.manifest = Some(checked);
                        self.judge(key, effects);
                    }
                    Err(error) => self.fail(key, error, Fence::Told("the manifest is wrong"), effects),
                }
            }
            Some(State::Fenced(fenced)) if fenced.sender == from => {
                fenced.announced = Some(Tally::first(manifest.writes));
            }
            _ => {}
        }
    }

    /// The sender will not write any more.
    pub(crate) fn withdrawn(
        &mut self,
        from: PeerId,
        key: TransferKey,
        writes: Option<Tally>,
        reason: &str,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let drained = now + self.rules.drain.unwrap_or_default();
        let delivered = self.rules.completed_is_delivered;
        if let Some(State::Live(live)) = self.state(key)
            && live.sender == Some(from)
        {
            let reason = reason.chars().take(MAX_REASON_CHARS).collect();
            self.fail(key, TransferError::AbortedByPeer { reason }, Fence::Drained(drained), effects);
        }
        if let Some(State::Fenced(fenced)) = self.state(key)
            && fenced.sender == from
        {
            fenced.withdrawn = true;
            fenced.announced = writes.or(fenced.announced);
            if delivered || fenced.announced == Some(fenced.arrived) {
                self.lift(key, effects);
            } else {
                self.lift_at(key, drained);
            }
        }
    }

    /// This side gives up. Nothing happens if the transfer is over.
    pub(crate) fn abort(&mut self, key: TransferKey, effects: &mut Vec<Effect>) {
        if self.live(key).is_some() {
            self.fail(key, TransferError::Aborted, Fence::Told("the receiver aborted"), effects);
        }
    }

    /// A peer's process is gone, and what it had put into shared rings has been taken out.
    pub(crate) fn peer_lost(&mut self, peer: PeerId, name: &str, now: Instant, effects: &mut Vec<Effect>) {
        let drained = now + self.rules.drain.unwrap_or_default();
        for key in self.keys_of(peer) {
            let lost = TransferError::PeerLost { peer: name.to_owned() };
            match self.state(key) {
                Some(State::Live(live)) if live.manifest.is_some() && drained > now => {
                    live.lost = Some((lost, drained));
                    let (old, new) = (live.deadline, live.deadline.min(drained));
                    live.deadline = new;
                    self.deadlines.remove(&(old, key));
                    self.deadlines.insert((new, key));
                }
                Some(State::Live(_)) => self.fail(key, lost, Fence::Drained(drained), effects),
                Some(State::Fenced(_)) if drained > now => self.lift_at(key, drained),
                Some(State::Fenced(_)) => self.lift(key, effects),
                _ => {}
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Fails what is overdue, lifts the fences whose drain is over.
    pub(crate) fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some(&(at, key)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, key));
            match self.state(key) {
                Some(State::Live(live)) => {
                    let manifest = if live.manifest.is_some() { "here" } else { "missing" };
                    let expired = TransferError::Expired {
                        after: live.expires_in,
                        arrived: live.arrived.writes,
                        manifest,
                    };
                    match live.lost.take() {
                        Some((lost, drained)) => self.fail(key, lost, Fence::Drained(drained), effects),
                        None => self.fail(key, expired, Fence::Told("the transfer expired"), effects),
                    }
                }
                Some(State::Fenced(_)) => self.lift(key, effects),
                _ => debug_assert!(false, "a deadline of the free slot {key} stayed behind"),
            }
        }
    }

    /// Refuses new transfers and aborts all.
    pub(crate) fn close(&mut self, effects: &mut Vec<Effect>) {
        self.closed = true;
        for key in self.keys(|state| matches!(state, State::Live(_))) {
            self.fail(
                key,
                TransferError::ShuttingDown,
                Fence::Told("the receiver is shutting down"),
                effects,
            );
        }
    }
}
