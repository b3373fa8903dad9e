//! What comes in: attaches, writes, manifests, withdrawals, deaths, time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::parts::Part;
use super::{AttachError, Effect, Failure, ReceiveTable, State};
use crate::ids::{Immediate, PeerId, TransferKey};
use crate::layout::Conversion;
use crate::receive::CheckedManifest;
use crate::receive::manifest::Wanted;
use crate::tally::Tally;
use crate::wire::{Amend, MAX_REASON_CHARS, Manifest, Withdrawn};
use crate::{DataPlaneFailed, TransferError};

impl ReceiveTable {
    /// A sender asks to write; it is told the slot under which its writes are counted. Refused unless the transfer is live,
    /// needs what it holds and did not get it yet, and the secret is that of the ticket.
    pub(crate) fn attach(
        &mut self,
        from: PeerId,
        conversion: &Arc<Conversion>,
        key: TransferKey,
        secret: u64,
        staged: bool,
    ) -> Result<TransferKey, AttachError> {
        if staged && self.rules.chunks == 0 {
            return Err("there is no staging here".into());
        }
        let live = self.live(key).ok_or("it completed, was aborted or expired")?;
        if live.secret != secret {
            return Err("the ticket is forged".into());
        }
        if !conversion.is_needed() {
            return Err("it needs none of this rank's heads".into());
        }
        let ranks = |conversion: &Conversion| conversion.source.layout.tensor_parallel;
        let taken = |part: &Part| {
            let heads = &part.conversion.heads;
            heads.start < conversion.heads.end && conversion.heads.start < heads.end
        };
        if live.parts.len() >= live.needed && !live.parts.is_empty() || live.parts.iter().any(taken) {
            return Err("another sender is attached".into());
        }
        if live.parts.first().is_some_and(|part| ranks(&part.conversion).size != ranks(conversion).size) {
            return Err("the other senders have another tensor-parallel size".into());
        }
        let first = live.parts.is_empty();
        let full = AttachError::Full { slots: self.rules.slots as u32 };
        let arrivals = if first { key } else { self.take_slot().ok_or(full)? };
        if !first {
            self.slots[arrivals.slot.index()].state = State::PartOf(key);
        }
        let live = self.live(key).expect("it was live just now");
        live.needed = conversion.senders as usize;
        live.parts.push(Part::new(from, arrivals, conversion.clone(), staged));
        Ok(arrivals)
    }

    /// One write landed. `from` is known on fabrics that tell.
    pub(crate) fn write_landed(&mut self, from: Option<PeerId>, word: u32, effects: &mut Vec<Effect>) {
        let late = &self.counters.late_writes;
        let Some(Immediate { key: arrivals, sequence }) = Immediate::decode(word) else { return late.add(1) };
        let key = match self.slots.get(arrivals.slot.index()) {
            Some(entry) if entry.generation == arrivals.generation => match entry.state {
                State::PartOf(key) => key,
                _ => arrivals,
            },
            _ => return late.add(1),
        };
        let theirs =
            |part: &&mut Part| part.arrivals == arrivals && from.is_none_or(|from| from == part.sender);
        match self.state(key) {
            Some(State::Live(live)) => {
                let Some(part) = live.parts.iter_mut().find(theirs) else {
                    return self.counters.late_writes.add(1);
                };
                let sender = part.sender;
                let staged = part.staged.is_some();
                self.counters.writes_received.add(1);
                if staged && let Some(scatter) = self.chunk_landed(key, sender, sequence) {
                    return effects.push(Effect::Scatter(scatter));
                }
                // A staged write for which there is no chunk is a repeated one.
                if let Some(part) = self.part(key, sender) {
                    part.arrived.add(sequence);
                }
                self.judge(key, effects);
            }
            Some(State::Fenced(fenced)) => {
                if let Some(part) = fenced.parts.iter_mut().find(theirs) {
                    part.arrived.add(sequence);
                    part.quiet |= part.withdrawn && part.announced == Some(part.arrived);
                }
                self.counters.late_writes.add(1);
                self.lift_if_quiet(key, effects);
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
        let checksums = self.rules.checksums;
        let Some(part) = self.part(key, from).filter(|part| part.manifest.is_none()) else { return };
        part.announced = Some(Tally::first(manifest.writes));
        let conversion = part.conversion.clone();
        if manifest.doubtful.is_some_and(|doubtful| doubtful.writes > 0) {
            self.drain_uncertain(key, from, effects);
        }
        let Some(live) = self.live(key) else { return };
        let wanted = Wanted { conversion, tokens: live.tokens, checksums, seed: live.secret };
        match CheckedManifest::check(manifest, &wanted) {
            Ok(checked) => {
                if let Some(part) = self.part(key, from) {
                    part.manifest = Some(checked);
                }
                self.judge(key, effects);
            }
            Err(error) => {
                self.fail(key, Failure { error, reason: "the manifest is wrong", ended: None }, effects);
            }
        }
    }

    /// A sender takes its manifest back, to make up for writes that failed on their way; whether the transfer waits for that.
    pub(crate) fn recall(&mut self, from: PeerId, key: TransferKey) -> bool {
        if self.live(key).is_none() {
            return false;
        }
        // A sender does so at most once: it announces anew when nothing is under way.
        let first = |part: &&mut Part| part.manifest.is_some() && !part.uncertain;
        let Some(part) = self.part(key, from).filter(first) else { return false };
        part.recalled = part.manifest.take();
        (part.announced, part.uncertain, part.draining, part.quiet) = (None, true, false, false);
        true
    }

    /// It did so, and its manifest holds again.
    pub(crate) fn amend(&mut self, from: PeerId, key: TransferKey, amend: &Amend, effects: &mut Vec<Effect>) {
        let Some(part) = self.part(key, from) else { return };
        let Some(mut manifest) = part.recalled.take() else { return };
        let amended = manifest.amend(amend);
        part.announced = Some(manifest.writes);
        part.manifest = Some(manifest);
        self.drain_uncertain(key, from, effects);
        match amended {
            Ok(()) => self.judge(key, effects),
            Err(error) if self.live(key).is_some() => {
                self.fail(key, Failure { error, reason: "the manifest is wrong", ended: None }, effects);
            }
            Err(_) => {}
        }
    }

    /// Writes of a sender failed on their way before now, and may land until the fabric is drained.
    fn drain_uncertain(&mut self, key: TransferKey, sender: PeerId, effects: &mut Vec<Effect>) {
        if let Some(part) = self.part(key, sender) {
            (part.uncertain, part.draining, part.quiet) = (true, true, false);
            effects.push(Effect::Drain { key, sender, stray: None });
        }
    }

    /// A sender will not write any more. It says which writes it made, if it knows: of a write that failed it does not. The
    /// fence waits for all of them, or for the drain: a completion at the sender may come before the arrival here.
    pub(crate) fn withdrawn(
        &mut self,
        from: PeerId,
        key: TransferKey,
        withdrawn: &Withdrawn,
        effects: &mut Vec<Effect>,
    ) {
        if self.part(key, from).is_none() {
            return;
        }
        if self.live(key).is_some() {
            let reason = withdrawn.reason.chars().take(MAX_REASON_CHARS).collect();
            let error = TransferError::AbortedByPeer { reason };
            let failure = Failure { error, reason: "another sender gave up", ended: Some(from) };
            self.fail(key, failure, effects);
        }
        // Its slot may be free by now.
        let Some(part) = self.part(key, from) else { return };
        part.withdrawn = true;
        part.announced = withdrawn.writes.or(part.announced);
        part.quiet |= part.announced == Some(part.arrived);
        if !part.quiet && !std::mem::replace(&mut part.draining, true) {
            effects.push(Effect::Drain { key, sender: from, stray: None });
        }
        self.lift_if_quiet(key, effects);
    }

    /// Gives a live transfer so long from now; `false` when it is over, or as good as lost.
    pub(crate) fn renew(&mut self, key: TransferKey, expires_in: Duration, now: Instant) -> bool {
        let Some(live) = self.live(key).filter(|live| live.lost.is_none()) else { return false };
        let (old, new) = (live.deadline, now + expires_in);
        (live.deadline, live.expires_in) = (new, new - live.started);
        self.deadlines.remove(&(old, key));
        self.deadlines.insert((new, key));
        true
    }

    /// This side gives up. Nothing happens if the transfer is over.
    pub(crate) fn abort(&mut self, key: TransferKey, effects: &mut Vec<Effect>) {
        if self.live(key).is_some() {
            let error = TransferError::Aborted;
            self.fail(key, Failure { error, reason: "the receiver aborted", ended: None }, effects);
        }
    }

    /// A peer's process is gone. Its parts are quiet once they are [drained](Self::peer_drained).
    pub(crate) fn peer_lost(&mut self, peer: PeerId, name: &str, effects: &mut Vec<Effect>) {
        for key in self.keys_of(peer) {
            let lost = TransferError::PeerLost { peer: name.to_owned() };
            let part = self.part(key, peer).expect("it is one of the peer's");
            (part.dead, part.withdrawn) = (true, true);
            let (whole, announced) = (part.is_whole(), part.manifest.is_some());
            match self.state(key) {
                // Its part is done; the others go on.
                Some(State::Live(_)) if whole => {}
                Some(State::Live(live)) if announced => drop(live.lost.get_or_insert(lost)),
                Some(State::Live(_)) => {
                    let failure = Failure { error: lost, reason: "another sender died", ended: Some(peer) };
                    self.fail(key, failure, effects);
                }
                _ => {}
            }
        }
    }

    /// What a dead peer wrote is here, or lost: the data thread has disconnected it, and found nothing more of it.
    pub(crate) fn peer_drained(&mut self, peer: PeerId, effects: &mut Vec<Effect>) {
        for key in self.keys_of(peer) {
            let part = self.part(key, peer).expect("it is one of the peer's");
            debug_assert!(part.dead, "a peer is drained after its death");
            part.quiet = true;
            let whole = part.is_whole();
            if let Some(live) = self.live(key).filter(|_| !whole) {
                let name = TransferError::PeerLost { peer: "a sender".to_owned() };
                let error = live.lost.take().unwrap_or(name);
                let failure = Failure { error, reason: "another sender died", ended: Some(peer) };
                self.fail(key, failure, effects);
            }
            self.lift_if_quiet(key, effects);
        }
    }

    /// What a sender wrote to a transfer to which it writes no more is here, or lost: the data thread found nothing more of it.
    pub(crate) fn part_drained(&mut self, key: TransferKey, sender: PeerId, effects: &mut Vec<Effect>) {
        if let Some(part) = self.part(key, sender).filter(|part| part.withdrawn || part.has_announced()) {
            part.quiet = true;
            self.judge(key, effects);
            self.lift_if_quiet(key, effects);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Fails what is overdue. No fence is lifted by time.
    pub(crate) fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some(&(at, key)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, key));
            match self.state(key) {
                Some(State::Live(live)) => {
                    let announced = live.parts.iter().filter(|part| part.manifest.is_some()).count();
                    let manifest = if announced == live.needed { "here" } else { "missing" };
                    let arrived = live.parts.iter().map(|part| part.arrived.writes).sum();
                    let expired = TransferError::Expired { after: live.expires_in, arrived, manifest };
                    let error = live.lost.take().unwrap_or(expired);
                    self.fail(key, Failure { error, reason: "the transfer expired", ended: None }, effects);
                }
                _ => debug_assert!(false, "a deadline of {key}, which is not live, stayed behind"),
            }
        }
    }

    /// Refuses new transfers and aborts all; a failure of the data plane is known even after that.
    pub(crate) fn close(&mut self, failure: Option<DataPlaneFailed>, effects: &mut Vec<Effect>) {
        self.closed = true;
        self.failure = self.failure.take().or(failure);
        for key in self.keys(|state| matches!(state, State::Live(_))) {
            let (error, reason) =
                (TransferError::ended(self.failure.clone()), "the receiver is shutting down");
            self.fail(key, Failure { error, reason, ended: None }, effects);
        }
    }
}
