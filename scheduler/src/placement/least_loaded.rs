//! Placement by load alone.

use std::{cmp::Reverse, time::Instant};

use super::{
    AVOID_AFTER_FAILURE, DecodeView, FleetView, MOST_PREFILL_CANDIDATES, Placement, PlacementPolicy,
    PlacementRefused, PlacementRequest, PrefillView,
};
use crate::error::{NeverFits, NoDecodeWorker, NoSuchAdapter};

/// The decode worker with the fewest requests, then the most free blocks; of the prefill workers that are connected to it,
/// those with the fewest prompt tokens ahead. A request with an adapter goes to those that have it, with the same weights.
///
/// A worker's report is up to a fifth of a second old, and counts other schedulers' requests; this scheduler's own count
/// is exact, and knows only its own. Each is a lower bound of the truth, so the larger one is taken. Equals take turns.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastLoaded;

impl PlacementPolicy for LeastLoaded {
    fn place(
        &self,
        request: &PlacementRequest<'_>,
        fleet: &FleetView,
        now: Instant,
    ) -> Result<Placement, PlacementRefused> {
        let decode = choose_decode(request, &fleet.decode, now)?;
        Ok(Placement { decode, prefill: rank_prefill(request, &fleet.decode[decode], &fleet.prefill) })
    }
}

fn choose_decode(
    request: &PlacementRequest<'_>,
    workers: &[DecodeView],
    now: Instant,
) -> Result<usize, PlacementRefused> {
    let needed_tokens = request.prompt_tokens + request.max_tokens;
    let open = |worker: &DecodeView| !worker.is_draining && !request.tried.contains(&worker.worker_id);
    let has_adapter =
        |worker: &DecodeView| request.adapter.is_none_or(|name| worker.adapters.contains_key(name));
    if let Some(name) = request.adapter
        && workers.iter().any(open)
        && !workers.iter().any(|worker| open(worker) && has_adapter(worker))
    {
        return Err(NoSuchAdapter { name: name.to_owned() }.into());
    }
    let open = |worker: &DecodeView| open(worker) && has_adapter(worker);
    let candidates = workers.iter().enumerate().filter(|(_, worker)| open(worker));
    let fitting = candidates.clone().filter(|(_, worker)| worker.capacity_tokens >= needed_tokens);
    let chosen = fitting.min_by_key(|(_, worker)| {
        (
            worker.failed_at.is_some_and(|at| now.saturating_duration_since(at) < AVOID_AFTER_FAILURE),
            worker.reported_requests.max(worker.in_flight_requests),
            Reverse(worker.blocks_free),
            worker.placed,
        )
    });
    if let Some((index, _)) = chosen {
        return Ok(index);
    }
    let largest = candidates.map(|(_, worker)| worker.capacity_tokens).max();
    Err(match largest {
        None => {
            NoDecodeWorker { draining: workers.iter().filter(|worker| worker.is_draining).count() }.into()
        }
        Some(capacity_tokens) => {
            let (prompt_tokens, max_tokens) = (request.prompt_tokens, request.max_tokens);
            NeverFits { needed_tokens, prompt_tokens, max_tokens, capacity_tokens }.into()
        }
    })
}

fn rank_prefill(request: &PlacementRequest<'_>, decode: &DecodeView, workers: &[PrefillView]) -> Vec<usize> {
    let is_open = |worker: &PrefillView| {
        !worker.is_draining
            && worker.connected.get(&decode.worker_id) == Some(&decode.incarnation)
            && request.adapter.is_none_or(|name| worker.adapters.get(name) == decode.adapters.get(name))
    };
    let mut open: Vec<usize> = (0..workers.len()).filter(|&index| is_open(&workers[index])).collect();
    open.sort_by_key(|&index| {
        let worker = &workers[index];
        (worker.reported_prompt_tokens.max(worker.in_flight_prompt_tokens), worker.placed)
    });
    open.truncate(MOST_PREFILL_CANDIDATES);
    open
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use super::*;

    const SMALL: PlacementRequest<'_> =
        PlacementRequest { prompt_tokens: 10, max_tokens: 10, tried: &[], adapter: None };

    fn decode(worker_id: &str) -> DecodeView {
        DecodeView { worker_id: worker_id.to_owned(), capacity_tokens: 1_000, ..DecodeView::default() }
    }

    fn check(
        request: PlacementRequest<'_>,
        decode: Vec<DecodeView>,
        expected: Result<usize, PlacementRefused>,
    ) {
        let fleet = FleetView { decode, prefill: Vec::new() };
        let placed = LeastLoaded.place(&request, &fleet, Instant::now());
        assert_eq!(placed.map(|placement| placement.decode), expected);
    }

    #[test]
    fn the_worker_with_the_fewest_requests_is_chosen() {
        let busy = DecodeView { reported_requests: 2, ..decode("a") };
        check(SMALL, vec![busy, decode("b")], Ok(1));
    }

    #[test]
    fn own_requests_count_before_the_worker_has_reported_them() {
        let sent = DecodeView { in_flight_requests: 3, ..decode("a") };
        let reported = DecodeView { reported_requests: 2, ..decode("b") };
        check(SMALL, vec![sent, reported], Ok(1));
    }

    #[test]
    fn equals_go_by_free_blocks_and_then_take_turns() {
        let full = DecodeView { blocks_free: 1, ..decode("a") };
        let free = DecodeView { blocks_free: 5, placed: 9, ..decode("b") };
        check(SMALL, vec![full, free], Ok(1));
        check(SMALL, vec![DecodeView { placed: 1, ..decode("a") }, decode("b")], Ok(1));
    }

    #[test]
    fn draining_tried_and_lately_failed_workers_are_passed_over() {
        let draining = DecodeView { is_draining: true, ..decode("a") };
        let tried = ["b".to_owned()];
        let failed = DecodeView { failed_at: Some(Instant::now()), ..decode("c") };
        let busy = DecodeView { reported_requests: 50, ..decode("d") };
        let request = PlacementRequest { tried: &tried, ..SMALL };
        check(request, vec![draining.clone(), decode("b"), failed.clone(), busy], Ok(3));
        // Better one that failed a moment ago than none.
        check(request, vec![draining.clone(), decode("b"), failed], Ok(2));
        check(request, vec![draining, decode("b")], Err(NoDecodeWorker { draining: 1 }.into()));
    }

    #[test]
    fn a_failure_is_forgotten_after_a_while() {
        let now = Instant::now();
        let failed = DecodeView { failed_at: Some(now), ..decode("a") };
        let busy = DecodeView { reported_requests: 1, ..decode("b") };
        let fleet = FleetView { decode: vec![failed, busy], prefill: Vec::new() };
        let later = |after| LeastLoaded.place(&SMALL, &fleet, now + after).unwrap().decode;
        assert_eq!(later(Duration::ZERO), 1);
        assert_eq!(later(AVOID_AFTER_FAILURE), 0);
    }

    #[test]
    fn a_request_that_fits_nowhere_is_refused_with_both_numbers() {
        let request = PlacementRequest { prompt_tokens: 990, max_tokens: 11, tried: &[], adapter: None };
        let refused =
            NeverFits { needed_tokens: 1_001, prompt_tokens: 990, max_tokens: 11, capacity_tokens: 1_000 };
        check(request, vec![decode("a")], Err(refused.into()));
        let large = DecodeView { capacity_tokens: 2_000, reported_requests: 9, ..decode("b") };
        check(request, vec![decode("a"), large], Ok(1));
    }

    #[test]
    fn prefill_workers_are_ranked_by_the_prompt_tokens_ahead() {
        let worker = |reported, in_flight, placed| PrefillView {
            reported_prompt_tokens: reported,
            in_flight_prompt_tokens: in_flight,
            placed,
            connected: connected_to("d", 1),
            ..PrefillView::default()
        };
        let draining = PrefillView { is_draining: true, ..worker(0, 0, 0) };
        let workers = [worker(500, 0, 0), worker(10, 900, 0), draining, worker(0, 0, 2), worker(0, 0, 1)];
        assert_eq!(
            rank_prefill(&SMALL, &DecodeView { incarnation: 1, ..decode("d") }, &workers),
            [4, 3, 0, 1]
        );
    }

    fn connected_to(decode: &str, incarnation: u64) -> Arc<BTreeMap<String, u64>> {
        Arc::new([(decode.to_owned(), incarnation)].into())
    }

    #[test]
    fn only_prefill_workers_that_are_connected_to_the_chosen_one_are_ranked() {
        let worker = |connected, ahead| PrefillView {
            connected,
            reported_prompt_tokens: ahead,
            ..PrefillView::default()
        };
        let prefill = [
            worker(Arc::default(), 0),
            worker(connected_to("other", 2), 0),
            worker(connected_to("d", 1), 0),
            worker(connected_to("d", 2), 9),
            worker(connected_to("d", 2), 8),
        ];
        let chosen = DecodeView { incarnation: 2, ..decode("d") };
        assert_eq!(
            rank_prefill(&SMALL, &chosen, &prefill),
            [4, 3],
            "not those connected to nobody, others or its former life"
        );
        assert_eq!(
            rank_prefill(&SMALL, &DecodeView { incarnation: 3, ..decode("d") }, &prefill),
            [0; 0],
            "it prefills itself"
        );
        // The decode worker is chosen by its own load, whoever is connected to it.
        let busy = DecodeView { reported_requests: 5, ..chosen };
        let fleet = FleetView { decode: vec![busy, decode("idle")], prefill: prefill.to_vec() };
        let placed = LeastLoaded.place(&SMALL, &fleet, Instant::now()).unwrap();
        assert_eq!(placed, Placement { decode: 1, prefill: vec![] });
    }
    #[test]
    fn a_request_with_an_adapter_goes_where_the_same_one_is() {
        let with = |revision: &str| Arc::new(BTreeMap::from([("a".to_owned(), revision.to_owned())]));
        let request = PlacementRequest { adapter: Some("a"), ..SMALL };
        let busy = DecodeView { reported_requests: 9, adapters: with("1"), ..decode("d") };
        check(request, vec![decode("idle"), busy.clone()], Ok(1));
        check(request, vec![decode("idle")], Err(NoSuchAdapter { name: "a".to_owned() }.into()));
        check(request, vec![], Err(NoDecodeWorker { draining: 0 }.into()));
        let worker =
            |adapters| PrefillView { connected: connected_to("d", 0), adapters, ..PrefillView::default() };
        let prefill = [worker(Arc::default()), worker(with("2")), worker(with("1"))];
        assert_eq!(
            rank_prefill(&request, &busy, &prefill),
            [2],
            "nobody without it, nobody with other weights"
        );
        assert_eq!(rank_prefill(&SMALL, &busy, &prefill).len(), 3, "the model alone is everywhere");
    }
}
