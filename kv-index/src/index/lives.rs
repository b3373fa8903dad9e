//! Numbers for the lives of workers' caches, and for those whose hashes are told apart.

use crate::{WorkerId, holders::Life};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Alive,
    /// Ended, but what it held is still there; counts as nothing.
    Dead,
    /// What it held is being taken out now.
    Leaving,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    worker: WorkerId,
    blocks: u32,
}

/// All lives, by number; 0 is none.
pub(crate) struct Lives {
    entries: Vec<Entry>,
    free: Vec<Life>,
    dead: usize,
}

impl Lives {
    pub(crate) fn new() -> Self {
        let none = Entry { state: State::Free, worker: WorkerId(0), blocks: 0 };
        Self { entries: vec![none], free: Vec::new(), dead: 0 }
    }

    /// Another one, unless all numbers are in use.
    pub(crate) fn begin(&mut self, worker: WorkerId) -> Option<Life> {
        let entry = Entry { state: State::Alive, worker, blocks: 0 };
        if let Some(life) = self.free.pop() {
            self.entries[usize::from(life)] = entry;
            return Some(life);
        }
        let life = Life::try_from(self.entries.len()).ok()?;
        self.entries.push(entry);
        Some(life)
    }

    /// From now on it counts as nothing.
    pub(crate) fn end(&mut self, life: Life) {
        debug_assert_eq!(self.entries[usize::from(life)].state, State::Alive);
        self.entries[usize::from(life)].state = State::Dead;
        self.dead += 1;
    }

    /// The worker whose life it is, if it has not ended.
    #[inline]
    pub(crate) fn worker(&self, life: Life) -> Option<WorkerId> {
        let entry = &self.entries[usize::from(life)];
        (entry.state == State::Alive).then_some(entry.worker)
    }

    #[inline]
    pub(crate) fn blocks_mut(&mut self, life: Life) -> &mut u32 {
        &mut self.entries[usize::from(life)].blocks
    }

    pub(crate) fn blocks(&self, life: Life) -> u32 {
        self.entries[usize::from(life)].blocks
    }

    /// Lives that ended and wait for [`Self::let_go`].
    pub(crate) fn dead(&self) -> usize {
        self.dead
    }

    /// What the dead ones held is going to be taken out.
    pub(crate) fn let_go(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.state == State::Dead) {
            entry.state = State::Leaving;
        }
        self.dead = 0;
    }

    pub(crate) fn is_leaving(&self, life: Life) -> bool {
        self.entries[usize::from(life)].state == State::Leaving
    }

    /// It was; their numbers can be used again.
    pub(crate) fn gone(&mut self) {
        for (life, entry) in self.entries.iter_mut().enumerate() {
            if entry.state == State::Leaving {
                entry.state = State::Free;
                self.free.push(life as Life);
            }
        }
    }
}
