//! Against the definition, and against the clock.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::serve::SamplingParams;

fn propose(lookup: &mut NgramLookup, tokens: &[u32], most: usize) -> Vec<u32> {
    let sampling = SamplingParams::greedy(1);
    let request = DraftRequest { sequence: 7, tokens, prompt_len: 1, sampling: &sampling, scope: None, most };
    lookup.propose(&[request]).remove(0)
}

/// The definition: of the longest end that occurs before, the latest place; what follows there, and so on in what was copied.
fn defined(tokens: &[u32], (least, most): (usize, usize), count: usize) -> Vec<u32> {
    let ends = |n: usize| {
        let gram = &tokens[tokens.len() - n..];
        (n..tokens.len()).rev().find(|end| tokens[end - n..*end] == *gram)
    };
    let longest = (least..=most.min(tokens.len())).rev().find_map(ends);
    let Some(end) = longest else { return vec![] };
    let mut copied = tokens.to_vec();
    (0..count).for_each(|i| copied.push(copied[end + i]));
    copied.split_off(tokens.len())
}

#[test]
fn a_list_goes_on_like_its_last_entry() {
    let mut lookup = NgramLookup::new(2, 3);
    assert_eq!(propose(&mut lookup, &[1, 2, 3, 4, 1, 2, 5, 6, 1, 2], 3), [5, 6, 1]);
    assert_eq!(propose(&mut NgramLookup::new(3, 3), &[1, 2, 3, 4, 1, 2], 3), [0; 0]);
}

#[test]
fn a_longer_match_beats_a_later_one() {
    assert_eq!(propose(&mut NgramLookup::new(1, 3), &[1, 2, 3, 9, 7, 2, 3, 8, 1, 2, 3], 1), [9]);
}

#[test]
fn a_short_period_is_drafted_to_any_depth() {
    assert_eq!(propose(&mut NgramLookup::new(2, 5), &[5, 6, 5, 6, 5], 5), [6, 5, 6, 5, 6]);
}

#[test]
fn what_is_forgotten_is_indexed_again() {
    let mut lookup = NgramLookup::new(1, 1);
    assert_eq!(propose(&mut lookup, &[1, 2, 1], 1), [2]);
    lookup.keep_only(&|sequence| sequence != 7);
    assert!(lookup.indexes.is_empty());
    assert_eq!(propose(&mut lookup, &[3, 4, 3], 1), [4]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    /// However the tokens come, and however few of them are taken in at once.
    #[test]
    fn finds_what_the_definition_says(
        tokens in prop::collection::vec(0_u32..4, 1..300),
        least in 1_usize..4,
        more in 0_usize..4,
        pieces in prop::collection::vec(1_usize..20, 1..50),
        at_once in 1_usize..40,
    ) {
        let most = least + more;
        let mut index = NgramIndex::new(least, most, 1);
        let mut end = 0;
        for piece in pieces {
            end = (end + piece).min(tokens.len());
            let seen = &tokens[..end];
            while !index.extend(seen, at_once) {}
            let found = index.find_latest(seen).map_or_else(Vec::new, |at| copy_from(seen, at, 5));
            prop_assert_eq!(found, defined(seen, (least, most), 5));
        }
    }
}

/// A number of tokens, each of a thousand.
fn noise(count: usize, mut state: u64) -> Vec<u32> {
    let mut token = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u32 % 1000
    };
    (0..count).map(|_| token()).collect()
}

/// Time of 10,000 steps after so many tokens.
fn time_after(context: usize) -> Duration {
    let (mut tokens, more) = (noise(context, 1), noise(10_000, 2));
    let mut lookup = NgramLookup::new(2, 5);
    let steps = (0..).find(|_| {
        propose(&mut lookup, &tokens, 4);
        lookup.indexes.get_mut(&7).is_some_and(|index| index.extend(&tokens, 0))
    });
    assert_eq!(steps, Some((context - 1) / INDEXED_AT_ONCE), "a long prompt is taken in over several steps");
    let started = Instant::now();
    for token in more {
        tokens.push(token);
        propose(&mut lookup, &tokens, 4);
    }
    started.elapsed()
}

/// A rescan for each token would take a hundred times as long; a larger table has more cache misses.
#[test]
fn a_long_context_costs_hardly_more_than_a_short_one() {
    let (short, long) = (time_after(1_000), time_after(100_000));
    assert!(long < 20 * short, "{long:?} and {short:?}");
}
