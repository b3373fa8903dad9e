//! Which experts each row goes to, and with which weights; and the rows in the order of their experts.
//!
//! A row's experts depend on its own logits only: no expert is ever full, and no row is dropped.

use super::{
    Rows, Threads,
    arith::{Plain, exp},
};

/// How a router's logits become a choice.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Routing {
    /// Experts of the layer.
    pub(crate) experts: usize,
    /// Experts that a token goes to: those of the highest logits, the first of equals.
    pub(crate) per_token: usize,
    pub(crate) scoring: Scoring,
}

/// The weights of the chosen experts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Scoring {
    /// Softmax over all experts: the weights of the chosen ones sum to less than 1.
    SoftmaxOfAll,
    /// Softmax over the chosen ones; the same as softmax over all, divided by the sum of the chosen ones.
    SoftmaxOfChosen,
}

/// The routes of a step's rows. A *pair* is a row with one of its experts.
#[derive(Default)]
pub(crate) struct Routes {
    pub(crate) per_token: usize,
    /// `[rows, per_token]`, the highest logit first.
    pub(crate) experts: Vec<u32>,
    /// `[rows, per_token]`.
    pub(crate) weights: Vec<f32>,
    /// Row of each pair; pairs in the order of experts, then rows.
    pub(crate) row_of: Vec<usize>,
    /// Pair of each row and choice, `[rows, per_token]`.
    pub(crate) pair_of: Vec<usize>,
    /// Pairs of each expert that has any.
    pub(crate) segments: Vec<Segment>,
}

/// The pairs of one expert.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Segment {
    pub(crate) expert: usize,
    pub(crate) first: usize,
    pub(crate) pairs: usize,
}

/// Routes each row of `logits`, `[rows, experts]`.
pub(crate) fn route(threads: &mut Threads, logits: &Rows<f32>, routing: Routing, routes: &mut Routes) {
    let Routing { per_token, .. } = routing;
    routes.clear(logits.rows(), per_token);
    let (experts, weights) = (&mut routes.experts[..], &mut routes.weights[..]);
    threads.for_chunk_pairs((experts, per_token), (weights, per_token), |row, experts, weights| {
        route_row(logits.row(row), routing.scoring, experts, weights);
    });
    routes.group(routing.experts);
}

fn route_row(logits: &[f32], scoring: Scoring, experts: &mut [u32], weights: &mut [f32]) {
    let mut found = 0;
    for (expert, logit) in logits.iter().enumerate() {
        // Not below the ones found before: the first of equals stays in front.
        let place = weights[..found].iter().position(|other| logit > other).unwrap_or(found);
        if place < experts.len() {
            found = (found + 1).min(experts.len());
            weights[place..found].rotate_right(1);
            experts[place..found].rotate_right(1);
            (weights[place], experts[place]) = (*logit, expert as u32);
        }
    }
    let max = weights[0];
    let total: f32 = match scoring {
        Scoring::SoftmaxOfAll => logits.iter().map(|logit| exp::<Plain>(logit - max)).sum(),
        Scoring::SoftmaxOfChosen => weights.iter().map(|logit| exp::<Plain>(logit - max)).sum(),
    };
    for weight in weights {
        *weight = exp::<Plain>(*weight - max) / total;
    }
}

impl Routes {
    /// Pairs of the step.
    pub(crate) fn pairs(&self) -> usize {
        self.experts.len()
    }

    /// Room for `rows` rows.
    pub(crate) fn clear(&mut self, rows: usize, per_token: usize) {
        self.per_token = per_token;
        for numbers in [&mut self.row_of, &mut self.pair_of] {
            numbers.clear();
            numbers.resize(rows * per_token, 0);
        }
        self.experts.clear();
        self.experts.resize(rows * per_token, 0);
        self.weights.clear();
        self.weights.resize(rows * per_token, 0.0);
    }

    /// Brings the pairs into the order of experts by counting.
    pub(crate) fn group(&mut self, experts: usize) {
        let mut ends = vec![0; experts];
        for expert in &self.experts {
            ends[*expert as usize] += 1;
        }
        self.segments.clear();
        let mut first = 0;
        for (expert, count) in ends.iter_mut().enumerate() {
            if *count > 0 {
                self.segments.push(Segment { expert, first, pairs: *count });
            }
            (first, *count) = (first + *count, first);
        }
        // Where the next pair of each expert goes.
        let mut next = ends;
        for (at, expert) in self.experts.iter().enumerate() {
            let pair = next[*expert as usize];
            next[*expert as usize] += 1;
            self.row_of[pair] = at / self.per_token;
            self.pair_of[at] = pair;
        }
    }
}

/// The plainest form: experts and weights, `[rows, per_token]`, by sorting and in double precision.
pub(crate) fn reference(logits: &[f32], routing: Routing) -> (Vec<u32>, Vec<f32>) {
    let (mut experts, mut weights) = (Vec::new(), Vec::new());
    for row in logits.chunks_exact(routing.experts) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        let chosen = &order[..routing.per_token];
        let power = |expert: &usize| f64::from(row[*expert] - row[order[0]]).exp();
        let total: f64 = match routing.scoring {
            Scoring::SoftmaxOfAll => order.iter().map(power).sum(),
            Scoring::SoftmaxOfChosen => chosen.iter().map(power).sum(),
        };
        experts.extend(chosen.iter().map(|expert| *expert as u32));
        weights.extend(chosen.iter().map(|expert| (power(expert) / total) as f32));
    }
    (experts, weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Probe, close, on_each_device, random};

    fn agrees<D: Probe>(device: &mut D, label: &str) {
        for (rows, experts, per_token) in [(1, 4, 2), (7, 16, 4), (33, 128, 8), (3, 5, 5), (9, 3, 1)] {
            // Few different values, so that there are equals.
            let values: Vec<f32> =
                random(rows * experts, 5).iter().map(|x| (x * 40.0).round() / 10.0).collect();
            let logits = device.floats(&values, experts);
            for scoring in [Scoring::SoftmaxOfAll, Scoring::SoftmaxOfChosen] {
                let routing = Routing { experts, per_token, scoring };
                let mut routes = D::Routes::default();
                device.route(&logits, routing, &mut routes);
                let (chosen, weights) = device.chosen(&routes);
                let want = reference(&values, routing);
                assert_eq!(chosen, want.0, "{label} {routing:?}");
                close(label, &weights, &want.1, 1e-6);
            }
        }
    }

    #[test]
    fn every_device_makes_the_same_choice() {
        on_each_device!(agrees);
    }

    #[test]
    fn known_weights() {
        let routing = |scoring| Routing { experts: 3, per_token: 2, scoring };
        let logits = [0.0, 3f32.ln(), 0.0];
        let (experts, all) = reference(&logits, routing(Scoring::SoftmaxOfAll));
        assert_eq!((experts, all), (vec![1, 0], vec![0.6, 0.2]));
        let (_, chosen) = reference(&logits, routing(Scoring::SoftmaxOfChosen));
        assert_eq!(chosen, [0.75, 0.25]);
    }

    #[test]
    fn pairs_are_in_the_order_of_experts() {
        let mut routes = Routes::default();
        routes.clear(3, 2);
        routes.experts.copy_from_slice(&[2, 0, 0, 3, 2, 3]);
        routes.group(5);
        assert_eq!(routes.row_of, [0, 1, 0, 2, 1, 2]);
        assert_eq!(routes.pair_of, [2, 0, 1, 4, 3, 5]);
        let segment = |expert, first| Segment { expert, first, pairs: 2 };
        assert_eq!(routes.segments, [segment(0, 0), segment(2, 2), segment(3, 4)]);
    }
}
