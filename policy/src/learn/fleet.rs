//! Everything that is learned, by worker and by class of links.

use std::collections::BTreeMap;

use baton_profile::Regression;

use super::{output::OutputLengths, quantile::Quantiles};
use crate::{
    cost::{BESIDE, DecodeCost, LinkCost, PrefillCost, TierCost, WorkerCosts},
    view::Ms,
};

/// A worker says something of the fleet once it has done so much: anything, or those that nobody has tried yet would be taken for
/// what is published, which may be far off, and never be tried.
const ENOUGH: u64 = 1;

/// What a worker itself has shown counts half once it is so much: prompts, and reports of steps, of which there are five a second. Until then
/// most of a difference between two workers is chance, and one that was unlucky at first would not be tried again.
const TRUSTED_PROMPTS: f64 = 32.0;
const TRUSTED_REPORTS: f64 = 200.0;

/// What is beyond is a disturbance.
const MOST_BESIDE: f64 = 16.0;

/// Learns from what happened.
#[derive(Clone, Debug, Default)]
pub struct Learner {
    /// In an order of their own, so that their mean is the same to the last bit in each run.
    workers: BTreeMap<String, WorkerModel>,
    /// Of the fleet, and how much was learned since.
    mean: WorkerCosts,
    unseen: usize,
    version: u64,
    links: Vec<Regression<2>>,
    /// Times of prompts beside those who generate, by what they would have taken alone.
    beside: Quantiles,
    /// Tokens that requests generate.
    pub outputs: OutputLengths,
    /// Actual by predicted time to first token.
    pub ttft_ratio: Quantiles,
    /// Milliseconds between actual and predicted time to first token.
    pub ttft_error_ms: Quantiles,
}

#[derive(Clone, Debug)]
struct WorkerModel {
    prefill: Regression<3>,
    decode: Regression<3>,
    tiers: TierCost,
}

impl Learner {
    /// A worker is there (again): it begins at the fleet's mean, or at what is published.
    pub fn joined(&mut self, worker: &str) -> WorkerCosts {
        if !self.workers.contains_key(worker) {
            self.look_at_all();
            let mean = self.mean;
            // What is published is of some other hardware: it says what takes more than what, but not how long.
            let is_known = |model: fn(&WorkerModel) -> &Regression<3>| {
                self.workers.values().any(|worker| model(worker).observations() >= ENOUGH)
            };
            let begin = |is_known, costs| match is_known {
                true => Regression::new(costs),
                false => Regression::in_proportion(costs),
            };
            let model = WorkerModel {
                prefill: begin(is_known(|worker| &worker.prefill), prefill_array(&mean.prefill)),
                decode: begin(is_known(|worker| &worker.decode), decode_array(&mean.decode)),
                tiers: mean.tiers,
            };
            self.workers.insert(worker.to_owned(), model);
        }
        self.costs(worker)
    }

    /// A worker is gone for good.
    pub fn left(&mut self, worker: &str) {
        self.workers.remove(worker);
    }

    /// What work takes at `worker`.
    #[must_use]
    pub fn costs(&self, worker: &str) -> WorkerCosts {
        let Some(model) = self.workers.get(worker) else { return self.mean };
        let (own, mean) = (model.costs(), &self.mean);
        WorkerCosts {
            prefill: prefill_cost(blend(
                (&model.prefill, TRUSTED_PROMPTS),
                prefill_array(&own.prefill),
                prefill_array(&mean.prefill),
            )),
            decode: decode_cost(blend(
                (&model.decode, TRUSTED_REPORTS),
                decode_array(&own.decode),
                decode_array(&mean.decode),
            )),
            beside: mean.beside,
            ..own
        }
    }

    /// The mean over all workers is looked at again once all may have changed, or one is the first to say something.
    fn learned(&mut self, is_first: bool) {
        self.unseen += 1;
        if is_first || self.unseen >= self.workers.len() {
            self.look_at_all();
        }
    }

    fn look_at_all(&mut self) {
        self.unseen = 0;
        self.mean = self.fleet_mean();
        self.version += 1;
    }

    /// Grows whenever the costs of all workers have changed, also of those that did nothing: they are compared with each other, so all have to be
    /// asked for again.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A prompt that would have taken `alone_ms` alone took `took_ms` from its first step to its last, beside those who generate.
    pub fn prompt_beside(&mut self, alone_ms: Ms, took_ms: Ms) {
        if alone_ms > 0.0 {
            self.beside.add((took_ms / alone_ms).clamp(1.0, MOST_BESIDE));
        }
    }

    /// `worker` computed `new_tokens` after `cached_tokens` in `took_ms`, without waiting.
    pub fn prefilled(
        &mut self,
        worker: &str,
        new_tokens: u64,
        cached_tokens: u64,
        took_ms: Ms,
    ) -> WorkerCosts {
        let [_, tokens, pairs] = PrefillCost::features(new_tokens, cached_tokens);
        self.prompts_stepped(worker, tokens, pairs, took_ms)
    }

    /// A step of `worker` that only computed `tokens` of prompts, with so many `pairs` ([`PrefillCost`]), took `step_ms`; means over several steps are as good. What a
    /// prompt took from its beginning to its end says less, where others are computed in the same steps.
    pub fn prompts_stepped(&mut self, worker: &str, tokens: f64, pairs: f64, step_ms: Ms) -> WorkerCosts {
        self.joined(worker);
        if let Some(model) = self.workers.get_mut(worker) {
            model.prefill.observe(&[1.0, tokens, pairs], step_ms);
            let is_first = model.prefill.observations() == ENOUGH;
            self.learned(is_first);
        }
        self.costs(worker)
    }

    /// A step of `worker` with so many sequences of so many tokens together took `step_ms`.
    pub fn stepped(&mut self, worker: &str, sequences: f64, context_tokens: f64, step_ms: Ms) -> WorkerCosts {
        self.joined(worker);
        if let Some(model) = self.workers.get_mut(worker) {
            model.decode.observe(&[1.0, sequences, context_tokens], step_ms);
            let is_first = model.decode.observations() == ENOUGH;
            self.learned(is_first);
        }
        self.costs(worker)
    }

    /// A transfer of `bytes` over links of `class` took `took_ms` from its first write on; `prior` is what was believed before the first.
    pub fn transferred(&mut self, class: usize, prior: LinkCost, bytes: f64, took_ms: Ms) -> LinkCost {
        while self.links.len() <= class {
            self.links.push(Regression::in_proportion([prior.fixed_ms, prior.per_byte_ms]));
        }
        self.links[class].observe(&[1.0, bytes], took_ms);
        let [fixed_ms, per_byte_ms] = self.links[class].coefficients();
        LinkCost { fixed_ms, per_byte_ms }
    }

    /// How right a prediction was.
    pub fn first_token(&mut self, predicted_ms: Ms, actual_ms: Ms) {
        self.ttft_error_ms.add((actual_ms - predicted_ms).abs());
        if predicted_ms > 0.0 {
            self.ttft_ratio.add(actual_ms / predicted_ms);
        }
    }

    fn fleet_mean(&self) -> WorkerCosts {
        let published = WorkerCosts::default();
        let prefill = mean(self.workers.values().map(|worker| &worker.prefill));
        let decode = mean(self.workers.values().map(|worker| &worker.decode));
        WorkerCosts {
            prefill: prefill.map_or(published.prefill, prefill_cost),
            decode: decode.map_or(published.decode, decode_cost),
            tiers: published.tiers,
            // The middle, as those that wait for another prompt's steps to end take longer.
            beside: self.beside.quantile(0.5).unwrap_or(BESIDE).max(1.0),
        }
    }
}

impl WorkerModel {
    fn costs(&self) -> WorkerCosts {
        WorkerCosts {
            prefill: prefill_cost(self.prefill.coefficients()),
            decode: decode_cost(self.decode.coefficients()),
            tiers: self.tiers,
            beside: BESIDE,
        }
    }
}

/// What a worker has never done is taken from those who have; the more it has done, the more its own counts.
fn blend((model, trusted): (&Regression<3>, f64), own: [f64; 3], mean: [f64; 3]) -> [f64; 3] {
    let observations = model.observations() as f64;
    let share = observations / (observations + trusted);
    std::array::from_fn(|k| own[k] * share + mean[k] * (1.0 - share))
}

fn mean<'a>(models: impl Iterator<Item = &'a Regression<3>>) -> Option<[f64; 3]> {
    let (sum, count) = models
        .filter(|model| model.observations() >= ENOUGH)
        .map(Regression::coefficients)
        .fold(([0.0; 3], 0.0), |(sum, count), each| (std::array::from_fn(|k| sum[k] + each[k]), count + 1.0));
    (count > 0.0).then(|| sum.map(|sum| sum / count))
}

fn prefill_array(cost: &PrefillCost) -> [f64; 3] {
    [cost.fixed_ms, cost.per_token_ms, cost.per_pair_ms]
}

fn prefill_cost([fixed_ms, per_token_ms, per_pair_ms]: [f64; 3]) -> PrefillCost {
    PrefillCost { fixed_ms, per_token_ms, per_pair_ms }
}

fn decode_array(cost: &DecodeCost) -> [f64; 3] {
    [cost.fixed_ms, cost.per_sequence_ms, cost.per_context_token_ms]
}

fn decode_cost([fixed_ms, per_sequence_ms, per_context_token_ms]: [f64; 3]) -> DecodeCost {
    DecodeCost { fixed_ms, per_sequence_ms, per_context_token_ms }
}
