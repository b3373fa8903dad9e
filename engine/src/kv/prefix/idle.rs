//! Cached blocks that nobody uses now, in the order in which they are evicted: a list through the blocks themselves, so that
//! each operation takes the same time however many there are.

use crate::kv::BlockId;

/// The oldest is evicted first. A block that comes back while it waits is taken out of the middle.
///
/// A lease gives its blocks back from the last to the first, and whoever uses a block uses all before it. So a parent is
/// always younger here than its children, and the oldest block is one without children.
pub(in crate::kv) struct IdleBlocks {
    /// Neighbours by block; the entry after the last block is the list's head and tail.
    links: Vec<Link>,
    len: usize,
}

#[derive(Clone, Copy)]
struct Link {
    older: u32,
    younger: u32,
}

impl IdleBlocks {
    /// None yet, of a pool of `total` blocks.
    pub(in crate::kv) fn of_pool(total: usize) -> Self {
        let own = |i: usize| u32::try_from(i).expect("block ids are 32 bits");
        let links = (0..=total).map(|i| Link { older: own(i), younger: own(i) }).collect();
        Self { links, len: 0 }
    }

    pub(in crate::kv) fn len(&self) -> usize {
        self.len
    }

    /// As the youngest.
    pub(in crate::kv) fn push(&mut self, block: BlockId) {
        let end = self.end();
        let youngest = self.links[end as usize].older;
        self.links[block.0 as usize] = Link { older: youngest, younger: end };
        self.links[youngest as usize].younger = block.0;
        self.links[end as usize].older = block.0;
        self.len += 1;
    }

    pub(in crate::kv) fn remove(&mut self, block: BlockId) {
        let Link { older, younger } = self.links[block.0 as usize];
        debug_assert_ne!(older, block.0, "{block:?} is in use");
        self.links[older as usize].younger = younger;
        self.links[younger as usize].older = older;
        self.links[block.0 as usize] = Link { older: block.0, younger: block.0 };
        self.len -= 1;
    }

    pub(in crate::kv) fn pop_oldest(&mut self) -> Option<BlockId> {
        let oldest = BlockId(self.links[self.end() as usize].younger);
        if oldest.0 == self.end() {
            return None;
        }
        self.remove(oldest);
        Some(oldest)
    }

    fn end(&self) -> u32 {
        // The number of links fits, or there were no ids for the blocks.
        self.links.len() as u32 - 1
    }
}
