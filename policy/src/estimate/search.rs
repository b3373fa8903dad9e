//! The cheapest places among all pairs, without looking at all pairs.
//!
//! The cost of a pair is the prefill worker's part + the decode worker's part + what of the transfer is not hidden behind computing. The
//! last is `max(tail·T, T - C)` for a transfer of `T` beside a computation of `C`, and `T` depends on the decode worker and on the class of the link. So
//! for each group of decode workers and each class, the two minima `min(d + tail·T)` and `min(d + T)` bound every pair from below (the bound is exact where
//! one decode worker has both). Only groups whose bound is under the worst kept candidate are looked into, cheapest first.

use super::{
    sides::Sides,
    term::{Candidate, Term, Weights},
    tops::Tops,
};
use crate::{
    cost::{LinkCost, TRANSFER_TAIL},
    view::{FleetView, Ms, bits_of},
};

/// Workers to be chosen from, and which kinds of places.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// Prefill workers.
    pub prefill: &'a [usize],
    /// Decode workers.
    pub decode: &'a [usize],
    /// Those of them that may prefill for themselves: a part of `decode`.
    pub local: &'a [usize],
}

/// Buffers of searches, so that a decision allocates nothing once they are large enough.
#[derive(Clone, Debug, Default)]
pub struct Search {
    prefill: Vec<PrefillPart>,
    decode: Vec<DecodePart>,
    // [group]: where its decode workers lie, sorted yet or not.
    ranges: Vec<(usize, usize, bool)>,
    // [group, class]
    floors: Vec<Floor>,
    first: Vec<(f64, usize)>,
    // The decode workers, a bit each.
    decode_bits: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct PrefillPart {
    index: usize,
    group: u16,
    // Before what a late first token counts, of which the least is in the cost.
    lead_ms: Ms,
    late: f64,
    cost: f64,
    compute_ms: Ms,
    bound: f64,
}

#[derive(Clone, Copy, Debug)]
struct DecodePart {
    index: usize,
    group: u16,
    cost: f64,
    admission_ms: Ms,
    bytes: f64,
}

#[derive(Clone, Copy, Debug)]
struct Floor {
    hidden: f64,
    alone: f64,
}

impl Search {
    /// The cheapest places, cheapest first, with their costs. Weights must not be negative. The order of the workers in `span` decides between equals.
    pub fn run(
        &mut self,
        fleet: &FleetView,
        sides: &Sides<'_>,
        span: Span<'_>,
        weights: &Weights,
    ) -> impl Iterator<Item = Candidate> + use<> {
        debug_assert!(weights.0.iter().all(|&weight| weight >= 0.0));
        let mut tops = Tops::default();
        self.prefill.clear();
        self.decode.clear();
        if !span.prefill.is_empty() && !span.decode.is_empty() {
            bits_of(span.decode, &mut self.decode_bits);
            self.decode_parts(fleet, sides, span.decode, weights);
            self.prefill_parts(fleet, sides, span.prefill, weights);
            self.look_into(fleet, sides, weights, &mut tops);
        }
        self.look_at_local(sides, span, weights, &mut tops);
        let kept: Vec<_> = tops.iter().collect();
        kept.into_iter()
    }

    // Last, so that most are passed over for what they cost at least.
    fn look_at_local(&self, sides: &Sides<'_>, span: Span<'_>, weights: &Weights, tops: &mut Tops) {
        let mut look = |decode: usize, generating: f64, admission_ms: Ms| {
            let compute_ms = sides.compute_ms(decode);
            if generating + sides.local_floor(compute_ms, weights) < tops.bound() {
                let terms = sides.local(decode, compute_ms);
                let late = sides.late(terms.ttft_ms() + admission_ms) * weights.get(Term::Objective);
                let cost = generating + terms.cost(weights) + late;
                tops.offer(Candidate { prefill: None, decode, cost });
            }
        };
        if self.decode.len() == span.local.len() {
            self.decode.iter().for_each(|part| look(part.index, part.cost, part.admission_ms));
        } else {
            for &decode in span.local {
                let terms = sides.decode(decode);
                look(decode, terms.cost(weights), terms.get(Term::Admission));
            }
        }
    }

    /// Prefill workers of the last search for its decode worker `decode`, best first, without `first`.
    pub fn rank_prefill(
        &self,
        fleet: &FleetView,
        sides: &Sides<'_>,
        (first, decode): (usize, usize),
        weights: &Weights,
    ) -> Vec<usize> {
        let mut best = Tops::default();
        let admission_ms = sides.decode(decode).get(Term::Admission);
        for part in &self.prefill {
            if part.index == first
                || part.index == decode
                || part.cost >= best.bound()
                || !fleet.links.is_connected(part.index, decode)
            {
                continue;
            }
            let pair = sides.pair(part.index, decode, part.compute_ms);
            let cost =
                part.cost + pair.cost(weights) + part.later(sides, admission_ms + pair.ttft_ms(), weights);
            best.offer(Candidate { prefill: Some(part.index), decode, cost });
        }
        best.iter().filter_map(|candidate| candidate.prefill).collect()
    }

    fn decode_parts(&mut self, fleet: &FleetView, sides: &Sides<'_>, span: &[usize], weights: &Weights) {
        let groups = fleet.links.groups().max(1);
        let classes = fleet.links.classes();
        self.decode.clear();
        self.decode.extend(span.iter().map(|&index| {
            let terms = sides.decode(index);
            DecodePart {
                index,
                group: fleet.workers[index].group.min(groups as u16 - 1),
                cost: terms.cost(weights),
                admission_ms: terms.get(Term::Admission),
                bytes: sides.transfer_bytes(index),
            }
        }));
        if groups > 1 {
            self.decode.sort_by_key(|part| part.group);
        }
        self.ranges.clear();
        self.ranges.resize(groups, (0, 0, false));
        self.floors.clear();
        self.floors.resize(groups * classes.len(), Floor { hidden: f64::INFINITY, alone: f64::INFINITY });
        let transfer_weight = weights.get(Term::Transfer);
        for (at, part) in self.decode.iter().enumerate() {
            let group = usize::from(part.group);
            let range = &mut self.ranges[group];
            *range = if range.1 == 0 { (at, at + 1, false) } else { (range.0, at + 1, false) };
            for (class, floor) in classes.iter().zip(&mut self.floors[group * classes.len()..]) {
                let transfer = class.cost.transfer_ms(part.bytes) * transfer_weight;
                floor.hidden = floor.hidden.min(part.cost + transfer * TRANSFER_TAIL);
                floor.alone = floor.alone.min(part.cost + transfer);
            }
        }
    }

    fn prefill_parts(&mut self, fleet: &FleetView, sides: &Sides<'_>, span: &[usize], weights: &Weights) {
        self.prefill.clear();
        self.first.clear();
        let admission_ms = self.decode.iter().map(|part| part.admission_ms).fold(f64::INFINITY, f64::min);
        for &index in span {
            // Those that reach nobody would be compared with everybody in vain, as no pair of theirs ever is a bound.
            if !fleet.links.reaches_any(index, &self.decode_bits) {
                continue;
            }
            let compute_ms = sides.compute_ms(index);
            let terms = sides.prefill(index, compute_ms);
            let lead_ms = terms.ttft_ms();
            let late = sides.late(lead_ms + admission_ms) * weights.get(Term::Objective);
            let cost = terms.cost(weights) + late;
            let group = fleet.workers[index].group;
            let mut part =
                PrefillPart { index, group, lead_ms, late, cost, compute_ms, bound: f64::INFINITY };
            for to in 0..self.ranges.len() {
                part.bound = part.bound.min(self.group_bound(fleet, &part, to, weights));
            }
            if part.bound.is_finite() {
                note_first(&mut self.first, part.bound, self.prefill.len());
                self.prefill.push(part);
            }
        }
    }

    fn group_bound(&self, fleet: &FleetView, part: &PrefillPart, to: usize, weights: &Weights) -> f64 {
        let classes = fleet.links.classes();
        let class = fleet.links.class(part.group, to as u16);
        let Some(floor) = self.floors.get(to * classes.len() + class) else {
            // A fleet without links: nothing is connected.
            return f64::INFINITY;
        };
        let overlap = part.compute_ms * weights.get(Term::Transfer);
        part.cost
            + floor.hidden.max(floor.alone - overlap)
            + classes[class].distance * weights.get(Term::Topology)
    }

    fn look_into(&mut self, fleet: &FleetView, sides: &Sides<'_>, weights: &Weights, tops: &mut Tops) {
        for at in 0..self.first.len() {
            self.look_at(self.first[at].1, fleet, sides, weights, tops);
        }
        for at in 0..self.prefill.len() {
            if self.prefill[at].bound < tops.bound() && !self.first.iter().any(|first| first.1 == at) {
                self.look_at(at, fleet, sides, weights, tops);
            }
        }
    }

    fn look_at(
        &mut self,
        at: usize,
        fleet: &FleetView,
        sides: &Sides<'_>,
        weights: &Weights,
        tops: &mut Tops,
    ) {
        let part = self.prefill[at];
        for to in 0..self.ranges.len() {
            if self.group_bound(fleet, &part, to, weights) < tops.bound() {
                self.sort_group(to);
                self.look_at_group(&part, to, fleet, sides, weights, tops);
            }
        }
    }

    fn look_at_group(
        &self,
        part: &PrefillPart,
        to: usize,
        fleet: &FleetView,
        sides: &Sides<'_>,
        weights: &Weights,
        tops: &mut Tops,
    ) {
        let class = &fleet.links.classes()[fleet.links.class(part.group, to as u16)];
        let fixed = part.cost + class.distance * weights.get(Term::Topology);
        let (begin, end, _) = self.ranges[to];
        for decode in &self.decode[begin..end] {
            if fixed + decode.cost >= tops.bound() {
                return;
            }
            if part.index == decode.index || !fleet.links.is_connected(part.index, decode.index) {
                continue;
            }
            let transfer = class.cost.transfer_ms(decode.bytes);
            let exposed = LinkCost::exposed_ms(transfer, part.compute_ms);
            let later = part.later(sides, decode.admission_ms + exposed, weights);
            let cost = fixed + decode.cost + exposed * weights.get(Term::Transfer) + later;
            tops.offer(Candidate { prefill: Some(part.index), decode: decode.index, cost });
        }
    }

    // Only groups that are looked into are sorted; a stable sort keeps the order among equals.
    fn sort_group(&mut self, group: usize) {
        let (begin, end, is_sorted) = &mut self.ranges[group];
        if !*is_sorted {
            *is_sorted = true;
            self.decode[*begin..*end].sort_by(|a, b| a.cost.total_cmp(&b.cost));
        }
    }
}

impl PrefillPart {
    // What it counts that the first token comes `more_ms` after the prompt is computed, beside what was counted before.
    fn later(&self, sides: &Sides<'_>, more_ms: Ms, weights: &Weights) -> f64 {
        sides.late(self.lead_ms + more_ms) * weights.get(Term::Objective) - self.late
    }
}

/// Prefill workers that are looked at first, so that the others meet a low bound.
const FIRST: usize = 4;

fn note_first(first: &mut Vec<(f64, usize)>, bound: f64, at: usize) {
    if first.len() == FIRST && first[FIRST - 1].0 <= bound {
        return;
    }
    let place = first.iter().position(|other| bound < other.0).unwrap_or(first.len());
    first.insert(place, (bound, at));
    first.truncate(FIRST);
}
