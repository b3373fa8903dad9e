//! What follows: completion, failure, fences, release; and the ownership of blocks.

use tokio::time::Instant;

use super::{Effect, Fence, Fenced, Live, ReceiveTable, State};
use crate::ids::{PeerId, Slot, TransferKey};
use crate::receive::Arrival;
use crate::{ExpectError, TransferError};

impl ReceiveTable {
    /// Completes a transfer whose announced writes are all here; fails one with as many that are not those.
    pub(super) fn judge(&mut self, key: TransferKey, effects: &mut Vec<Effect>) {
        let Some(live) = self.live(key) else { return };
        let (Some(manifest), arrived) = (&live.manifest, live.arrived) else { return };
        let announced = manifest.writes;
        if arrived == announced {
            self.complete(key, effects);
        } else if arrived.writes >= announced.writes {
            let (arrived, announced) = (arrived.writes, announced.writes);
            let error = TransferError::Arrivals { arrived, announced };
            self.fail(key, error, Fence::Told("the arrivals are wrong"), effects);
        }
    }

    fn complete(&mut self, key: TransferKey, effects: &mut Vec<Effect>) {
        let State::Live(live) = self.release(key) else { unreachable!("only a live transfer completes") };
        let manifest = live.manifest.expect("a transfer completes with its manifest");
        debug_assert_eq!(manifest.writes, live.arrived, "complete means counted");
        self.deadlines.remove(&(live.deadline, key));
        live.cell.settle(Ok(Arrival { manifest, duration: live.started.elapsed() }));
        effects.push(Effect::Quiet(live.cell));
    }

    pub(super) fn fail(
        &mut self,
        key: TransferKey,
        error: TransferError,
        fence: Fence,
        effects: &mut Vec<Effect>,
    ) {
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
        self.deadlines.remove(&(live.deadline, key));
        let blocks = live.cell.blocks.len() as u64;
        let Some(sender) = live.sender else {
            entry.state = State::Live(live);
            let State::Live(live) = self.release(key) else { unreachable!("just put back") };
            live.cell.settle(Err(error));
            return effects.push(Effect::Quiet(live.cell));
        };
        // A sender that is gone answers nobody.
        let fence = live.lost.as_ref().map_or(fence, |&(_, drained)| Fence::Drained(drained));
        let announced = live.manifest.as_ref().map(|manifest| manifest.writes);
        let cell = live.cell;
        let (arrived, withdrawn) = (live.arrived, matches!(fence, Fence::Drained(_)));
        entry.state = State::Fenced(Fenced {
            cell: cell.clone(),
            sender,
            arrived,
            announced,
            withdrawn,
            quiet_at: None,
        });
        self.counters.quarantined_blocks.add(blocks);
        match fence {
            Fence::Told(reason) => {
                effects.push(Effect::TellAbort { peer: sender, key, reason: reason.to_owned() })
            }
            Fence::Drained(at) if self.rules.drain.is_some() => self.lift_at(key, at),
            Fence::Drained(_) => self.lift(key, effects),
        }
        cell.settle(Err(error));
    }

    /// Ends a fence.
    pub(super) fn lift(&mut self, key: TransferKey, effects: &mut Vec<Effect>) {
        let State::Fenced(fenced) = self.release(key) else { unreachable!("only a fence is lifted") };
        if let Some(at) = fenced.quiet_at {
            self.deadlines.remove(&(at, key));
        }
        self.counters.quarantined_blocks.sub(fenced.cell.blocks.len() as u64);
        effects.push(Effect::Quiet(fenced.cell));
    }

    pub(super) fn lift_at(&mut self, key: TransferKey, at: Instant) {
        let Some(State::Fenced(fenced)) = self.state(key) else { return };
        if fenced.quiet_at.is_none() {
            fenced.quiet_at = Some(at);
            self.deadlines.insert((at, key));
        }
    }

    /// Frees the slot and its blocks.
    fn release(&mut self, key: TransferKey) -> State {
        let entry = &mut self.slots[key.slot.index()];
        debug_assert_eq!(entry.generation, key.generation, "a slot is released under its own generation");
        let state = std::mem::replace(&mut entry.state, State::Free);
        let (cell, attached) = match &state {
            State::Live(live) => (&live.cell, live.sender.is_some()),
            State::Fenced(fenced) => (&fenced.cell, true),
            State::Free => unreachable!("a free slot is not released"),
        };
        self.attached -= usize::from(attached);
        for &block in &cell.blocks {
            debug_assert!(self.busy[block as usize], "block {block} was owned by {key}");
            self.busy[block as usize] = false;
        }
        self.free.push_back(key.slot);
        self.counters.incoming_live.sub(1);
        state
    }

    /// Marks the blocks as owned by a transfer, all or none.
    pub(super) fn claim(&mut self, blocks: &[u32]) -> Result<(), ExpectError> {
        let limit = self.rules.blocks_per_transfer;
        if blocks.is_empty() {
            return Err(ExpectError::Empty);
        }
        if blocks.len() > limit {
            return Err(ExpectError::TooManyBlocks { blocks: blocks.len(), limit });
        }
        let pool = self.rules.geometry.blocks;
        if let Some(&block) = blocks.iter().find(|&&block| block >= pool) {
            return Err(ExpectError::NoSuchBlock { block, blocks: pool });
        }
        if let Some(&block) = blocks.iter().find(|&&block| self.busy[block as usize]) {
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

    pub(super) fn keys(&self, wanted: impl Fn(&State) -> bool) -> Vec<TransferKey> {
        let named = self.slots.iter().enumerate().filter(|(_, entry)| wanted(&entry.state));
        named
            .filter_map(|(i, e)| {
                Some(TransferKey { slot: Slot::try_new(i as u32)?, generation: e.generation })
            })
            .collect()
    }

    pub(super) fn keys_of(&self, peer: PeerId) -> Vec<TransferKey> {
        self.keys(|state| match state {
            State::Free => false,
            State::Live(live) => live.sender == Some(peer),
            State::Fenced(fenced) => fenced.sender == peer,
        })
    }
}
