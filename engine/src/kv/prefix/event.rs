//! What others are told about the prefix cache, so that they can tell which prompts find something here.

use std::sync::Arc;

use super::CacheScope;

/// A change of the prefix cache. Blocks are named by the hash of all tokens up to their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheEvent {
    /// Blocks that follow one another were added.
    Stored {
        /// One a block.
        hashes: Vec<u64>,
        /// The block before the first one; `None` at the beginning of a sequence.
        parent: Option<u64>,
        /// Of all the blocks together.
        tokens: Vec<u32>,
        /// Who may use them.
        scope: Option<Arc<CacheScope>>,
    },
    /// Blocks were evicted, in this order.
    Removed {
        /// One a block.
        hashes: Vec<u64>,
    },
    /// Nothing is cached any more.
    Cleared,
}

/// Events that nobody has taken yet; neighbours are joined.
pub(in crate::kv) struct EventLog {
    /// Nobody would ever take them when not.
    is_kept: bool,
    events: Vec<CacheEvent>,
}

impl EventLog {
    pub(in crate::kv) fn new(is_kept: bool) -> Self {
        Self { is_kept, events: Vec::new() }
    }

    pub(in crate::kv) fn stored(
        &mut self,
        hash: u64,
        after: Option<u64>,
        new: &[u32],
        of: Option<&Arc<CacheScope>>,
    ) {
        if !self.is_kept {
            return;
        }
        match self.events.last_mut() {
            Some(CacheEvent::Stored { hashes, tokens, scope, .. })
                if after.is_some() && hashes.last().copied() == after && scope.as_ref() == of =>
            {
                hashes.push(hash);
                tokens.extend(new);
            }
            _ => self.events.push(CacheEvent::Stored {
                hashes: vec![hash],
                parent: after,
                tokens: new.to_vec(),
                scope: of.cloned(),
            }),
        }
    }

    pub(in crate::kv) fn removed(&mut self, hash: u64) {
        match self.events.last_mut() {
            _ if !self.is_kept => {}
            Some(CacheEvent::Removed { hashes }) => hashes.push(hash),
            _ => self.events.push(CacheEvent::Removed { hashes: vec![hash] }),
        }
    }

    pub(in crate::kv) fn cleared(&mut self) {
        if self.is_kept {
            self.events.push(CacheEvent::Cleared);
        }
    }

    pub(in crate::kv) fn take(&mut self) -> Vec<CacheEvent> {
        std::mem::take(&mut self.events)
    }
}
