//! Which block holds which tokens after which other block.

use std::{collections::HashMap, sync::Arc};

use twox_hash::XxHash3_64;

use super::CacheScope;
use crate::kv::BlockId;

/// At most one node a block of the pool.
pub(in crate::kv) struct PrefixIndex {
    nodes: Vec<Option<Node>>,
    by_hash: HashMap<u64, BlockId>,
}

struct Node {
    hash: u64,
    parent: Option<BlockId>,
    children: u32,
    tokens: Box<[u32]>,
    scope: Option<Arc<CacheScope>>,
}

/// What came of adding a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kv) enum Stored {
    /// It is found from now on, under this hash, after the parent's.
    New { hash: u64, parent: Option<u64> },
    /// This other block holds the same.
    Already(BlockId),
    /// Its parent is not in the index, or another beginning has the same hash.
    Refused,
}

impl PrefixIndex {
    /// Empty, for a pool of `total` blocks.
    pub(in crate::kv) fn of_pool(total: usize) -> Self {
        Self { nodes: (0..total).map(|_| None).collect(), by_hash: HashMap::new() }
    }

    pub(in crate::kv) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(in crate::kv) fn contains(&self, block: BlockId) -> bool {
        self.node(block).is_some()
    }

    /// The block that holds `tokens` after `parent`.
    pub(in crate::kv) fn find(
        &self,
        parent: Option<BlockId>,
        scope: Option<&Arc<CacheScope>>,
        tokens: &[u32],
    ) -> Option<BlockId> {
        let hash = chain(self.hash_of(parent, scope)?, tokens);
        let found = *self.by_hash.get(&hash)?;
        self.is_same(found, parent, scope, tokens).then_some(found)
    }

    /// Adds `block`, which holds `tokens` after `parent`.
    pub(in crate::kv) fn store(
        &mut self,
        parent: Option<BlockId>,
        scope: Option<&Arc<CacheScope>>,
        tokens: &[u32],
        block: BlockId,
    ) -> Stored {
        debug_assert!(!self.contains(block), "{block:?} is stored once");
        let Some(parent_hash) = self.hash_of(parent, scope) else { return Stored::Refused };
        let hash = chain(parent_hash, tokens);
        if let Some(&found) = self.by_hash.get(&hash) {
            return if self.is_same(found, parent, scope, tokens) {
                Stored::Already(found)
            } else {
                Stored::Refused
            };
        }
        self.by_hash.insert(hash, block);
        self.nodes[block.0 as usize] =
            Some(Node { hash, parent, children: 0, tokens: tokens.into(), scope: scope.cloned() });
        if let Some(parent) = parent.and_then(|parent| self.nodes[parent.0 as usize].as_mut()) {
            parent.children += 1;
        }
        Stored::New { hash, parent: parent.map(|_| parent_hash) }
    }

    /// Forgets a block without children; its hash.
    pub(in crate::kv) fn remove(&mut self, block: BlockId) -> Option<u64> {
        let node = self.nodes[block.0 as usize].take()?;
        debug_assert_eq!(node.children, 0, "{block:?} is evicted before its children");
        self.by_hash.remove(&node.hash);
        if let Some(parent) = node.parent.and_then(|parent| self.nodes[parent.0 as usize].as_mut()) {
            parent.children -= 1;
        }
        Some(node.hash)
    }

    /// Visits all blocks, each after its parent and chains in one piece: hash, parent's hash, tokens, scope.
    pub(in crate::kv) fn each(
        &self,
        mut visit: impl FnMut(u64, Option<u64>, &[u32], Option<&Arc<CacheScope>>),
    ) {
        let mut children: HashMap<Option<BlockId>, Vec<BlockId>> = HashMap::new();
        for &block in self.by_hash.values() {
            let parent = self.node(block).and_then(|node| node.parent);
            children.entry(parent).or_default().push(block);
        }
        let mut open = children.remove(&None).unwrap_or_default();
        while let Some(block) = open.pop() {
            let Some(node) = self.node(block) else { continue };
            let parent = node.parent.and_then(|parent| self.node(parent)).map(|parent| parent.hash);
            visit(node.hash, parent, &node.tokens, node.scope.as_ref());
            open.extend(children.remove(&Some(block)).unwrap_or_default());
        }
    }

    /// Forgets everything.
    pub(in crate::kv) fn clear(&mut self) {
        for block in std::mem::take(&mut self.by_hash).into_values() {
            self.nodes[block.0 as usize] = None;
        }
    }

    /// Where the hash chain stands after `parent`; `None` when that is not in the index.
    fn hash_of(&self, parent: Option<BlockId>, scope: Option<&Arc<CacheScope>>) -> Option<u64> {
        match parent {
            None => Some(CacheScope::seed(scope.map(Arc::as_ref))),
            Some(parent) => self.node(parent).map(|node| node.hash),
        }
    }

    fn is_same(
        &self,
        found: BlockId,
        parent: Option<BlockId>,
        scope: Option<&Arc<CacheScope>>,
        tokens: &[u32],
    ) -> bool {
        self.node(found).is_some_and(|node| {
            node.parent == parent && *node.tokens == *tokens && node.scope.as_ref() == scope
        })
    }

    fn node(&self, block: BlockId) -> Option<&Node> {
        self.nodes[block.0 as usize].as_ref()
    }
}

/// Hash of a beginning from the hash of what is before its last block.
fn chain(parent: u64, tokens: &[u32]) -> u64 {
    let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
    XxHash3_64::oneshot_with_seed(parent, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_with_the_same_hash_is_not_taken_for_the_same_block() {
        let mut index = PrefixIndex::of_pool(4);
        let [other, new] = [BlockId(0), BlockId(1)];
        assert!(matches!(index.store(None, None, &[9, 9], other), Stored::New { .. }));
        // As if both beginnings had the same hash.
        index.by_hash.insert(chain(0, &[1, 2]), other);
        assert_eq!(index.find(None, None, &[1, 2]), None);
        assert_eq!(index.store(None, None, &[1, 2], new), Stored::Refused);
        assert!(!index.contains(new));
        assert_eq!(index.find(None, None, &[9, 9]), Some(other));
    }
}
