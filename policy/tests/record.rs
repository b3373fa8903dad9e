//! Records: what they hold, how they read, what other weights would have done.

mod common;

use baton_policy::{
    decide::Decider,
    estimate::Term,
    profile::Profile,
    record::{Outcome, Record, Ring, explain, what_if},
    view::{Cached, RequestView},
};

fn record(id: &str) -> Record {
    let mut fleet = common::fleet(2, 1);
    fleet.workers[0].own.prefill_placed(400.0, 0.0);
    fleet.workers[2].own.sequence_placed(5_000, 5_200);
    for worker in &mut fleet.workers {
        worker.report.at = Some(880.0);
    }
    let cached = [Cached::device(7_000)];
    let request = RequestView { cached: &cached, ..common::request() };
    let profile = Profile::default();
    let decision = Decider::new(profile.clone()).decide(&fleet, &request, 1_000.0).expect("somebody can");
    Record::new(id.to_owned(), &decision, profile.weights, &fleet, &request, 1_000.0)
}

#[test]
fn a_record_holds_what_the_decision_was_made_of() {
    let record = record("r1");
    assert_eq!(record.choices.len(), 3, "two pairs, and the decode worker alone");
    let winner = &record.choices[record.winner];
    assert_eq!((winner.prefill.as_deref(), winner.decode.as_str()), (Some("w0"), "w2"));
    assert_eq!(winner.report_age_ms, Some(120.0));
    assert!(record.margin_ms().is_some_and(|margin| margin > 0.0));
    let costs: Vec<f64> = record.choices.iter().map(|choice| choice.terms.cost(&record.weights)).collect();
    assert!(costs.is_sorted(), "{costs:?}");
    let json = serde_json::to_string(&record).expect("plain data");
    let read: Record = serde_json::from_str(&json).expect("its own");
    // Numbers may differ in their last digit.
    assert_eq!((explain(&read), read.winner), (explain(&record), record.winner));
}

#[test]
fn explain_reads_well() {
    let mut record = record("r1");
    record.outcome =
        Some(Outcome { ttft_ms: 61.0, output_tokens: 180, decode_wait_ms: 2.5, ..Outcome::default() });
    let text = explain(&record);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "request r1 (8000 prompt tokens, about 200 to generate) went to w0 then w2");
    assert!(lines[1].starts_with("predicted first token after "), "{text}");
    assert!(lines[1].ends_with("its reports were 120 ms old"), "{text}");
    assert!(lines[2].starts_with("→ ") && lines[2].contains("w0 then w2: "), "{text}");
    assert!(lines[2].contains("prefill ") && !lines[2].contains("session"), "{text}");
    assert!(lines[5].starts_with("then: first token after 61.0 ms"), "{text}");
    assert!(lines[5].contains("decode wait 2.5 ms"), "{text}");
    let old = serde_json::to_string(&record).unwrap().replace(r#""decode_wait_ms":2.5,"#, "");
    let old: Record = serde_json::from_str(&old).expect("a record of before that was measured");
    assert_eq!(old.outcome.unwrap().decode_wait_ms, 0.0);
}

#[test]
fn what_if_recomputes() {
    let record = record("r1");
    assert!(!what_if(&record, &[]).is_changed);
    let changed =
        what_if(&record, &[(Term::Prefill, 0.0), (Term::PrefillOthers, 0.0), (Term::Transfer, 50.0)]);
    assert!(changed.is_changed, "{changed:?}");
    let (first, _) = changed.order[0];
    assert_eq!(record.choices[first].prefill, None, "transfers are dear now");
}

#[test]
fn the_ring_is_bounded_and_finds_the_last() {
    let mut ring = Ring::new(3);
    for id in ["a", "b", "a", "c"] {
        assert!(ring.get(id).is_none() || id == "a");
        ring.push(record(id));
    }
    assert_eq!(ring.len(), 3);
    ring.settle("a", Outcome { ttft_ms: 5.0, ..Outcome::default() });
    assert_eq!(ring.get("a").and_then(|record| record.outcome).map(|outcome| outcome.ttft_ms), Some(5.0));
    assert_eq!(ring.iter().filter(|record| record.outcome.is_some()).count(), 1);
    let leaving = ring.push(record("d")).expect("full");
    assert_eq!(leaving.request_id, "b");
    assert!(ring.get("b").is_none());
    ring.settle("b", Outcome::default());
    ring.push(record("e"));
    assert!(ring.get("a").is_none() && ring.get("c").is_some());
    assert_eq!(ring.iter().count(), 3);
}
