//! Block tables: runs of neighbours in random order, with a gap behind each.

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;

/// `blocks` block ids below `2 * blocks`, in runs of `run`.
pub(super) fn table(blocks: u32, run: u32, seed: u64) -> Vec<u32> {
    let mut runs: Vec<u32> = (0..blocks / run).collect();
    runs.shuffle(&mut SmallRng::seed_from_u64(seed));
    runs.into_iter().flat_map(|number| (0..run).map(move |within| number * 2 * run + within)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_neighbours_and_nothing_else_is() {
        for run in [1, 4] {
            let table = table(32, run, 5);
            let neighbours = table.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
            assert_eq!(neighbours as u32, 32 - 32 / run);
            let mut sorted = table.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 32);
            assert!(sorted.iter().all(|&block| block < 64));
        }
    }
}
