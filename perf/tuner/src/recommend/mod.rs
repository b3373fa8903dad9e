//! The best split: bounds prune, simulations on the same requests rank, and what is told has an interval.

mod interval;

use serde::Serialize;

use crate::{Bound, Goodput, Sample, Search, Split, Summary, TuneError, simulate::WHOLE_REQUEST, summary};
pub use interval::Compared;

/// How thorough it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Options {
    /// Workers to be divided.
    pub workers: usize,
    /// Change of lengths for the sensitivity, as a share.
    pub shift: f64,
}

/// A sample shorter than so many requests' lives ends before queues have grown.
const LEAST_LIVES: f64 = 5.0;

impl Recommendation {
    /// How long the sample lasts at the goodput and how long a request takes then, seconds, if that is too short for a rate that lasts.
    #[must_use]
    pub fn too_short(&self) -> Option<(f64, f64)> {
        let lasts = self.requests as f64 / self.per_second;
        let whole = self.at_goodput.times.iter().find(|(name, _)| *name == WHOLE_REQUEST);
        let takes = whole.map_or(0.0, |(_, times)| times.mean / 1e3);
        (lasts < LEAST_LIVES * takes).then_some((lasts, takes))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 4, shift: 0.25 }
    }
}

/// A split, and what it gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// Which.
    pub split: Split,
    /// Requests a second that it can't exceed for long.
    pub bound: f64,
    /// What was simulated, by seed; empty where the bound excluded it.
    pub goodputs: Vec<Goodput>,
    /// Their mean (geometric), requests a second; none where the bound excluded it.
    pub per_second: Option<f64>,
}

/// What may be otherwise than in the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShiftKind {
    /// Requests come in bursts.
    Burstier,
    /// Prompts are longer.
    LongerPrompts,
    /// Prompts are shorter.
    ShorterPrompts,
    /// Answers are longer.
    LongerAnswers,
    /// Answers are shorter.
    ShorterAnswers,
}

/// What becomes of the recommendation then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shift {
    /// What changes.
    pub kind: ShiftKind,
    /// Goodput of the recommended split, requests a second.
    pub recommended: f64,
    /// The best of it, its neighbours and the aggregated one.
    pub best: Split,
    /// The best one's goodput.
    pub best_per_second: f64,
}

/// What one worker more would buy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Next {
    /// How it would be used.
    pub split: Split,
    /// Goodput then, requests a second, with the first seed.
    pub per_second: f64,
    /// Without it, with the same seed.
    pub now_per_second: f64,
}

/// What is recommended, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    /// The split.
    pub split: Split,
    /// Its goodput, requests a second.
    pub per_second: f64,
    /// The other kind's best: apart where this is aggregated, aggregated where this is apart.
    pub other: Option<Split>,
    /// Goodput of the best split apart by that of the aggregated one.
    pub apart_by_aggregated: Option<Compared>,
    /// The best split apart is ahead, but not beyond doubt.
    pub is_for_simplicity: bool,
    /// All, by their number of prefill workers.
    pub ranked: Vec<Ranked>,
    /// At the sample's own rate.
    pub at_own_rate: Summary,
    /// At its goodput.
    pub at_goodput: Summary,
    /// Requests a second of the sample.
    pub own_per_second: f64,
    /// Sensitivity.
    pub shifts: Vec<Shift>,
    /// One worker more.
    pub next: Option<Next>,
    /// The mean request's work.
    pub bound: Bound,
    /// How thorough it was.
    pub options: Options,
    /// How many requests were simulated each time.
    pub requests: usize,
    /// How often they were drawn.
    pub samples: usize,
}

/// A bound is not exceeded for long, but a short simulation may end before a queue has grown.
const BOUND_SLACK: f64 = 1.15;
/// Splits as good as this share of the best are compared with all seeds.
const NEAR: f64 = 0.85;
const MOST_COMPARED: usize = 4;

/// Finds the best split of `options.workers` workers for the first of `samples`; the others are the same traffic drawn again, for intervals.
///
/// # Errors
/// [`TuneError`].
pub fn recommend(
    search: &Search,
    samples: &[Sample],
    options: &Options,
) -> Result<Recommendation, TuneError> {
    let sample = samples.first().ok_or(TuneError::NoTimes)?;
    let own_per_second = sample.per_second().ok_or(TuneError::NoTimes)?;
    let bound = Bound::new(sample, &search.profile, &search.objective);
    let mut ranked = first_look(search, sample, &bound, options.workers)?;
    look_closer(search, samples, &mut ranked)?;
    ranked.sort_by_key(|ranked| ranked.split);
    let goodput = |ranked: &&Ranked| ranked.per_second.unwrap_or(0.0);
    let best = |is_aggregated: bool| {
        let of_kind = ranked.iter().filter(|ranked| ranked.split.is_aggregated() == is_aggregated);
        of_kind.max_by(|a, b| goodput(a).total_cmp(&goodput(b)))
    };
    let (Some(aggregated), apart) = (best(true), best(false)) else { return Err(TuneError::NoWorkers) };
    let compared = apart.map(|apart| Compared::new(&apart.goodputs, &aggregated.goodputs));
    let is_ahead = apart.is_some_and(|apart| goodput(&apart) > goodput(&aggregated));
    let is_sure = compared.flatten().is_some_and(|compared| compared.low > 1.0)
        || (is_ahead && goodput(&aggregated) <= 0.0);
    let (chosen, other) = match apart {
        Some(apart) if is_ahead && is_sure => (apart, Some(aggregated.split)),
        _ => (aggregated, apart.map(|apart| apart.split)),
    };
    if goodput(&chosen) <= 0.0 {
        return Err(TuneError::NeverMet);
    }
    let traffic = sample.traffic()?;
    let own = search.simulate(chosen.split, &traffic, 0)?;
    let at_goodput = search.simulate(chosen.split, &traffic.scaled(own_per_second / goodput(&chosen)), 0)?;
    Ok(Recommendation {
        split: chosen.split,
        per_second: goodput(&chosen),
        other,
        apart_by_aggregated: compared.flatten(),
        is_for_simplicity: is_ahead && !is_sure,
        at_own_rate: summary(&own, &search.objective),
        at_goodput: summary(&at_goodput, &search.objective),
        own_per_second,
        shifts: shifts(search, sample, chosen, options)?,
        next: next(search, sample, chosen, &bound)?,
        bound,
        options: *options,
        requests: sample.requests().len(),
        samples: samples.len(),
        ranked,
    })
}

// With the first seed, the most promising first, until bounds exclude the others. The aggregated one is always simulated.
fn first_look(
    search: &Search,
    sample: &Sample,
    bound: &Bound,
    workers: usize,
) -> Result<Vec<Ranked>, TuneError> {
    let mut splits: Vec<(f64, Split)> =
        Split::all(workers).map(|split| (bound.per_second(split), split)).collect();
    // Those that are balanced have the highest bound when all prompts are handed over; try them first.
    splits.sort_by(|a, b| bound.per_second_apart(b.1).total_cmp(&bound.per_second_apart(a.1)));
    let mut best: f64 = 0.0;
    let mut ranked = Vec::with_capacity(splits.len());
    for (at_most, split) in splits {
        let mut entry = Ranked { split, bound: at_most, goodputs: Vec::new(), per_second: None };
        if split.is_aggregated() || at_most * BOUND_SLACK >= best {
            let guess = (bound.per_second_apart(split) * 0.7).max(best * 0.5);
            let found = search.goodput(split, sample, 0, guess)?;
            best = best.max(found.per_second);
            entry.goodputs.push(found);
            entry.per_second = Some(found.per_second);
        }
        ranked.push(entry);
    }
    Ok(ranked)
}

// The best, and the aggregated one, with all seeds.
fn look_closer(search: &Search, samples: &[Sample], ranked: &mut [Ranked]) -> Result<(), TuneError> {
    ranked.sort_by(|a, b| b.per_second.unwrap_or(0.0).total_cmp(&a.per_second.unwrap_or(0.0)));
    let best = ranked.first().and_then(|ranked| ranked.per_second).unwrap_or(0.0);
    for (seed, sample) in (0..).zip(samples).skip(1) {
        for (place, entry) in ranked.iter_mut().enumerate() {
            let first = entry.goodputs.first().map_or(0.0, |first| first.per_second);
            let is_near = place < MOST_COMPARED && first >= NEAR * best;
            if first > 0.0 && (is_near || entry.split.is_aggregated() || place == 0) {
                entry.goodputs.push(search.goodput(entry.split, sample, seed, first)?);
            }
        }
    }
    for entry in ranked {
        if entry.goodputs.len() > 1 {
            let logs: f64 = entry.goodputs.iter().map(|found| found.per_second.max(1e-9).ln()).sum();
            entry.per_second = Some((logs / entry.goodputs.len() as f64).exp());
        }
    }
    Ok(())
}

fn shifts(
    search: &Search,
    sample: &Sample,
    chosen: &Ranked,
    options: &Options,
) -> Result<Vec<Shift>, TuneError> {
    let (more, less) = (1.0 + options.shift, 1.0 / (1.0 + options.shift));
    let changed = [
        (ShiftKind::Burstier, sample.burstier(1)),
        (ShiftKind::LongerPrompts, sample.stretched(more, 1.0)),
        (ShiftKind::ShorterPrompts, sample.stretched(less, 1.0)),
        (ShiftKind::LongerAnswers, sample.stretched(1.0, more)),
        (ShiftKind::ShorterAnswers, sample.stretched(1.0, less)),
    ];
    let workers = chosen.split.workers();
    let mut others = vec![Split::aggregated(workers)];
    let prefill = chosen.split.prefill;
    let neighbours = [prefill.saturating_sub(1), prefill + 1];
    others.extend(
        neighbours
            .into_iter()
            .filter(|&prefill| prefill > 0 && prefill < workers)
            .map(|prefill| Split { prefill, decode: workers - prefill }),
    );
    others.retain(|split| *split != chosen.split);
    let mut shifts = Vec::new();
    for (kind, changed) in changed {
        let recommended = search.goodput(chosen.split, &changed, 0, chosen.per_second.unwrap_or(1.0))?;
        let (mut best, mut best_per_second) = (chosen.split, recommended.per_second);
        for &other in &others {
            let found = search.goodput(other, &changed, 0, best_per_second.max(1e-3))?;
            if found.per_second > best_per_second {
                (best, best_per_second) = (other, found.per_second);
            }
        }
        shifts.push(Shift { kind, recommended: recommended.per_second, best, best_per_second });
    }
    Ok(shifts)
}

fn next(search: &Search, sample: &Sample, chosen: &Ranked, bound: &Bound) -> Result<Option<Next>, TuneError> {
    let Split { prefill, decode } = chosen.split;
    let now_per_second = chosen.goodputs.first().map_or(0.0, |found| found.per_second);
    let mut splits = vec![Split { prefill, decode: decode + 1 }];
    if prefill > 0 {
        splits.push(Split { prefill: prefill + 1, decode });
    }
    let mut best: Option<Next> = None;
    for split in splits {
        if best.is_some_and(|best| bound.per_second(split) * BOUND_SLACK < best.per_second) {
            continue;
        }
        let found = search.goodput(split, sample, 0, now_per_second)?;
        if best.is_none_or(|best| found.per_second > best.per_second) {
            best = Some(Next { split, per_second: found.per_second, now_per_second });
        }
    }
    Ok(best)
}
