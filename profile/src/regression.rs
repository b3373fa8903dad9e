//! Recursive least squares with forgetting, in the information form: sums over what was seen, solved anew each time.
//!
//! - Errors count relative to the prediction, or long prompts would drown short ones.
//! - Coefficients are sought as multiples of a prior, and held together, as by a fraction of an observation, at the one multiple that fits best: a worker of half the
//!   speed is so in all it does, until it shows otherwise. So what was never excited (all prompts of one length) follows the rest, and singular data do no harm.
//! - One absurd time (a pause, a lost packet) is cut to 1.5 times the prediction. Three in a row on the same side are believed, and the past is forgotten quickly:
//!   a worker that has become slow.
//! - Coefficients are never negative.

/// Weight of the common multiple, in observations. With errors of about 10 %, each coefficient may differ from it by a factor of about two.
const PRIOR_WEIGHT: f64 = 0.02;
/// What each observation leaves of those before it: about thirty count.
const FORGET: f64 = 0.97;
/// The same while the worker has become another, and for some more observations: the past must be gone, not just outvoted.
const FORGET_ON_CHANGE: f64 = 0.7;
const CHANGE_TAIL: u32 = 10;
/// Errors within this factor are noise.
const NOISE: f64 = 1.3;
/// A time is cut to this factor of its prediction…
const CUT: f64 = 1.5;
/// …or to this one, once so many in a row were on the same side.
const CUT_ON_CHANGE: f64 = 4.0;
const CHANGE_RUN: i32 = 3;
/// Nothing is known to be absurd before so many observations.
const KNOWN: u64 = 8;
/// Bound of a coefficient, in multiples of its prior.
const MOST: f64 = 1_000.0;
/// A prior of zero could never be left.
const LEAST_PRIOR: f64 = 1e-12;

/// `y ≈ Σ coefficient·feature`.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression<const N: usize> {
    prior: [f64; N],
    information: [[f64; N]; N],
    moment: [f64; N],
    // For one multiple of all.
    common_information: f64,
    common_moment: f64,
    // Multiples of the prior.
    multiples: [f64; N],
    // Observations in a row beyond the noise, on one side (positive: slower than predicted).
    run: i32,
    // Observations for which the past is still forgotten quickly.
    changing: u32,
    observations: u64,
    // The prior only says proportions.
    finds_scale: bool,
}

impl<const N: usize> Regression<N> {
    /// Begins at `prior`.
    #[must_use]
    pub fn new(prior: [f64; N]) -> Self {
        Self {
            prior: prior.map(|value| if value.is_finite() { value.max(LEAST_PRIOR) } else { LEAST_PRIOR }),
            information: [[0.0; N]; N],
            moment: [0.0; N],
            common_information: 0.0,
            common_moment: 0.0,
            multiples: [1.0; N],
            run: 0,
            changing: 0,
            observations: 0,
            finds_scale: false,
        }
    }

    /// Begins at these proportions; the first observation says how much of them it takes, and of the next ones each that says something quite different: the first may
    /// have been absurd. Until then predictions mean nothing.
    #[must_use]
    pub fn in_proportion(prior: [f64; N]) -> Self {
        Self { finds_scale: true, ..Self::new(prior) }
    }

    /// The coefficients as they are believed now.
    #[must_use]
    pub fn coefficients(&self) -> [f64; N] {
        std::array::from_fn(|k| self.prior[k] * self.multiples[k])
    }

    /// How many observations there were.
    #[must_use]
    pub fn observations(&self) -> u64 {
        self.observations
    }

    /// What is expected for `features`.
    #[must_use]
    pub fn predict(&self, features: &[f64; N]) -> f64 {
        (0..N).map(|k| features[k] * self.prior[k] * self.multiples[k]).sum()
    }

    /// `features` took `observed`. What is not a positive number is ignored.
    pub fn observe(&mut self, features: &[f64; N], observed: f64) {
        let mut predicted = self.predict(features);
        let is_usable = observed.is_finite() && observed > 0.0 && predicted.is_finite() && predicted > 0.0;
        if !is_usable || features.iter().any(|feature| !feature.is_finite() || *feature < 0.0) {
            return;
        }
        let ratio = observed / predicted;
        let is_other = !(1.0 / CUT_ON_CHANGE..=CUT_ON_CHANGE).contains(&ratio);
        if self.finds_scale && (self.observations == 0 || self.observations < KNOWN && is_other) {
            let scale = observed / (0..N).map(|k| features[k] * self.prior[k]).sum::<f64>();
            let (prior, observations) = (self.prior.map(|prior| prior * scale), self.observations);
            *self = Self { finds_scale: true, observations, ..Self::new(prior) };
            predicted = observed;
        }
        let (cut, forget) = self.note_ratio(observed / predicted);
        let believed = observed.clamp(predicted / cut, predicted * cut);
        let weight = 1.0 / (predicted * believed);
        let scaled: [f64; N] = std::array::from_fn(|k| features[k] * self.prior[k]);
        for row in 0..N {
            for column in 0..N {
                let seen = &mut self.information[row][column];
                *seen = *seen * forget + weight * scaled[row] * scaled[column];
            }
            self.moment[row] = self.moment[row] * forget + weight * scaled[row] * believed;
        }
        let prior: f64 = scaled.iter().sum();
        self.common_information = self.common_information * forget + weight * prior * prior;
        self.common_moment = self.common_moment * forget + weight * prior * believed;
        self.observations += 1;
        self.solve();
    }

    fn note_ratio(&mut self, ratio: f64) -> (f64, f64) {
        self.run = if ratio > NOISE {
            self.run.max(0) + 1
        } else if ratio < 1.0 / NOISE {
            self.run.min(0) - 1
        } else {
            0
        };
        let is_change = self.run.abs() >= CHANGE_RUN;
        self.changing = if is_change { CHANGE_TAIL } else { self.changing.saturating_sub(1) };
        let forget = if self.changing > 0 { FORGET_ON_CHANGE } else { FORGET };
        (if is_change || self.observations < KNOWN { CUT_ON_CHANGE } else { CUT }, forget)
    }

    // Negative ones are set to zero and the others solved again: few coefficients, so at most N rounds.
    fn solve(&mut self) {
        let mut is_free = [true; N];
        for _ in 0..=N {
            let Some(solved) = self.solve_free(&is_free) else { return };
            match (0..N).filter(|&k| is_free[k]).find(|&k| solved[k] < 0.0) {
                Some(negative) => is_free[negative] = false,
                None => {
                    self.multiples = solved.map(|value| value.clamp(0.0, MOST));
                    return;
                }
            }
        }
    }

    // Gauss with the largest pivot; the prior keeps the matrix positive definite.
    fn solve_free(&self, is_free: &[bool; N]) -> Option<[f64; N]> {
        let mut matrix = self.information;
        let mut right = self.moment;
        let common = (self.common_moment + PRIOR_WEIGHT) / (self.common_information + PRIOR_WEIGHT);
        for k in 0..N {
            // What has become many times as dear as all else is held less: factors count, not differences.
            let apart = (self.multiples[k] / common).max(1.0);
            let weight = PRIOR_WEIGHT / (apart * apart);
            matrix[k][k] += weight;
            right[k] += weight * common;
            if !is_free[k] {
                matrix[k] = [0.0; N];
                matrix.iter_mut().for_each(|row| row[k] = 0.0);
                matrix[k][k] = 1.0;
                right[k] = 0.0;
            }
        }
        for column in 0..N {
            let pivot =
                (column..N).max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
            matrix.swap(column, pivot);
            right.swap(column, pivot);
            if matrix[column][column].abs() < 1e-9 {
                return None;
            }
            for row in column + 1..N {
                let above = matrix[column];
                let factor = matrix[row][column] / above[column];
                for (value, above) in matrix[row].iter_mut().zip(above) {
                    *value -= factor * above;
                }
                right[row] -= factor * right[column];
            }
        }
        let mut solved = [0.0; N];
        for row in (0..N).rev() {
            let rest: f64 = (row + 1..N).map(|k| matrix[row][k] * solved[k]).sum();
            solved[row] = (right[row] - rest) / matrix[row][row];
        }
        solved.iter().all(|value| value.is_finite()).then_some(solved)
    }
}
