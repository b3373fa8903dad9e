//! What one more row costs in a step, measured as steps go by.
//!
//! While a step is bound by reading weights, rows cost next to nothing; once arithmetic bounds it each costs its share. Where that
//! turns depends on model, device and batch, so it is not configured but seen: by the straight line through two points, what plain
//! steps took of late and what steps with drafts did. Who always drafts would never see the first, so now and then a step is
//! plain for that. Steps with prompts in them are left out, as rows are cheaper there.

use std::time::Duration;

/// Least share of a new observation in the averages.
const SHARE: f64 = 1.0 / 8.0;
/// Observations before one is suspected to be a disturbance of the machine.
const KNOWN: u32 = 8;
/// A step that takes more than so many times as long as others, for its rows, counts as this.
const OUTLIER: f64 = 1.5;
/// What a row is taken to cost, in steps, while nothing is known.
const ASSUMED_ROW: f64 = 0.1;
/// What a row costs at least, in steps: a measured nothing is noise.
const LEAST_EXTRA: f64 = 0.02;
/// Rows between the two points, at least.
const LEAST_DISTANCE: f64 = 0.5;
/// Of so many steps with drafts, one is plain instead.
const PLAIN_EVERY: u32 = 32;

/// Averages over recent steps; times in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepCosts {
    plain: Point,
    drafted: Point,
    /// Of drafting one token for everybody.
    round: Option<f64>,
    drafted_in_a_row: u32,
}

/// Steps of a kind.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    steps: u32,
    rows: f64,
    time: f64,
}

impl StepCosts {
    /// A step took so long for `rows` rows of `sequences` sequences, none of them of a prompt.
    pub(super) fn observe_step(&mut self, rows: usize, sequences: usize, took: Duration) {
        let (kind, in_a_row) = match rows > sequences {
            true => (&mut self.drafted, self.drafted_in_a_row + 1),
            false => (&mut self.plain, 0),
        };
        kind.observe(rows as f64, took.as_secs_f64());
        self.drafted_in_a_row = in_a_row;
    }

    /// Whether the next step should be a plain one, to see what that takes.
    pub(super) fn wants_a_plain_step(&self) -> bool {
        self.plain.steps == 0 || self.drafted_in_a_row + 1 >= PLAIN_EVERY
    }

    /// Drafting `rounds` tokens for everybody took so long.
    pub(super) fn observe_drafting(&mut self, rounds: usize, took: Duration) {
        let time = took.as_secs_f64() / rounds as f64;
        let before = self.round.unwrap_or(time);
        self.round = Some(before + SHARE * (time.min(OUTLIER * before) - before));
    }

    /// By which fraction a step of `sequences` rows gets longer with a drafted token for each of them.
    pub(super) fn extra(&self, sequences: usize) -> f64 {
        let (rows, row) = (sequences as f64, self.row());
        let step = (self.plain.time + row * (rows - self.plain.rows)).max(row * rows);
        if step <= 0.0 {
            return ASSUMED_ROW;
        }
        ((row * rows + self.round.unwrap_or(0.0)) / step).max(LEAST_EXTRA)
    }

    /// Time of a row: the slope of the line. It costs something, and not more than its share of the whole.
    fn row(&self) -> f64 {
        let Self { plain, drafted, .. } = self;
        let distance = drafted.rows - plain.rows;
        if plain.steps == 0 || drafted.steps == 0 || distance.abs() < LEAST_DISTANCE {
            return ASSUMED_ROW * plain.time;
        }
        ((drafted.time - plain.time) / distance).clamp(0.0, drafted.time / drafted.rows)
    }
}

impl Point {
    fn observe(&mut self, rows: f64, mut time: f64) {
        if self.steps >= KNOWN {
            time = time.min(OUTLIER * self.time * (rows / self.rows).max(1.0));
        }
        self.steps = self.steps.saturating_add(1);
        // At first all count alike: the first step is often a slow one.
        let share = SHARE.max(1.0 / f64::from(self.steps));
        self.rows += share * (rows - self.rows);
        self.time += share * (time - self.time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    /// Costs of steps of 1 to 4 sequences with 4 drafts each, and some without, of which each row takes `row` on top of `step`,
    /// with a disturbance now and then.
    fn costs(step: u64, row: u64) -> StepCosts {
        let mut costs = StepCosts::default();
        for i in 0..800_u64 {
            let sequences = 1 + i / 7 % 4;
            let rows = if costs.wants_a_plain_step() { sequences } else { 5 * sequences };
            let disturbance = if i % 50 == 20 { 100_000 } else { 0 };
            costs.observe_step(rows as usize, sequences as usize, micros(step + row * rows + disturbance));
        }
        costs
    }

    #[track_caller]
    fn check(costs: &StepCosts, sequences: usize, expected: f64) {
        let extra = costs.extra(sequences);
        assert!((extra - expected).abs() < 0.15 * expected + 0.03, "{extra}, not {expected}");
    }

    #[test]
    fn rows_are_cheap_while_weights_bound_a_step() {
        check(&costs(10_000, 100), 1, 0.02);
        check(&costs(10_000, 100), 16, 1_600.0 / 11_600.0);
    }

    #[test]
    fn rows_are_dear_once_arithmetic_does() {
        check(&costs(0, 1_000), 1, 1.0);
        check(&costs(1_000, 1_000), 1, 0.5);
    }

    #[test]
    fn drafting_counts_too() {
        let mut costs = costs(9_900, 100);
        costs.observe_drafting(4, micros(8_000));
        check(&costs, 1, 0.21);
    }

    #[test]
    fn with_nothing_seen_a_row_is_taken_to_cost_little() {
        assert_eq!(StepCosts::default().extra(1), ASSUMED_ROW);
        let mut costs = StepCosts::default();
        (0..20).for_each(|_| costs.observe_step(1, 1, micros(1_000)));
        check(&costs, 1, ASSUMED_ROW);
    }

    #[test]
    fn one_step_of_many_is_plain_whatever_drafts_promise() {
        let mut costs = StepCosts::default();
        let mut plain = 0;
        for _ in 0..10 * PLAIN_EVERY {
            let rows = if costs.wants_a_plain_step() { 1 } else { 5 };
            plain += u32::from(rows == 1);
            costs.observe_step(rows, 1, micros(100));
        }
        assert_eq!(plain, 10);
    }
}
