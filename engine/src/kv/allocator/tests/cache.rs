//! The prefix cache against a model of it: a map from beginnings to blocks, searched from end to end each time.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::kv::{Adapter, Duplicate};

const ON: CacheMode = CacheMode { is_on: true, keeps_events: true };
const BLOCK_TOKENS: usize = 2;
const BLOCKS: usize = 24;

#[derive(Clone, Debug)]
enum Op {
    /// A sequence of these tokens comes, takes what is cached, and blocks for the rest.
    Open(Vec<u32>),
    /// A sequence has computed so many more of its blocks.
    Store(usize, usize),
    /// A sequence looks whether somebody else has computed more of it.
    Share(usize),
    Drop(usize),
    Hold(usize),
    Release(usize),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    // Two tokens, so that beginnings meet and part everywhere.
    let tokens = prop::collection::vec(0_u32..2, 1..14);
    let one = 0_usize..6;
    prop_oneof![
        6 => tokens.prop_map(Op::Open),
        6 => (one.clone(), 1_usize..4).prop_map(|(i, blocks)| Op::Store(i, blocks)),
        2 => one.clone().prop_map(Op::Share),
        3 => one.clone().prop_map(Op::Drop),
        1 => one.clone().prop_map(Op::Hold),
        1 => one.prop_map(Op::Release),
        1 => prop::bool::weighted(0.05).prop_map(|clears| if clears { Op::Clear } else { Op::Drop(0) }),
    ]
}

/// A sequence, and how many of its blocks are cached.
struct Sequence {
    tokens: Vec<u32>,
    lease: BlockLease,
    stored: usize,
    is_cacheable: bool,
}

/// What is cached, by the tokens up to the end of the block.
#[derive(Default)]
struct Model {
    entries: BTreeMap<Vec<u32>, Entry>,
    by_hash: HashMap<u64, Vec<u32>>,
    now: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    block: BlockId,
    last_used: u64,
}

struct World {
    pool: BlockAllocator,
    sequences: Vec<Sequence>,
    held: Vec<HeldBlocks>,
    model: Model,
}

impl Sequence {
    fn prefix(&self) -> Prefix<'_> {
        Prefix { tokens: &self.tokens, block_tokens: BLOCK_TOKENS, scope: None }
    }

    fn share(&mut self) {
        let Self { tokens, lease, stored, .. } = self;
        *stored = lease.share_cached(*stored, &Prefix { tokens, block_tokens: BLOCK_TOKENS, scope: None });
    }
}

impl Model {
    /// Longest cached beginning of `tokens`, in blocks.
    fn longest(&self, tokens: &[u32]) -> usize {
        let blocks = tokens.len() / BLOCK_TOKENS;
        (0..blocks).take_while(|i| self.entries.contains_key(&tokens[..(i + 1) * BLOCK_TOKENS])).count()
    }

    /// The one to be evicted: of those without children that nobody uses, the one used longest ago.
    fn victim(&self, used: &BTreeSet<BlockId>) -> Option<Vec<u32>> {
        let is_leaf = |tokens: &[u32]| {
            !self.entries.keys().any(|other| other.len() > tokens.len() && other.starts_with(tokens))
        };
        let unused = self.entries.iter().filter(|(_, entry)| !used.contains(&entry.block));
        let leaves = unused.filter(|(tokens, _)| is_leaf(tokens));
        leaves.min_by_key(|(_, entry)| entry.last_used).map(|(tokens, _)| tokens.clone())
    }

    /// Notes that somebody let go of `ids`.
    fn let_go(&mut self, ids: &[BlockId]) {
        self.now += 1;
        for entry in self.entries.values_mut().filter(|entry| ids.contains(&entry.block)) {
            entry.last_used = self.now;
        }
    }
}

impl World {
    fn used(&self) -> BTreeSet<BlockId> {
        let leases = self.sequences.iter().flat_map(|sequence| sequence.lease.ids());
        leases.chain(self.held.iter().flat_map(HeldBlocks::ids)).copied().collect()
    }

    fn open(&mut self, tokens: Vec<u32>) {
        let mut sequence = Sequence { lease: self.pool.lease(), tokens, stored: 0, is_cacheable: true };
        let (cached, idle) = self.pool.probe(&sequence.prefix());
        assert_eq!(cached, self.model.longest(&sequence.tokens), "all that is cached is found");
        let used = self.used();
        sequence.share();
        assert_eq!(sequence.stored, cached);
        let fresh_of = |ids: &[BlockId]| ids.iter().filter(|id| !used.contains(id)).count();
        assert_eq!(fresh_of(sequence.lease.ids()), idle);
        let rest = sequence.tokens.len().div_ceil(BLOCK_TOKENS) - cached;
        let counts = self.pool.counts();
        let used = used.union(&sequence.lease.ids().iter().copied().collect()).copied().collect();
        let grown = sequence.lease.grow(rest);
        assert_eq!(grown.is_ok(), rest <= counts.available());
        if grown.is_ok() {
            self.expect_evictions(rest.saturating_sub(counts.free), &used);
            self.sequences.push(sequence);
        } else {
            let ids = sequence.lease.ids().to_vec();
            drop(sequence);
            self.let_go(&ids);
        }
    }

    /// So many blocks were evicted just now, and they were the right ones.
    fn expect_evictions(&mut self, count: usize, used: &BTreeSet<BlockId>) {
        let events = self.pool.take_events();
        let hashes: Vec<u64> = match events.as_slice() {
            [] => vec![],
            [CacheEvent::Removed { hashes }] => hashes.clone(),
            other => panic!("only evictions were expected: {other:?}"),
        };
        assert_eq!(hashes.len(), count);
        for hash in hashes {
            let victim = self.model.victim(used).expect("something can be evicted");
            assert_eq!(self.model.by_hash[&hash], victim, "the leaf that was used longest ago leaves first");
            self.model.entries.remove(&victim);
        }
    }

    fn store(&mut self, index: usize, blocks: usize) {
        let Some(sequence) = self.sequences.get_mut(index).filter(|sequence| sequence.is_cacheable) else {
            return;
        };
        let full = sequence.tokens.len() / BLOCK_TOKENS;
        let to = full.min(sequence.stored + blocks);
        let known = self.model.longest(&sequence.tokens).max(sequence.stored);
        let Sequence { tokens, lease, stored, .. } = sequence;
        let prefix = Prefix { tokens, block_tokens: BLOCK_TOKENS, scope: None };
        let before = lease.ids().to_vec();
        *stored = lease.store(*stored, to, &prefix, Duplicate::Free);
        assert_eq!(*stored, to);
        for i in 0..to {
            let beginning = tokens[..(i + 1) * BLOCK_TOKENS].to_vec();
            let entry = Entry { block: lease.ids()[i], last_used: 0 };
            let entry = *self.model.entries.entry(beginning).or_insert(entry);
            assert_eq!(lease.ids()[i], entry.block, "there is one block for each beginning");
            assert!(i < known || before[i] == entry.block, "a new entry is the sequence's own block");
        }
        for event in self.pool.take_events() {
            let CacheEvent::Stored { hashes, parent, tokens: new, scope: None } = event else {
                panic!("only additions were expected: {event:?}")
            };
            let mut beginning = parent.map_or(vec![], |parent| self.model.by_hash[&parent].clone());
            for (hash, tokens) in hashes.into_iter().zip(new.chunks_exact(BLOCK_TOKENS)) {
                beginning.extend(tokens);
                assert!(self.model.entries.contains_key(&beginning));
                self.model.by_hash.insert(hash, beginning.clone());
            }
        }
    }

    fn share(&mut self, index: usize) {
        let Some(sequence) = self.sequences.get_mut(index).filter(|sequence| sequence.is_cacheable) else {
            return;
        };
        let expected = self.model.longest(&sequence.tokens).max(sequence.stored);
        sequence.share();
        assert_eq!(sequence.stored, expected);
        for i in 0..expected {
            let beginning = &sequence.tokens[..(i + 1) * BLOCK_TOKENS];
            assert_eq!(self.model.entries[beginning].block, sequence.lease.ids()[i]);
        }
    }

    /// After the last user of `ids` has let go of them.
    fn let_go(&mut self, ids: &[BlockId]) {
        self.model.let_go(ids);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Open(tokens) => self.open(tokens),
            Op::Store(i, blocks) => self.store(i, blocks),
            Op::Share(i) => self.share(i),
            Op::Drop(i) if i < self.sequences.len() => {
                let sequence = self.sequences.swap_remove(i);
                let ids = sequence.lease.ids().to_vec();
                drop(sequence);
                self.let_go(&ids);
            }
            Op::Hold(i) if i < self.sequences.len() => {
                self.held.push(HeldBlocks::fenced(self.sequences.swap_remove(i).lease));
            }
            Op::Release(i) if i < self.held.len() => {
                let held = self.held.swap_remove(i);
                let ids = held.ids().to_vec();
                drop(held);
                self.let_go(&ids);
            }
            Op::Clear => {
                self.pool.clear_cache();
                assert_eq!(self.pool.take_events(), [CacheEvent::Cleared]);
                self.model = Model::default();
                self.sequences.iter_mut().for_each(|sequence| {
                    // What they have cached hangs from nothing now.
                    sequence.is_cacheable = sequence.stored == 0;
                });
            }
            Op::Drop(_) | Op::Hold(_) | Op::Release(_) => {}
        }
    }

    fn check(&self) {
        let mut times: HashMap<BlockId, usize> = HashMap::new();
        let leases = self.sequences.iter().map(|sequence| sequence.lease.ids());
        let owned: BTreeSet<BlockId> = leases.clone().flatten().copied().collect();
        let held = self.held.iter().map(HeldBlocks::ids);
        leases.chain(held).flatten().for_each(|id| *times.entry(*id).or_default() += 1);
        let indexed: BTreeSet<_> = self.model.entries.values().map(|entry| entry.block).collect();
        let shared = times.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id);
        for id in shared {
            // After `Clear` those who shared a block go on sharing it.
            assert!(indexed.contains(id) || self.pool.counts().indexed == 0 || self.was_cleared());
        }
        let counts = self.pool.counts();
        assert_eq!(counts.owned, owned.len());
        assert_eq!(counts.in_use(), times.len());
        assert_eq!(counts.indexed, indexed.len());
        assert_eq!(counts.cached, indexed.iter().filter(|id| !times.contains_key(id)).count());
        assert_eq!(counts.free + counts.cached + counts.owned + counts.held, BLOCKS);
    }

    fn was_cleared(&self) -> bool {
        self.sequences.iter().any(|sequence| !sequence.is_cacheable) || !self.held.is_empty()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_cached_is_found_shared_and_evicted_from_the_leaves(ops in prop::collection::vec(op(), 1..80)) {
        let pool = BlockAllocator::new(BLOCKS, ON, || ());
        let mut world = World { pool, sequences: vec![], held: vec![], model: Model::default() };
        for op in ops {
            world.apply(op);
            world.check();
        }
        world.sequences.clear();
        world.held.clear();
        let counts = world.pool.counts();
        prop_assert_eq!((counts.available(), counts.cached), (BLOCKS, counts.indexed));
    }
}

#[test]
fn scopes_share_nothing_and_number_the_same_tokens_differently() {
    let pool = BlockAllocator::new(BLOCKS, ON, || ());
    let adapter = |name: &str| CacheScope { adapter: Some(Adapter::new(name, "1")), ..CacheScope::default() };
    let salted = CacheScope { salt: Some("a".to_owned()), ..CacheScope::default() };
    let scopes = [None, Some(CacheScope::default()), Some(adapter("a")), Some(adapter("b")), Some(salted)];
    for scope in &scopes {
        let scope = scope.clone().map(Arc::new);
        let prefix = Prefix { tokens: &[1, 2, 3, 4], block_tokens: BLOCK_TOKENS, scope: scope.as_ref() };
        assert_eq!(pool.probe(&prefix), (0, 0));
        let mut lease = pool.take(2).unwrap();
        assert_eq!(lease.store(0, 2, &prefix, Duplicate::Free), 2);
        assert_eq!(pool.probe(&prefix), (2, 0));
    }
    let mut hashes = BTreeSet::new();
    for event in pool.take_events() {
        let CacheEvent::Stored { hashes: new, .. } = event else { panic!("{event:?}") };
        hashes.extend(new);
    }
    assert_eq!(hashes.len(), 2 * scopes.len());
}

#[test]
fn a_retained_duplicate_goes_back_with_the_lease() {
    let pool = BlockAllocator::new(BLOCKS, ON, || ());
    let prefix = Prefix { tokens: &[1, 2, 3, 4], block_tokens: BLOCK_TOKENS, scope: None };
    let [mut first, mut second] = [pool.take(2).unwrap(), pool.take(2).unwrap()];
    first.store(0, 2, &prefix, Duplicate::Free);
    let own = second.ids().to_vec();
    assert_eq!(second.store(0, 2, &prefix, Duplicate::Retain), 2);
    assert_eq!(second.ids(), first.ids());
    assert_eq!(pool.counts().owned, 4, "what is being read stays");
    let held = HeldBlocks::fenced(second);
    assert_eq!((pool.counts().owned, pool.counts().held), (2, 2));
    drop(first);
    assert_eq!((pool.counts().owned, pool.counts().held), (0, 4));
    assert!(own.iter().all(|id| pool.generation(*id) == Some(0)));
    drop(held);
    assert_eq!((pool.counts().free, pool.counts().cached), (BLOCKS - 2, 2));
    assert!(own.iter().all(|id| pool.generation(*id) == Some(1)));
}

#[test]
fn neighbours_that_are_evicted_together_come_as_neighbours() {
    let pool = BlockAllocator::new(BLOCKS, ON, || ());
    let tokens: Vec<u32> = (0..2 * BLOCKS as u32).collect();
    let prefix = Prefix { tokens: &tokens, block_tokens: BLOCK_TOKENS, scope: None };
    let mut all = pool.take(BLOCKS).unwrap();
    all.store(0, BLOCKS, &prefix, Duplicate::Free);
    drop(all);
    assert_eq!((pool.counts().free, pool.counts().cached), (0, BLOCKS));
    let lease = pool.take(8).unwrap();
    assert!(lease.ids().is_sorted_by(|a, b| a.0 + 1 == b.0), "{lease:?}");
    assert_eq!(pool.probe(&prefix), (BLOCKS - 8, BLOCKS - 8), "the beginning is what stays");
}
