//! Chunks: who may write which, in turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Effect, Failure, ReceiveTable, Scatter, State};
use crate::TransferError;
use crate::ids::{PeerId, Sequence, TransferKey};
use crate::staging::CHUNKS_AHEAD;

/// The chunks of this node, and who waits for one.
#[derive(Debug)]
pub(super) struct Chunks {
    free: Vec<u32>,
    /// In turn; each sender of a transfer stands here at most once.
    waiting: VecDeque<(TransferKey, PeerId)>,
}

/// A sender's chunks.
#[derive(Debug, Default)]
pub(super) struct Staged {
    /// Asked for, and not granted yet.
    wanted: u32,
    /// Granted in all.
    granted: u32,
    /// By the number of the write for which each was granted.
    held: BTreeMap<u32, u32>,
    /// Numbers of writes that failed on their way, until those cannot land any more.
    strays: BTreeSet<u32>,
    /// Landed, and not in the blocks yet.
    pub(super) scattering: u32,
}

impl Chunks {
    pub(super) fn new(count: u32) -> Self {
        Self { free: (0..count).collect(), waiting: VecDeque::new() }
    }
}

#[cfg(test)]
impl Chunks {
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }
}

impl Staged {
    /// An earlier write of this number, which is one of 512, may land yet.
    fn is_taken(&self, number: u32) -> bool {
        self.held.contains_key(&number) || self.strays.contains(&number)
    }

    /// All chunks that it has, when it is over.
    pub(super) fn into_chunks(self) -> impl Iterator<Item = u32> {
        debug_assert_eq!(self.scattering, 0, "a transfer ends when its chunks are scattered");
        self.held.into_values()
    }
}

impl ReceiveTable {
    /// A sender could fill so many more chunks.
    pub(crate) fn want(&mut self, from: PeerId, key: TransferKey, chunks: u32, effects: &mut Vec<Effect>) {
        if self.live(key).is_none() {
            return;
        }
        let Some(staged) = self.part(key, from).and_then(|part| part.staged.as_mut()) else { return };
        let waits = staged.wanted > 0;
        // Whoever asks for more than it may, waits longer.
        staged.wanted = (staged.wanted + chunks.min(CHUNKS_AHEAD)).min(CHUNKS_AHEAD);
        if !waits && staged.wanted > 0 {
            self.chunks.waiting.push_back((key, from));
        }
        self.grant(effects);
    }

    /// Grants free chunks to those that wait, one each in turn.
    pub(super) fn grant(&mut self, effects: &mut Vec<Effect>) {
        let mut put_off = Vec::new();
        while let Some(&chunk) = self.chunks.free.last() {
            let Some((key, peer)) = self.chunks.waiting.pop_front() else { break };
            if self.live(key).is_none() {
                continue;
            }
            let Some(staged) = self.part(key, peer).and_then(|part| part.staged.as_mut()) else { continue };
            let number = Sequence::of(staged.granted).number();
            if staged.is_taken(number) {
                put_off.push((key, peer));
                continue;
            }
            staged.held.insert(number, chunk);
            staged.granted += 1;
            staged.wanted -= 1;
            let wants_more = staged.wanted > 0;
            self.chunks.free.pop();
            if wants_more {
                self.chunks.waiting.push_back((key, peer));
            }
            effects.push(Effect::Grant { peer, key, chunk });
        }
        self.chunks.waiting.extend(put_off);
    }

    /// A chunk's write failed on its way: its chunk is free when that cannot land any more.
    pub(crate) fn stray(&mut self, from: PeerId, key: TransferKey, sequence: u32, effects: &mut Vec<Effect>) {
        let staged = self.part(key, from).and_then(|part| part.staged.as_mut());
        let new = |staged: &mut Staged| staged.held.contains_key(&sequence) && staged.strays.insert(sequence);
        if staged.is_some_and(new) {
            effects.push(Effect::Drain { key, sender: from, stray: Some(sequence) });
        }
    }

    /// It cannot; and if it did not, its chunk is granted anew.
    pub(crate) fn stray_drained(
        &mut self,
        key: TransferKey,
        sender: PeerId,
        sequence: u32,
        effects: &mut Vec<Effect>,
    ) {
        let staged = self.part(key, sender).and_then(|part| part.staged.as_mut());
        let chunk = staged.and_then(|staged| {
            staged.strays.remove(&sequence);
            staged.held.remove(&sequence)
        });
        self.chunks.free.extend(chunk);
        self.grant(effects);
    }

    pub(super) fn take_back(&mut self, staged: Staged) {
        self.chunks.free.extend(staged.into_chunks());
    }

    /// A staged write of a live transfer landed: what is to be scattered, if it was granted.
    pub(super) fn chunk_landed(
        &mut self,
        key: TransferKey,
        sender: PeerId,
        sequence: Sequence,
    ) -> Option<Scatter> {
        let part = self.part(key, sender)?;
        let conversion = part.conversion.clone();
        let staged = part.staged.as_mut()?;
        let chunk = staged.held.remove(&sequence.number())?;
        staged.scattering += 1;
        let Some(State::Live(live)) = self.state(key) else { return None };
        let (cell, tokens) = (live.cell.clone(), live.tokens);
        Some(Scatter { key, sender, sequence, chunk, cell, tokens, conversion })
    }

    /// A chunk is in the blocks, or was not what it should be.
    pub(crate) fn scattered(
        &mut self,
        scatter: &Scatter,
        outcome: Result<(), String>,
        effects: &mut Vec<Effect>,
    ) {
        let Scatter { key, sender, sequence, chunk, .. } = *scatter;
        self.chunks.free.push(chunk);
        let Some(part) = self.part(key, sender) else {
            debug_assert!(false, "a transfer ends when its chunks are scattered");
            return;
        };
        part.arrived.add(sequence);
        part.quiet |= part.withdrawn && part.announced == Some(part.arrived);
        if let Some(staged) = &mut part.staged {
            staged.scattering -= 1;
        }
        if self.live(key).is_none() {
            self.lift_if_quiet(key, effects);
        } else if let Err(reason) = outcome {
            let error = TransferError::Staging { reason };
            self.fail(key, Failure { error, reason: "a chunk is wrong", ended: None }, effects);
        } else {
            self.judge(key, effects);
        }
        self.grant(effects);
    }
}
