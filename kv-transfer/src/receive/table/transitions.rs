//! What follows: completion, failure, fences, release; and the ownership of blocks.

use super::parts::Part;
use super::{Effect, Failure, Fenced, Live, ReceiveTable, State};
use crate::ids::{PeerId, Slot, TransferKey};
use crate::receive::Arrival;
use crate::{ExpectError, TransferError};

impl ReceiveTable {
    /// Completes a transfer whose announced writes are all here; fails one with as many that are not those.
    pub(super) fn judge(&mut self, key: TransferKey, effects: &mut Vec<Effect>) {
        let Some(live) = self.live(key) else { return };
        if let Some(part) = live.parts.iter().find(|part| part.is_wrong()) {
            let announced = part.announced.map_or(0, |announced| announced.writes);
            let error = TransferError::Arrivals { arrived: part.arrived.writes, announced };
            return self.fail(key, Failure { error, reason: "the arrivals are wrong", ended: None }, effects);
        }
        if live.parts.len() == live.needed && live.parts.iter().all(Part::is_whole) {
            self.complete(key, effects);
        }
    }

    fn complete(&mut self, key: TransferKey, effects: &mut Vec<Effect>) {
        let State::Live(mut live) = self.release(key) else { unreachable!("only a live transfer completes") };
        self.take_chunks(&mut live.parts, effects);
        self.deadlines.remove(&(live.deadline, key));
        let manifests = live.parts.into_iter().filter_map(|part| part.manifest).collect();
        live.cell.settle(Ok(Arrival { manifests, duration: live.started.elapsed() }));
        effects.push(Effect::Quiet(live.cell));
    }

    pub(super) fn fail(&mut self, key: TransferKey, failure: Failure, effects: &mut Vec<Effect>) {
        let Failure { error, reason, ended } = failure;
        let counter = if error == TransferError::Aborted {
            &self.counters.incoming_aborted
        } else {
            &self.counters.incoming_failed
        };
        counter.add(1);
        let entry = &mut self.slots[key.slot.index()];
        let State::Live(live) = std::mem::replace(&mut entry.state, State::Free) else {
            unreachable!("only a live transfer fails")
        };
        let Live { cell, parts, deadline, .. } = live;
        entry.state = State::Fenced(Fenced { cell: cell.clone(), parts });
        self.deadlines.remove(&(deadline, key));
        self.counters.quarantined_blocks.add(cell.blocks.len() as u64);
        self.fence(key, reason, ended, effects);
        cell.settle(Err(error));
        self.lift_if_quiet(key, effects);
    }

    /// Finds out what each sender of a transfer that just failed may still write.
    fn fence(&mut self, key: TransferKey, reason: &str, ended: Option<PeerId>, effects: &mut Vec<Effect>) {
        let Some(State::Fenced(fenced)) = self.state(key) else { return };
        for part in &mut fenced.parts {
            part.quiet |= part.is_whole();
            // A sender that is gone answers nobody.
            part.withdrawn |= part.dead || ended == Some(part.sender);
            if !part.quiet && !part.withdrawn {
                effects.push(Effect::TellAbort { peer: part.sender, key, reason: reason.to_owned() });
            }
        }
    }

    /// Ends a fence that nobody needs any more.
    pub(super) fn lift_if_quiet(&mut self, key: TransferKey, effects: &mut Vec<Effect>) {
        match self.state(key) {
            Some(State::Fenced(fenced)) if fenced.parts.iter().all(Part::is_quiet) => {}
            _ => return,
        }
        let State::Fenced(mut fenced) = self.release(key) else { unreachable!("only a fence is lifted") };
        self.take_chunks(&mut fenced.parts, effects);
        self.counters.quarantined_blocks.sub(fenced.cell.blocks.len() as u64);
        effects.push(Effect::Quiet(fenced.cell));
    }

    /// Takes back what was granted and never used.
    fn take_chunks(&mut self, parts: &mut [Part], effects: &mut Vec<Effect>) {
        for staged in parts.iter_mut().filter_map(|part| part.staged.take()) {
            self.take_back(staged);
        }
        self.grant(effects);
    }

    /// Frees the slots and the blocks of a transfer.
    fn release(&mut self, key: TransferKey) -> State {
        debug_assert_eq!(self.slots[key.slot.index()].generation, key.generation, "released as itself");
        let state = self.give_back_slot(key.slot);
        let (cell, parts) = match &state {
            State::Live(live) => (&live.cell, &live.parts),
            State::Fenced(fenced) => (&fenced.cell, &fenced.parts),
            State::Free | State::PartOf(_) => unreachable!("only a transfer is released"),
        };
        for part in parts.iter().filter(|part| part.arrivals != key) {
            let counted = self.give_back_slot(part.arrivals.slot);
            debug_assert!(matches!(counted, State::PartOf(of) if of == key), "a part's slot is its own");
        }
        let cell = cell.clone();
        self.unclaim(&cell.blocks);
        state
    }

    pub(crate) fn unclaim(&mut self, blocks: &[u32]) {
        for &block in blocks {
            debug_assert!(self.busy[block as usize], "block {block} was owned");
            self.busy[block as usize] = false;
        }
    }

    /// Whether a sequence of `tokens` can lie in `blocks`, whoever owns them.
    pub(crate) fn check(&self, blocks: &[u32], tokens: u32) -> Result<(), ExpectError> {
        let limit = self.rules.blocks_per_transfer;
        if blocks.is_empty() {
            return Err(ExpectError::Empty);
        }
        if blocks.len() > limit {
            return Err(ExpectError::TooManyBlocks { blocks: blocks.len(), limit });
        }
        let needed = self.rules.geometry.layout.blocks_for(tokens);
        if blocks.len() != needed as usize {
            return Err(ExpectError::WrongBlocks { tokens, blocks: blocks.len(), needed });
        }
        let pool = self.rules.geometry.blocks;
        if let Some(&block) = blocks.iter().find(|&&block| block >= pool) {
            return Err(ExpectError::NoSuchBlock { block, blocks: pool });
        }
        Ok(())
    }

    /// Marks the blocks as owned by a transfer, all or none.
    pub(crate) fn claim(&mut self, blocks: &[u32], tokens: u32) -> Result<(), ExpectError> {
        self.check(blocks, tokens)?;
        let busy = |&&block: &&u32| self.busy[block as usize];
        if let Some(&block) = blocks.iter().find(busy) {
            return Err(ExpectError::BlockBusy { block });
        }
        for (i, &block) in blocks.iter().enumerate() {
            if std::mem::replace(&mut self.busy[block as usize], true) {
                blocks[..i].iter().for_each(|&block| self.busy[block as usize] = false);
                return Err(ExpectError::DuplicateBlock { block });
            }
        }
        Ok(())
    }

    /// The state of exactly this generation of the slot.
    pub(super) fn state(&mut self, key: TransferKey) -> Option<&mut State> {
        self.slots.get_mut(key.slot.index()).filter(|e| e.generation == key.generation).map(|e| &mut e.state)
    }

    pub(super) fn live(&mut self, key: TransferKey) -> Option<&mut Live> {
        match self.state(key) {
            Some(State::Live(live)) => Some(live),
            _ => None,
        }
    }

    /// A sender's part of a transfer, live or fenced.
    pub(super) fn part(&mut self, key: TransferKey, sender: PeerId) -> Option<&mut Part> {
        let parts = match self.state(key)? {
            State::Live(live) => &mut live.parts,
            State::Fenced(fenced) => &mut fenced.parts,
            State::Free | State::PartOf(_) => return None,
        };
        parts.iter_mut().find(|part| part.sender == sender)
    }

    pub(super) fn keys(&self, wanted: impl Fn(&State) -> bool) -> Vec<TransferKey> {
        let named = self.slots.iter().enumerate().filter(|(_, entry)| wanted(&entry.state));
        named
            .filter_map(|(i, e)| {
                Some(TransferKey { slot: Slot::try_new(i as u32)?, generation: e.generation })
            })
            .collect()
    }

    pub(super) fn keys_of(&self, peer: PeerId) -> Vec<TransferKey> {
        let of = |parts: &[Part]| parts.iter().any(|part| part.sender == peer);
        self.keys(|state| match state {
            State::Free | State::PartOf(_) => false,
            State::Live(live) => of(&live.parts),
            State::Fenced(fenced) => of(&fenced.parts),
        })
    }
}
