//! What one more row costs in a step, measured as steps go by.
//!
//! While a step is bound by reading weights, rows cost next to nothing; once arithmetic bounds it each costs its share. Where that
//! turns depends on model, device and batch, so it is not configured but seen: the straight line through the times of recent
//! steps over their rows. Steps with prompts in them are left out, as rows are cheaper there.

use std::time::Duration;

/// Least share of a new observation in the averages.
const SHARE: f64 = 1.0 / 32.0;
/// Observations before one is suspected to be a disturbance of the machine.
const KNOWN: u32 = 8;
/// A step that takes more than so many times what the line says counts as this.
const OUTLIER: f64 = 1.5;
/// What a row is taken to cost, in steps, while nothing is known: enough rows vary soon.
const ASSUMED_ROW: f64 = 0.1;
/// What a row costs at least, in steps: a measured nothing is noise.
const LEAST_EXTRA: f64 = 0.02;
/// Variance of the number of rows below which the line has no slope to speak of.
const LEAST_VARIANCE: f64 = 0.1;

/// Averages over recent steps; times in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepCosts {
    steps: u32,
    rows: f64,
    time: f64,
    variance: f64,
    covariance: f64,
    /// Of a row.
    slope: Option<f64>,
    /// Of drafting one token for everybody.
    round: Option<f64>,
}

impl StepCosts {
    /// A step of `rows` rows, none of them of a prompt, took so long.
    pub(super) fn observe_step(&mut self, rows: usize, took: Duration) {
        let (rows, mut time) = (rows as f64, took.as_secs_f64());
        if self.steps == 0 {
            (self.rows, self.time) = (rows, time);
        }
        if self.steps >= KNOWN {
            time = time.min(OUTLIER * self.step(rows));
        }
        self.steps = self.steps.saturating_add(1);
        // At first all count alike: the first step is often a slow one.
        let share = SHARE.max(1.0 / f64::from(self.steps));
        let (more_rows, more_time) = (rows - self.rows, time - self.time);
        self.rows += share * more_rows;
        self.time += share * more_time;
        self.variance = (1.0 - share) * (self.variance + share * more_rows * more_rows);
        self.covariance = (1.0 - share) * (self.covariance + share * more_rows * more_time);
        if self.variance > LEAST_VARIANCE {
            // A row costs something, and not more than its share of the whole.
            self.slope = Some((self.covariance / self.variance).clamp(0.0, self.time / self.rows));
        }
    }

    /// Drafting `rounds` tokens for everybody took so long.
    pub(super) fn observe_drafting(&mut self, rounds: usize, took: Duration) {
        let time = took.as_secs_f64() / rounds as f64;
        let before = self.round.unwrap_or(time);
        self.round = Some(before + SHARE * (time.min(OUTLIER * before) - before));
    }

    /// By which fraction a step of `sequences` rows gets longer with a drafted token for each of them.
    pub(super) fn extra(&self, sequences: usize) -> f64 {
        let rows = sequences as f64;
        let step = self.step(rows);
        if step <= 0.0 {
            return ASSUMED_ROW;
        }
        ((self.row() * rows + self.round.unwrap_or(0.0)) / step).max(LEAST_EXTRA)
    }

    fn row(&self) -> f64 {
        self.slope.unwrap_or(ASSUMED_ROW * self.time)
    }

    /// What the line says of a step of so many rows.
    fn step(&self, rows: f64) -> f64 {
        (self.time + self.row() * (rows - self.rows)).max(self.row() * rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    /// Costs of steps with 1 to 8 rows, of which each takes `row` on top of `step`, with a disturbance now and then.
    fn costs(step: u64, row: u64) -> StepCosts {
        let mut costs = StepCosts::default();
        for i in 0..400_u64 {
            let rows = 1 + i % 8;
            let disturbance = if i % 50 == 20 { 100_000 } else { 0 };
            costs.observe_step(rows as usize, micros(step + row * rows + disturbance));
        }
        costs
    }

    #[track_caller]
    fn check(costs: &StepCosts, sequences: usize, expected: f64) {
        let extra = costs.extra(sequences);
        assert!((extra - expected).abs() < 0.1 * expected + 0.03, "{extra}, not {expected}");
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
        (0..20).for_each(|_| costs.observe_step(1, micros(1_000)));
        check(&costs, 1, ASSUMED_ROW);
    }
}
