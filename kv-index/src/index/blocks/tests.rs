use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use super::*;
use crate::{holders::Member, key};

/// Held by one worker, this.
fn held(by: u16) -> Holders {
    Holders::one(Member::new(by, 1))
}

fn store(blocks: &mut Blocks, key: u64, holders: Holders, age: Age, near: &mut Near) {
    let before = blocks.get(key, &mut Near::default()).map_or(Holders::NOBODY, |block| block.holders);
    assert_eq!(blocks.update(key, age, near, |was| (holders, was)), before);
}

/// Every block is found with what it has, and nothing else is there.
#[track_caller]
fn check(blocks: &Blocks, expected: &BTreeMap<u64, u16>) {
    let mut near = Near::default();
    assert_eq!(blocks.len(), expected.len());
    for (key, by) in expected {
        let found = blocks.get(*key, &mut near).map(|block| block.holders);
        assert_eq!(found, Some(held(*by)), "{key:x}");
    }
    assert_eq!(blocks.ages(usize::MAX).len(), expected.len());
    let uppers: BTreeSet<u64> = expected.keys().map(|key| key >> 32).collect();
    assert_eq!(blocks.used().1, uppers.len());
}

/// Chains that part everywhere: of each six blocks there are four or more others.
fn keys(rng: &mut SmallRng) -> Vec<u64> {
    let mut key = key::seed("m", None, 16);
    let depth = rng.random_range(1..9);
    (0..depth)
        .map(|_| {
            key = key::next(key, rng.random_range(0..4));
            key
        })
        .collect()
}

#[test]
fn it_does_what_an_ordered_map_does() {
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut blocks, mut expected, mut near) =
            (Blocks::new(2, &Spares::default()), BTreeMap::new(), Near::default());
        for step in 0..2000_u16 {
            let keys = keys(&mut rng);
            // Grows for a while, then shrinks.
            if rng.random_bool(if step / 400 % 2 == 0 { 0.8 } else { 0.2 }) {
                for key in keys {
                    store(&mut blocks, key, held(step + 1), Age::new(0, 3), &mut near);
                    expected.insert(key, step + 1);
                }
            } else {
                for key in keys.iter().rev() {
                    let found = blocks.find(*key, &mut near);
                    assert_eq!(found.is_some(), expected.remove(key).is_some());
                    if let Some(place) = found {
                        blocks.remove(*key, place, &mut near);
                    }
                    assert!(blocks.get(*key, &mut near).is_none());
                }
            }
            if step % 300 == 299 {
                // Every third leaves, and every other one changes.
                let left = |by: u16| match by % 3 {
                    0 => None,
                    1 => Some(by + 10_000),
                    _ => Some(by),
                };
                let by = |holders| (1..=60_000).find(|by| held(*by) == holders).unwrap();
                for part in 0..blocks.parts() {
                    blocks.retain(part, |block| left(by(block.holders)).map_or(Holders::NOBODY, held));
                }
                expected.retain(|_, by| left(*by).inspect(|left| *by = *left).is_some());
            }
            if step % 50 == 0 {
                check(&blocks, &expected);
            }
        }
        check(&blocks, &expected);
        for part in 0..blocks.parts() {
            blocks.retain(part, |_| Holders::NOBODY);
        }
        assert_eq!((blocks.len(), blocks.used(), blocks.groups.bytes()), (0, (0, 0), 0));
    }
}

#[test]
fn where_many_chains_part_the_others_are_spilled_and_what_follows_is_together_again() {
    let (mut blocks, mut near) = (Blocks::new(4, &Spares::default()), Near::default());
    let root = key::next(key::seed("m", None, 16), 1);
    let chains: Vec<Vec<u64>> = (0..1000)
        .map(|chain| {
            let mut key = root;
            (0..29)
                .map(|at| {
                    key = key::next(key, 1000 * chain + at);
                    key
                })
                .collect()
        })
        .collect();
    for key in chains.iter().flatten() {
        store(&mut blocks, *key, held(1), Age::new(0, 0), &mut near);
    }
    assert_eq!(blocks.len(), 29_000);
    // Five blocks of each chain have the upper half of the first one; then come four groups each.
    let (entries, groups) = blocks.used();
    assert_eq!((groups, entries), (4001, 4001 + 5000 - 6));
    assert!(chains.iter().flatten().all(|key| blocks.find(*key, &mut near).is_some()));
}

#[test]
fn blocks_of_a_group_have_the_age_of_the_youngest_and_their_own_depth() {
    let (mut blocks, mut near) = (Blocks::new(1, &Spares::default()), Near::default());
    let mut key = key::seed("m", None, 16);
    let keys: Vec<u64> = (0..8)
        .map(|at| {
            key = key::next(key, at);
            key
        })
        .collect();
    for (depth, key) in keys.iter().enumerate() {
        store(&mut blocks, *key, held(1), Age::new(40 * depth as u64, depth as u32), &mut near);
    }
    let ages: Vec<(u32, u32)> = keys
        .iter()
        .map(|key| blocks.get(*key, &mut near).unwrap().age)
        .map(|age| (age.depth(), age.seconds(400)))
        .collect();
    let expected = (0..8).map(|depth| (depth, if depth < 6 { 200 } else { 120 }));
    assert_eq!(ages, expected.collect::<Vec<_>>());
}

#[test]
fn six_blocks_take_as_little_as_promised() {
    let (mut blocks, mut near) = (Blocks::new(6, &Spares::default()), Near::default());
    for chain in 0..3000 {
        let mut key = key::next(key::seed("m", None, 16), chain);
        for at in 0..600 {
            key = key::next(key, at);
            store(&mut blocks, key, held(1), Age::new(0, 0), &mut near);
        }
    }
    let each = blocks.bytes() as f64 / blocks.len() as f64;
    assert!(each < 19.5, "{each} bytes for each of {}", blocks.len());
}
