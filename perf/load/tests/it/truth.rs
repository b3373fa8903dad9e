//! What is measured is what is true.

use std::{thread, time::Duration};

use baton_load::null::{Freeze, NullServer, Truth};
use baton_results::{CountSource, Document, Outcome};
use baton_workload::Cancel;
use tokio_util::sync::CancellationToken;

use super::harness::{cancelled, chunk_tokens, closed, open, run, run_saying, setup};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn against(truth: Truth, plan: baton_workload::Plan) -> Document {
    let server = NullServer::on_loopback(truth).unwrap();
    run(setup(server.address()), plan).unwrap()
}

#[test]
fn tokens_in_chunks_of_eight_are_still_tokens() {
    let truth = Truth { ttft: MS(20), itl: MS(5), tokens_per_event: 8, ..Truth::default() };
    let document = against(truth, closed(16, 8, 60));
    let latency = &document.summary.latency;
    let tpot = latency.tpot_ms.unwrap();
    assert!((tpot.p50 / 5.0 - 1.0).abs() < 0.03, "TPOT {tpot:?}");
    // A busy machine makes it longer, and nothing makes it shorter.
    let ttft = latency.ttft_ms.unwrap();
    assert!(ttft.min >= 20.0 && ttft.min < 60.0, "TTFT {ttft:?}");
    let record = &document.measured.records[0];
    assert_eq!(chunk_tokens(record), [8, 8, 8, 8, 8, 8, 8, 4]);
    assert_eq!(record.chunk_tokens, CountSource::ContinuousUsage);
    assert_eq!((record.output.unwrap().tokens, record.input.unwrap().tokens), (60, 8));
}

#[test]
fn a_server_that_does_not_count_each_event_is_asked_for_what_it_can() {
    let truth = Truth {
        ttft: MS(1),
        itl: MS(1),
        tokens_per_event: 4,
        has_continuous_usage: false,
        ..Truth::default()
    };
    let document = against(truth, closed(2, 1, 12));
    let record = &document.measured.records[0];
    assert_eq!((chunk_tokens(record), record.chunk_tokens), (vec![1, 1, 1], CountSource::Assumed));
    assert_eq!(record.output.unwrap().tokens, 12);
    let refused = &document.measured.run.notes["refused by the server"];
    assert_eq!(refused, "stream_options.continuous_usage_stats");
}

#[test]
fn a_frozen_server_shows_from_the_intended_time_and_as_a_stall() {
    let freeze = Some(Freeze { after: MS(600), length: MS(2000), every: None });
    let truth = Truth { ttft: MS(20), itl: MS(10), freeze, ..Truth::default() };
    let document = against(truth, open(60, MS(25), 20));
    let latency = &document.summary.latency;
    assert_eq!(document.summary.requests.complete, 60);
    // Requests come all the while: the first that found the server frozen waited for nearly all of it.
    assert!(latency.ttft_ms.unwrap().p99 > 1_800.0, "{:?}", latency.ttft_ms);
    assert!(latency.ttft_ms.unwrap().p50 > 500.0, "{:?}", latency.ttft_ms);
    let stall = latency.stall_ms.unwrap();
    assert!((1_990.0..4_000.0).contains(&stall.max), "{stall:?}");
}

#[test]
fn a_client_that_is_held_back_counts_from_the_intended_time_and_says_so() {
    let truth = Truth { ttft: MS(200), itl: MS(1), ..Truth::default() };
    let server = NullServer::on_loopback(truth).unwrap();
    let mut setup = setup(server.address());
    setup.limits.most_in_flight = 1;
    let document = run(setup, open(4, MS(10), 2)).unwrap();
    let latency = &document.summary.latency;
    assert!(latency.ttft_ms.unwrap().max > 700.0, "{:?}", latency.ttft_ms);
    assert!(latency.ttft_from_sent_ms.unwrap().max < 700.0, "{:?}", latency.ttft_from_sent_ms);
    let validity = document.measured.validity.to_string();
    assert!(validity.contains("3 requests were sent late because 1 were in flight"), "{validity}");
}

#[test]
fn failures_are_as_many_as_there_were() {
    let truth = Truth { ttft: MS(1), itl: MS(1), error_share: 0.3, seed: 5, ..Truth::default() };
    // The probe is the first request.
    let expected = (1..=100).filter(|number| truth.fails(*number)).count();
    assert!(!truth.fails(0) && expected > 10);
    let document = against(truth, closed(100, 10, 3));
    let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed { status: Some(500), .. });
    assert_eq!(document.measured.records.iter().filter(|record| failed(&record.outcome)).count(), expected);
    assert_eq!(document.summary.requests.complete as usize, 100 - expected);
}

#[test]
fn the_client_hangs_up_as_planned() {
    let truth = Truth { ttft: MS(5), itl: MS(5), ..Truth::default() };
    let after_tokens = against(truth.clone(), cancelled(Cancel::AfterTokens(4), 1_000_000));
    let record = &after_tokens.measured.records[0];
    assert_eq!((record.outcome.clone(), record.output.unwrap().tokens), (Outcome::Cancelled, 4));
    let after_time = against(truth, cancelled(Cancel::AfterTime(MS(60)), 1_000_000));
    let record = &after_time.measured.records[0];
    assert_eq!(record.outcome, Outcome::Cancelled);
    assert!(record.end_us.unwrap().0 >= 60_000);
}

#[test]
fn an_interrupt_gives_what_there_is() {
    let truth = Truth { ttft: MS(1), itl: MS(1), default_tokens: 2, ..Truth::default() };
    let server = NullServer::on_loopback(truth).unwrap();
    let interrupt = CancellationToken::new();
    let soon = interrupt.clone();
    let later = thread::spawn(move || {
        thread::sleep(MS(300));
        soon.cancel();
    });
    let plan = closed(1000, 2, 2);
    let mut requests = plan.requests().to_vec();
    // One that would take a day.
    requests[1].output_tokens = 86_400_000;
    let plan = baton_workload::Plan::new(requests, Vec::new(), plan.pacing(), 0);
    let document =
        run_saying(setup(server.address()), plan, std::sync::Arc::new(baton_load::Words), &interrupt)
            .unwrap();
    later.join().unwrap();
    let requests = document.summary.requests;
    assert!(requests.complete > 0 && requests.complete < 999, "{requests:?}");
    assert_eq!(document.measured.records[1].outcome, Outcome::Unfinished);
    assert!(document.measured.validity.to_string().contains("interrupted"));
    assert!(document.measured.run.notes.contains_key("not sent"));
}

#[test]
fn what_does_not_end_in_time_is_unfinished() {
    // The two tokens that are asked for before the run come at once.
    let truth = Truth { ttft: MS(1), itl: MS(60_000), tokens_per_event: 2, ..Truth::default() };
    let server = NullServer::on_loopback(truth).unwrap();
    let mut setup = setup(server.address());
    setup.limits.drain = MS(100);
    let document = run(setup, open(3, MS(1), 5)).unwrap();
    assert_eq!(document.summary.requests.unfinished, 3);
    assert_eq!(chunk_tokens(&document.measured.records[0]), [2]);
}
