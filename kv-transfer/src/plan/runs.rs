//! Neighbouring blocks.

/// `len` blocks that are neighbours at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) source: u32,
    pub(super) destination: u32,
    pub(super) len: u32,
}

/// Merges `(source block, destination block)` pairs into runs; the order of the pairs does not matter.
pub(super) fn merge_runs(mut pairs: Vec<(u32, u32)>) -> Vec<Run> {
    pairs.sort_unstable();
    let mut runs: Vec<Run> = Vec::with_capacity(pairs.len().min(64));
    for (source, destination) in pairs {
        match runs.last_mut() {
            Some(run) if run.source + run.len == source && run.destination + run.len == destination => {
                run.len += 1
            }
            _ => runs.push(Run { source, destination, len: 1 }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCKS: u32 = 40;

    fn pairs() -> impl Strategy<Value = Vec<(u32, u32)>> {
        let ids = || Just((0..BLOCKS).collect::<Vec<_>>()).prop_shuffle();
        // Rotations keep neighbours together, shuffles tear them apart: mix both.
        (ids(), ids(), any::<bool>(), 0..BLOCKS, 1..=BLOCKS as usize).prop_map(
            |(a, b, contiguous, turn, n)| {
                let turned = |i: u32| (i + turn) % BLOCKS;
                let pairs = if contiguous {
                    (0..BLOCKS).map(|i| (i, turned(i))).collect()
                } else {
                    a.into_iter().zip(b).collect::<Vec<_>>()
                };
                pairs.into_iter().take(n).collect()
            },
        )
    }

    proptest! {
        #[test]
        fn runs_cover_each_pair_once_and_are_maximal(pairs in pairs()) {
            let runs = merge_runs(pairs.clone());
            let mut covered: Vec<_> = runs.iter().flat_map(|r| (0..r.len).map(|i| (r.source + i, r.destination + i))).collect();
            let mut wanted = pairs;
            covered.sort_unstable();
            wanted.sort_unstable();
            prop_assert_eq!(covered, wanted);
            for pair in runs.windows(2) {
                let mergeable = pair[0].source + pair[0].len == pair[1].source
                    && pair[0].destination + pair[0].len == pair[1].destination;
                prop_assert!(!mergeable, "{pair:?} should be one run");
            }
        }
    }
}
