//! What was promised decides where a request goes, and nothing else does for who was promised nothing.

mod common;

use baton_policy::{
    decide::{Decider, Decision},
    estimate::{Sides, Term},
    record::{Record, explain},
    view::{FleetView, Objective, RequestView},
};

const TTFT: Objective = Objective { ttft_ms: Some(500.0), tpot_ms: None };
const BOTH: Objective = Objective { ttft_ms: Some(500.0), tpot_ms: Some(30.0) };

/// A prefill worker that is busy for `prefill_ms`, and a decode worker with `sequences`, whose steps take `step_ms` without any.
fn fleet(prefill_ms: f64, sequences: usize, step_ms: f64) -> FleetView {
    let mut fleet = common::fleet(1, 1);
    if prefill_ms > 0.0 {
        fleet.workers[0].own.prefill_placed(prefill_ms, 0.0);
    }
    for _ in 0..sequences {
        fleet.workers[1].own.sequence_placed(1_000, 1_200);
    }
    fleet.workers[1].costs.decode.fixed_ms = step_ms;
    fleet
}

fn request(objective: Objective) -> RequestView<'static> {
    RequestView { prompt_tokens: 1_000, objective, ..common::request() }
}

fn decide(fleet: &FleetView, objective: Objective) -> Decision {
    Decider::default().decide(fleet, &request(objective), 0.0).expect("somebody can serve it")
}

#[test]
fn who_would_be_late_is_computed_where_others_have_time() {
    let fleet = fleet(1_000.0, 40, 8.0);
    assert_eq!(decide(&fleet, Objective::default()).prefill, Some(0), "nobody is promised anything");
    assert_eq!(decide(&fleet, BOTH).prefill, None);
    assert_eq!(decide(&fleet, TTFT).prefill, None, "late counts more than others' delay");
}

#[test]
fn who_is_in_time_goes_to_a_prefill_worker() {
    let fleet = fleet(0.0, 40, 8.0);
    for objective in [Objective::default(), TTFT, BOTH] {
        assert_eq!(decide(&fleet, objective).prefill, Some(0), "{objective:?}");
    }
}

#[test]
fn others_tokens_are_not_made_late_for_a_prompt() {
    // Steps take 16 ms, and with prompts up to 1.6 times as long: within 50 ms, and not within 16.
    let fleet = fleet(450.0, 40, 12.0);
    let others = |tpot_ms| {
        let request = request(Objective { tpot_ms: Some(tpot_ms), ..BOTH });
        Sides::new(&fleet, &request, 1, 0.0).all(None, 1).get(Term::ObjectiveOthers)
    };
    assert!(others(50.0) < 1.0, "{}", others(50.0));
    assert!(others(16.0) > 100.0 * others(50.0), "{}", others(16.0));
    assert_eq!(decide(&fleet, Objective { tpot_ms: Some(50.0), ..BOTH }).prefill, None);
    assert_eq!(decide(&fleet, Objective { ttft_ms: None, tpot_ms: Some(16.0) }).prefill, Some(0));
}

#[test]
fn slow_workers_are_passed_over_by_who_was_promised_more() {
    let mut fleet = common::fleet(0, 2);
    fleet.workers[0].costs.decode.fixed_ms = 28.0;
    fleet.workers[1].costs.decode.fixed_ms = 20.0;
    // The quicker one has as much to do as makes both alike.
    fleet.workers[1].own.prefill_placed(1_700.0, 0.0);
    assert_eq!(decide(&fleet, Objective::default()).decode, 0);
    assert_eq!(decide(&fleet, Objective { ttft_ms: None, tpot_ms: Some(25.0) }).decode, 1);
}

#[test]
fn a_record_says_what_of_the_cost_is_the_promise() {
    let fleet = fleet(450.0, 40, 8.0);
    let (request, decider) = (request(BOTH), Decider::default());
    let decision = decide(&fleet, BOTH);
    let weights = decider.profile().weights;
    let text = explain(&Record::new("r".to_owned(), &decision, weights, &fleet, &request, 0.0));
    let apart = text.lines().find(|line| line.contains("w0 then w1: ")).expect("a candidate");
    assert!(apart.contains("objective "), "{text}");
    let promised_nothing = decide(&fleet, Objective::default());
    assert_eq!(promised_nothing.terms.get(Term::Objective), 0.0);
    assert_eq!(promised_nothing.terms.get(Term::ObjectiveOthers), 0.0);
}
