//! The index against a model that says the same in a few slow lines, over random operations.

mod common;

use std::collections::{BTreeMap, HashMap};

use baton_kv_index::{
    BatchReader, Found, Index, IndexLimits, Matches, PromptKeys, Scope, WorkerId, WorkerSpec,
};
use common::{batch, cleared, removed, stored};
use proptest::prelude::*;

const GUESS_SECONDS: u64 = 10;
const MEDIA: [&str; 3] = ["GPU", "CPU", "STORAGE"];
const WORKERS: u32 = 6;

/// All tokens up to a block's end, with the block's size.
type Chain = (usize, Vec<u32>);

/// Of a worker: in which tiers a chain's last block is, or until when it is expected.
#[derive(Clone, Debug, Default)]
struct Held {
    tiers: [bool; 3],
    /// Turns of periods at which it was guessed.
    guessed: Option<u64>,
}

#[derive(Default)]
struct Model {
    held: BTreeMap<u32, HashMap<Chain, Held>>,
    periods: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Store { worker: u32, tokens: Vec<u32>, skip: usize, tier: usize },
    Remove { worker: u32, which: Vec<prop::sample::Index>, tier: usize },
    Orphan { worker: u32 },
    Clear(u32),
    Leave(u32),
    Guess { worker: u32, tokens: Vec<u32> },
    NextPeriod,
    Maintain(usize),
}

/// Workers 0 and 1 have blocks of 2 tokens and hashes of their own, 2 and 3 of 2 tokens and the same hashes, 4 and 5 of 3.
fn block_tokens(worker: u32) -> usize {
    if worker < 4 { 2 } else { 3 }
}

fn spec(worker: u32) -> WorkerSpec {
    let same_hashes = matches!(worker, 2 | 3).then(|| "some".to_owned());
    WorkerSpec { model: "m".to_owned(), block_tokens: block_tokens(worker) as u32, same_hashes }
}

/// What the worker's engine calls the block.
fn hash(worker: u32, chain: &[u32]) -> u64 {
    let seed = if matches!(worker, 2 | 3) { 77 } else { u64::from(worker) };
    chain.iter().fold(seed + 1, |hash, token| {
        (hash + 2 + u64::from(*token)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) >> 1
    })
}

fn tokens() -> impl Strategy<Value = Vec<u32>> {
    // Few different ones, so that chains share beginnings.
    prop::collection::vec(0..2_u32, 0..24)
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    prop_oneof![
        8 => (worker.clone(), tokens(), 0..12_usize, 0..3_usize)
            .prop_map(|(worker, tokens, skip, tier)| Step::Store { worker, tokens, skip, tier }),
        6 => (worker.clone(), prop::collection::vec(any::<prop::sample::Index>(), 1..6), 0..3_usize)
            .prop_map(|(worker, which, tier)| Step::Remove { worker, which, tier }),
        1 => worker.clone().prop_map(|worker| Step::Orphan { worker }),
        1 => worker.clone().prop_map(Step::Clear),
        1 => worker.clone().prop_map(Step::Leave),
        3 => (worker, tokens()).prop_map(|(worker, tokens)| Step::Guess { worker, tokens }),
        2 => Just(Step::NextPeriod),
        2 => (0..200_usize).prop_map(Step::Maintain),
    ]
}

struct World {
    /// Whether a worker may be expected to have what it said that it has: the index may have dropped the latter.
    guesses_always: bool,
    index: Index,
    model: Model,
    reader: BatchReader,
    by_name: bool,
}

impl World {
    fn new(bytes: usize, by_name: bool) -> Self {
        let mut index = Index::new(IndexLimits { bytes, guess_seconds: GUESS_SECONDS });
        let mut model = Model::default();
        for worker in 0..WORKERS {
            index.add(WorkerId(worker), &spec(worker)).unwrap();
            model.held.insert(worker, HashMap::new());
        }
        Self { guesses_always: false, index, model, reader: BatchReader::default(), by_name }
    }

    fn apply(&mut self, worker: u32, event: common::Event) {
        let payload = batch(&[event], self.by_name);
        self.reader.apply(&mut self.index, WorkerId(worker), &payload).unwrap();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Store { worker, tokens, skip, tier } => self.store(*worker, tokens, *skip, *tier),
            Step::Remove { worker, which, tier } => {
                let mut chains: Vec<Chain> = self.model.held[worker].keys().cloned().collect();
                chains.sort();
                if chains.is_empty() {
                    return;
                }
                let chosen: Vec<Chain> = which.iter().map(|which| which.get(&chains).clone()).collect();
                let hashes: Vec<u64> = chosen.iter().map(|(_, chain)| hash(*worker, chain)).collect();
                self.apply(*worker, removed(&hashes, MEDIA[*tier]));
                let held = self.model.held.get_mut(worker).unwrap();
                chosen.iter().for_each(|chain| held.get_mut(chain).unwrap().tiers[*tier] = false);
            }
            Step::Orphan { worker } => {
                let before = self.index.stats().orphans;
                self.apply(*worker, stored(&[5], Some(0xdead), &[1; 2], 2, "GPU"));
                assert_eq!(self.index.stats().orphans, before + 1);
            }
            Step::Clear(worker) => {
                self.apply(*worker, cleared());
                self.model.held.get_mut(worker).unwrap().clear();
            }
            Step::Leave(worker) => {
                self.index.remove(WorkerId(*worker));
                self.index.add(WorkerId(*worker), &spec(*worker)).unwrap();
                self.model.held.get_mut(worker).unwrap().clear();
            }
            Step::Guess { worker, tokens } => self.guess(*worker, tokens),
            Step::NextPeriod => {
                self.model.periods += 1;
                self.index.advance(self.model.periods * GUESS_SECONDS);
            }
            Step::Maintain(slices) => {
                for _ in 0..*slices {
                    self.index.maintain();
                }
            }
        }
    }

    /// Stores a chain, or only the end of it if the worker has said that it has the block before.
    fn store(&mut self, worker: u32, tokens: &[u32], skip: usize, tier: usize) {
        let size = block_tokens(worker);
        let blocks = tokens.len() / size;
        let held = self.model.held.get_mut(&worker).unwrap();
        let has = |blocks: usize| {
            held.get(&(size, tokens[..blocks * size].to_vec())).is_some_and(|held| held.tiers.contains(&true))
        };
        let skip = if skip > 0 && skip < blocks && has(skip) { skip } else { 0 };
        let chains: Vec<&[u32]> = (skip..blocks).map(|block| &tokens[..(block + 1) * size]).collect();
        for chain in &chains {
            let held = held.entry((size, chain.to_vec())).or_default();
            held.tiers[tier] = true;
            held.guessed = None;
        }
        let hashes: Vec<u64> = chains.iter().map(|chain| hash(worker, chain)).collect();
        let parent = (skip > 0).then(|| hash(worker, &tokens[..skip * size]));
        let event = stored(&hashes, parent, &tokens[skip * size..blocks * size], size as u64, MEDIA[tier]);
        self.apply(worker, event);
    }

    fn guess(&mut self, worker: u32, tokens: &[u32]) {
        let size = block_tokens(worker);
        let keys = PromptKeys::new(&SCOPE, size as u32, tokens);
        assert_eq!(self.index.guess(WorkerId(worker), &keys, 0), None);
        for blocks in 1..=tokens.len() / size {
            let held = self.model.held.get_mut(&worker).unwrap();
            let held = held.entry((size, tokens[..blocks * size].to_vec())).or_default();
            if self.guesses_always || !held.tiers.contains(&true) {
                held.guessed = Some(self.model.periods);
            }
        }
    }

    fn found(&self, tokens: &[u32]) -> BTreeMap<u32, [u32; 4]> {
        let mut matches = Matches::default();
        for size in self.index.block_sizes() {
            self.index.query(&PromptKeys::new(&SCOPE, size, tokens), &mut matches);
        }
        let found = matches.found().iter().map(|Found { worker, tokens, .. }| (worker.0, *tokens));
        let map: BTreeMap<u32, [u32; 4]> = found.collect();
        assert_eq!(map.len(), matches.found().len(), "each worker once");
        map
    }
}

impl Model {
    fn found(&self, tokens: &[u32]) -> BTreeMap<u32, [u32; 4]> {
        let found = self.held.iter().map(|(worker, held)| {
            let size = block_tokens(*worker);
            let places = (1..=tokens.len() / size).map_while(|blocks| {
                let held = held.get(&(size, tokens[..blocks * size].to_vec()))?;
                let is_guessed = held.guessed.is_some_and(|period| self.periods - period < 2);
                held.tiers.iter().position(|has| *has).or(is_guessed.then_some(3))
            });
            let mut tokens = [0; 4];
            places.for_each(|place| tokens[place] += size as u32);
            (*worker, tokens)
        });
        found.filter(|(_, tokens)| tokens.iter().sum::<u32>() > 0).collect()
    }
}

const SCOPE: Scope<'_> = Scope { model: "m", adapter: None, salt: None };

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_finds_what_the_model_finds(
        steps in prop::collection::vec(step(), 1..80),
        queries in prop::collection::vec(tokens(), 6),
        by_name in any::<bool>(),
    ) {
        let mut world = World::new(64 << 20, by_name);
        for step in &steps {
            world.step(step);
            for query in &queries {
                prop_assert_eq!(world.found(query), world.model.found(query), "{:?} after {:?}", query, step);
            }
        }
        prop_assert_eq!(world.index.stats().evicted, 0);
        // When all workers have left and were swept out, nothing is left of them.
        (0..WORKERS).for_each(|worker| world.index.remove(WorkerId(worker)));
        world.index.settle();
        let stats = world.index.stats();
        prop_assert_eq!((stats.blocks, stats.names, stats.sets), (0, 0, 0));
    }

    /// With less memory than it would need, it finds nothing that is not there, and stays within it.
    #[test]
    fn what_is_dropped_for_want_of_memory_is_not_found_and_nothing_else_changes(
        steps in prop::collection::vec(step(), 40..120),
        queries in prop::collection::vec(tokens(), 6),
    ) {
        let limit = 4 << 10;
        let mut world = World::new(limit, false);
        world.guesses_always = true;
        for step in &steps {
            world.step(step);
            for query in &queries {
                let all = world.model.found(query);
                for (worker, tokens) in world.found(query) {
                    let sum = |tokens: [u32; 4]| tokens.iter().sum::<u32>();
                    prop_assert!(sum(tokens) <= all.get(&worker).copied().map_or(0, sum), "{:?}", query);
                }
            }
            let stats = world.index.stats();
            prop_assert!((stats.blocks + stats.names) * 16 < limit + 256 * 32, "{:?}", stats);
        }
    }
}

#[test]
fn a_full_index_drops_the_oldest_and_of_them_the_ends() {
    let mut world = World::new(256 << 10, false);
    let chain = |first: u32| (0..200).map(|at| first * 1000 + at).collect::<Vec<u32>>();
    for first in 0..100 {
        world.index.advance(u64::from(first) * 8);
        // The first chain is asked for again and again.
        world.guess(0, &chain(0));
        world.store(0, &chain(first), 0, 0);
    }
    let stats = world.index.stats();
    assert!(stats.evicted > 3000, "{stats:?}");
    assert_eq!(world.found(&chain(99))[&0][0], 200, "the youngest is whole");
    assert_eq!(world.found(&chain(0))[&0][0], 200, "one that is used is whole");
    assert_eq!(world.found(&chain(1)).get(&0), None, "the oldest is gone");
    let lengths: Vec<u32> =
        (1..100).map(|first| world.found(&chain(first)).get(&0).map_or(0, |found| found[0])).collect();
    assert!(lengths.iter().any(|length| (1..200).contains(length)) || lengths.is_sorted(), "{lengths:?}");
}
