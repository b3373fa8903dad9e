//! How an engine fills its steps, by what steps take: the rules that engine and simulator have in common.

/// A step with prompts beside sequences that generate is to take so many times as long as without: under 2, with room for what is not foreseen.
pub const STRETCH: f64 = 1.6;

/// Prompt tokens of such a step at least, so that every prompt ends.
pub const LEAST_TOKENS: u32 = 4;

/// Of so many steps in which some generate, one is without prompts, to see what that takes.
pub const QUIET_EVERY: u32 = 32;

/// Whether one more prompt belongs into a step of nothing but prompts, of which it has `together` and `waiting` could be in it.
///
/// All prompts of a step end with it: each of the `together` ends later by `adds`, what the step takes longer. But steps of one more prompt are fewer, by one
/// in `together`, and each that is left out saves those after it `saves`, what both parts would take longer apart. At equal prompts that makes
/// as many of them in a step as leave the mean time to first token shortest: √(waiting·saves/adds).
#[must_use]
pub fn joins(together: usize, waiting: usize, adds: f64, saves: f64) -> bool {
    let after = waiting.saturating_sub(together) as f64;
    (together * together) as f64 * adds <= after * saves
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean end of `waiting` prompts in steps of `together`.
    fn mean_end(together: usize, waiting: usize, fixed: f64, each: f64) -> f64 {
        let (mut now, mut sum, mut left) = (0.0, 0.0, waiting);
        while left > 0 {
            let step = left.min(together);
            now += fixed + each * step as f64;
            sum += now * step as f64;
            left -= step;
        }
        sum / waiting as f64
    }

    #[test]
    fn as_many_go_together_as_let_all_end_soonest() {
        for (waiting, fixed, each) in
            [(1, 1.0, 1.0), (10, 1.0, 1.0), (40, 5.0, 1.0), (40, 1.0, 5.0), (200, 10.0, 0.5)]
        {
            let mut together = 1;
            while together < waiting && joins(together, waiting, each, fixed) {
                together += 1;
            }
            let best = (1..=waiting)
                .map(|together| mean_end(together, waiting, fixed, each))
                .fold(f64::INFINITY, f64::min);
            let end = mean_end(together, waiting, fixed, each);
            assert!(end <= 1.05 * best, "{together} of {waiting}: {end}, at best {best}");
        }
    }

    #[test]
    fn who_is_alone_or_costs_nothing_joins_as_expected() {
        assert!(!joins(1, 1, 1.0, 100.0), "nobody is left");
        assert!(joins(9, 10, 0.0, 0.0), "nothing is known of what it takes");
        assert!(!joins(1, 100, 1.0, 0.0), "nothing is saved");
    }
}
