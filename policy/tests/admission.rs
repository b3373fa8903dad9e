//! Admission: each rule, and that nothing is lost, nothing starves and all bounds hold.

use std::collections::{BTreeMap, BTreeSet};

use baton_policy::{
    admission::{Admission, Ask, Gate, Limits, Reason, Refusal, Verdict},
    view::Objective,
};
use proptest::prelude::*;

fn ask(id: u64, tenant: &str, priority: i32, growth_tokens: u64) -> Ask {
    Ask {
        id,
        tenant: tenant.into(),
        weight: 1.0,
        priority,
        growth_tokens,
        objective: Objective::default(),
        predicted_ttft_ms: 100.0,
        predicted_tpot_ms: 10.0,
    }
}

fn limits(queue_requests: usize) -> Limits {
    Limits { queue_requests, ..Limits::default() }
}

fn reason(verdict: Verdict) -> Option<Reason> {
    match verdict {
        Verdict::Refused(refusal) => Some(refusal.reason),
        Verdict::Admitted | Verdict::Queued => None,
    }
}

/// A fleet of 1,000 tokens that is full with request 0.
fn full(limits: Limits) -> Admission {
    let mut admission = Admission::new(limits, 1_000);
    assert_eq!(admission.offer(ask(0, "x", 0, 1_000), 0.0).0, Verdict::Admitted);
    admission
}

fn order(admission: &mut Admission, now: f64) -> Vec<u64> {
    let mut order = Vec::new();
    let mut running = 0;
    loop {
        admission.finished(running, now);
        let Some(next) = admission.next(now) else { return order };
        running = next.id;
        order.push(running);
    }
}

#[test]
fn growth_is_reserved_from_admission_on() {
    let mut admission = Admission::new(limits(10), 1_000);
    assert_eq!(admission.offer(ask(1, "a", 0, 600), 0.0).0, Verdict::Admitted);
    assert_eq!(admission.offer(ask(2, "a", 0, 600), 0.0).0, Verdict::Queued);
    assert_eq!(admission.next(1.0), None);
    admission.finished(1, 2.0);
    assert_eq!(admission.next(2.0).map(|ask| ask.id), Some(2));
    assert_eq!(admission.reserved_tokens(), 600);
}

#[test]
fn refusals_say_why_at_once() {
    let mut admission = Admission::new(limits(1), 1_000);
    let slow = Ask { predicted_ttft_ms: 3_000.0, ..ask(1, "a", 0, 10) };
    let objective = |ttft_ms, tpot_ms| Objective { ttft_ms, tpot_ms };
    let with = |ask: &Ask, objective| Ask { objective, ..ask.clone() };
    let check = |admission: &mut Admission, ask: Ask, expected| {
        assert_eq!(reason(admission.offer(ask, 0.0).0), Some(expected));
    };
    check(&mut admission, with(&slow, objective(Some(2_000.0), None)), Reason::WouldMissTtft);
    check(&mut admission, with(&slow, objective(None, Some(5.0))), Reason::WouldMissTpot);
    check(&mut admission, ask(2, "a", 0, 1_001), Reason::NeverFits);
    assert_eq!(admission.offer(ask(3, "a", 0, 1_000), 0.0).0, Verdict::Admitted);
    check(&mut admission, ask(3, "a", 0, 10), Reason::Duplicate);
    assert_eq!(admission.offer(ask(4, "a", 0, 10), 0.0).0, Verdict::Queued);
    check(&mut admission, ask(5, "a", 0, 10), Reason::QueueFull);
    check(&mut Admission::new(limits(1), 0), ask(1, "a", 0, 10), Reason::NoCapacity);
    assert_eq!(
        [Reason::NoCapacity, Reason::QueueFull, Reason::NeverFits].map(Reason::status),
        [503, 429, 400]
    );
}

#[test]
fn the_defaults_apply_where_a_request_brings_no_objective() {
    let defaults = Limits { objective: Objective { ttft_ms: Some(50.0), tpot_ms: None }, ..limits(1) };
    let mut admission = Admission::new(defaults, 1_000);
    assert_eq!(reason(admission.offer(ask(1, "a", 0, 10), 0.0).0), Some(Reason::WouldMissTtft));
}

#[test]
fn priority_goes_first_and_waiting_counts() {
    let mut admission = full(limits(10));
    admission.offer(ask(1, "a", 0, 900), 0.0);
    admission.offer(ask(2, "b", 1, 900), 0.0);
    assert_eq!(order(&mut admission, 1.0), [2, 1]);
    let mut admission = full(limits(10));
    admission.offer(ask(1, "a", 0, 900), 0.0);
    admission.offer(ask(2, "b", 1, 900), 11_000.0);
    assert_eq!(order(&mut admission, 11_000.0), [1, 2], "eleven seconds are two of priority");
}

#[test]
fn tenants_share_by_tokens_and_weight() {
    let mut admission = full(limits(100));
    for id in 1..=12 {
        admission.offer(ask(id, "light", 0, 100), 0.0);
        admission.offer(Ask { weight: 2.0, ..ask(100 + id, "heavy", 0, 100) }, 0.0);
    }
    admission.finished(0, 1.0);
    let first: Vec<u64> = (0..9).map_while(|_| admission.next(1.0)).map(|ask| ask.id).collect();
    assert_eq!(first.len(), 9);
    assert_eq!(first.iter().filter(|&&id| id > 100).count(), 6, "{first:?}");
}

#[test]
fn a_full_queue_sheds_the_lowest_then_the_heaviest() {
    let mut admission = full(limits(3));
    admission.offer(ask(1, "a", 0, 10), 0.0);
    admission.offer(ask(2, "a", 0, 10), 0.0);
    admission.offer(ask(3, "b", 1, 10), 0.0);
    let shed = |admission: &mut Admission, ask| {
        let (verdict, shed) = admission.offer(ask, 0.0);
        (verdict == Verdict::Queued, shed.map(|(id, Refusal { reason, .. })| (id, reason)))
    };
    assert_eq!(shed(&mut admission, ask(4, "c", 2, 10)), (true, Some((2, Reason::Shed))));
    assert_eq!(shed(&mut admission, ask(5, "c", 0, 10)), (false, None), "nobody is lower, or has more");
    admission.offer(ask(6, "d", 5, 10), 0.0);
    assert_eq!(admission.queued(), 3);
    let mut admission = full(limits(2));
    admission.offer(ask(1, "a", 0, 10), 0.0);
    admission.offer(ask(2, "a", 0, 10), 0.0);
    assert_eq!(
        shed(&mut admission, ask(3, "b", 0, 10)),
        (true, Some((2, Reason::Shed))),
        "a has more than b"
    );
}

#[test]
fn waiting_ends_with_the_objective() {
    let mut admission = full(limits(10));
    let objective = Objective { ttft_ms: Some(1_100.0), tpot_ms: None };
    admission.offer(Ask { objective, ..ask(1, "a", 0, 10) }, 0.0);
    assert!(admission.expired(999.0).is_empty());
    let expired = admission.expired(1_000.0);
    assert_eq!(
        expired.iter().map(|(id, refusal)| (*id, refusal.reason)).collect::<Vec<_>>(),
        [(1, Reason::Expired)]
    );
    assert!(admission.expired(2_000.0).is_empty(), "told once");
}

#[test]
fn a_wait_that_is_too_long_is_refused_before_it_begins() {
    let mut admission = Admission::new(limits(10), 1_000);
    // Room comes at about 10 tokens a second.
    for id in 1..=10 {
        admission.offer(ask(id, "a", 0, 100), 0.0);
    }
    admission.finished(1, 0.0);
    admission.offer(ask(11, "a", 0, 100), 0.0);
    let hasty =
        Ask { objective: Objective { ttft_ms: Some(1_000.0), tpot_ms: None }, ..ask(12, "a", 0, 100) };
    assert_eq!(reason(admission.offer(hasty, 0.0).0), Some(Reason::WouldMissTtft));
}

#[test]
fn overload_does_not_alternate() {
    let mut gate = Gate::new(0.5, 0.9);
    let mut changes = 0;
    for step in 0..100 {
        let before = gate.is_open();
        // A pressure that swings between the marks.
        gate.see(if step == 0 { 0.95 } else { 0.6 + 0.2 * f64::from(step % 2) });
        changes += u32::from(before != gate.is_open());
    }
    assert_eq!(changes, 1);
    gate.see(0.5);
    assert!(gate.is_open());
}

#[test]
fn a_prefill_queue_closes_the_door_too() {
    let mut admission = Admission::new(limits(10), 1_000);
    admission.offer(ask(1, "a", 0, 10), 0.0);
    admission.set_prefill_wait(60_000.0);
    assert_eq!(admission.offer(ask(2, "a", 0, 10), 0.0).0, Verdict::Queued);
    admission.set_prefill_wait(28_000.0);
    assert_eq!(admission.next(0.0), None, "not before it has fallen to the low mark");
    admission.set_prefill_wait(10_000.0);
    assert_eq!(admission.next(0.0).map(|ask| ask.id), Some(2));
}

#[derive(Clone, Debug)]
enum Step {
    Offer { tenant: u8, priority: i32, tokens: u64, ttft_ms: Option<f64> },
    Next,
    Finish(usize),
    Pass(f64),
    PrefillWait(f64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..4, -1_i32..3, 1_u64..1_200, proptest::option::of(50.0_f64..5_000.0))
            .prop_map(|(tenant, priority, tokens, ttft_ms)| Step::Offer { tenant, priority, tokens, ttft_ms }),
        3 => Just(Step::Next),
        3 => any::<usize>().prop_map(Step::Finish),
        2 => (0.0_f64..3_000.0).prop_map(Step::Pass),
        1 => (0.0_f64..60_000.0).prop_map(Step::PrefillWait),
    ]
}

proptest! {
    #[test]
    fn nothing_is_lost_and_bounds_hold(steps in proptest::collection::vec(step(), 1..200)) {
        let mut admission = Admission::new(limits(5), 1_000);
        let mut now = 0.0;
        let mut waiting = BTreeSet::new();
        let mut running: BTreeMap<u64, u64> = BTreeMap::new();
        let mut tokens_of = BTreeMap::new();
        for (id, step) in (1..).zip(steps) {
            match step {
                Step::Offer { tenant, priority, tokens, ttft_ms } => {
                    let objective = Objective { ttft_ms, tpot_ms: None };
                    let ask = Ask { objective, ..ask(id, &tenant.to_string(), priority, tokens) };
                    tokens_of.insert(id, tokens);
                    let (verdict, shed) = admission.offer(ask, now);
                    if let Some((shed, _)) = shed {
                        prop_assert!(waiting.remove(&shed), "{shed} did not wait");
                    }
                    match verdict {
                        Verdict::Admitted => { running.insert(id, tokens); }
                        Verdict::Queued => { waiting.insert(id); }
                        Verdict::Refused(refusal) => {
                            prop_assert!((1_000.0..=60_000.0).contains(&refusal.retry_after_ms));
                        }
                    }
                }
                Step::Next => {
                    if let Some(ask) = admission.next(now) {
                        prop_assert!(waiting.remove(&ask.id), "{} did not wait", ask.id);
                        running.insert(ask.id, ask.growth_tokens);
                    }
                }
                Step::Finish(which) => {
                    let ids: Vec<u64> = running.keys().copied().collect();
                    if let Some(&id) = ids.get(which % ids.len().max(1)) {
                        admission.finished(id, now);
                        running.remove(&id);
                    }
                }
                Step::Pass(ms) => {
                    now += ms;
                    for (id, _) in admission.expired(now) {
                        prop_assert!(waiting.remove(&id), "{id} did not wait");
                    }
                }
                Step::PrefillWait(ms) => admission.set_prefill_wait(ms),
            }
            prop_assert_eq!(admission.queued(), waiting.len());
            prop_assert_eq!(admission.admitted(), running.len());
            prop_assert_eq!(admission.reserved_tokens(), running.values().sum::<u64>());
            prop_assert!(admission.reserved_tokens() <= 1_000 && admission.queued() <= 5);
        }
        // Nothing starves: once room comes, all that wait get it or are told that they waited too long.
        admission.set_prefill_wait(0.0);
        for _ in 0..=waiting.len() {
            running.keys().for_each(|&id| admission.finished(id, now));
            running.clear();
            while let Some(ask) = admission.next(now) {
                prop_assert!(waiting.remove(&ask.id));
                running.insert(ask.id, ask.growth_tokens);
            }
        }
        prop_assert!(waiting.is_empty(), "{waiting:?} still wait");
    }

    #[test]
    fn a_low_priority_is_served_under_a_stream_of_high_ones(aging in 1_000.0_f64..10_000.0) {
        let endless = Limits { aging_ms: aging, max_wait_ms: 1e9, ..limits(50) };
        let mut admission = full(endless);
        admission.offer(ask(1, "poor", 0, 900), 0.0);
        let mut running = 0;
        let mut now = 0.0;
        for id in 2..500 {
            now += 500.0;
            admission.offer(ask(id, "rich", 3, 900), now);
            admission.finished(running, now);
            running = admission.next(now).map_or(running, |ask| ask.id);
            if running == 1 {
                break;
            }
        }
        prop_assert_eq!(running, 1);
        prop_assert!(now <= 4.0 * aging + 2_000.0, "{}", now);
    }
}
