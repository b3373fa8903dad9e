//! Workers and clients that go away, at every moment: an error with its status before the first byte, an error event
//! after it, and never a hang.

mod common;

use std::time::{Duration, Instant};

use baton_proto::v1::{FailureKind, FinishReason, WorkerLoad};
use common::{
    Answer, Call, EventReader, FakeSidecar, FakeWorker, Step, TestScheduler, decode_info, prefill_info, say,
    send,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const COMPLETIONS: &str = "/v1/completions";
const LENGTH: Step = Step::Finish(FinishReason::Length);

fn prompt(stream: bool) -> Value {
    json!({"prompt": "Hello", "stream": stream})
}

/// Sends the request from a task of its own.
fn post(scheduler: &TestScheduler, body: Value) -> JoinHandle<Answer> {
    let http = scheduler.http;
    tokio::spawn(async move { send(http, "POST", COMPLETIONS, &[], body.to_string().as_bytes()).await })
}

#[track_caller]
fn check_error(answer: &Answer, status: u16, code: &str, words: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!(error["code"], code, "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(words.iter().all(|word| message.contains(word)), "{message:?} lacks one of {words:?}");
    if matches!(status, 429 | 503) {
        assert_eq!(answer.headers["retry-after"], "1");
    }
}

/// A stream that has shown its first token, and the call behind it.
async fn streaming(scheduler: &TestScheduler, sidecar: &mut FakeSidecar) -> (EventReader, Call) {
    let http = scheduler.http;
    let opened = tokio::spawn(async move { EventReader::open(http, COMPLETIONS, &prompt(true)).await });
    let call = sidecar.call().await;
    call.act(say("a").remove(0));
    let mut reader = opened.await.unwrap();
    assert_eq!(reader.status, 200);
    assert!(reader.next().await.unwrap().contains("\"text\":\"a\""));
    (reader, call)
}

/// The stream ends in order with this error, soon, and without `[DONE]`.
async fn check_broken(reader: &mut EventReader, code: &str) {
    let start = Instant::now();
    let event: Value = serde_json::from_str(&reader.next().await.expect("an error event")).unwrap();
    assert_eq!(event["error"]["code"], code, "{event}");
    assert!(event["error"]["message"].is_string() && event["error"]["type"].is_string(), "{event}");
    assert_eq!(reader.next().await, None);
    assert!(start.elapsed() < Duration::from_secs(2), "told after {:?}", start.elapsed());
}

#[tokio::test]
async fn without_workers_the_answer_is_503_and_ready_says_what_is_missing() {
    let scheduler = TestScheduler::start(&[]).await;
    check_error(
        &scheduler.post(COMPLETIONS, &prompt(false)).await,
        503,
        "no_decode_worker",
        &["no decode worker"],
    );
    check_error(
        &scheduler.post(COMPLETIONS, &prompt(true)).await,
        503,
        "no_decode_worker",
        &["no decode worker"],
    );
    check_error(&scheduler.get("/ready").await, 503, "not_ready", &["no decode worker", "no prefill worker"]);
    assert_eq!(scheduler.get("/health").await.status, 200);
}

#[tokio::test]
async fn an_aggregated_fleet_is_ready_without_prefill_workers() {
    let sidecar = FakeSidecar::start().await;
    for (options, status) in [(&["--aggregated"][..], 200), (&[], 503)] {
        let scheduler = TestScheduler::start(options).await;
        let _worker = FakeWorker::join(&scheduler, decode_info("decode-0", sidecar.address)).await.unwrap();
        assert_eq!(scheduler.get("/ready").await.status, status, "{options:?}");
    }
}

#[tokio::test]
async fn without_prefill_workers_the_decode_worker_prefills() {
    let scheduler = TestScheduler::start(&[]).await;
    let mut sidecar = FakeSidecar::start().await;
    let _worker = FakeWorker::join(&scheduler, decode_info("decode-0", sidecar.address)).await.unwrap();
    let asked = post(&scheduler, prompt(false));
    let call = sidecar.call().await;
    assert!(call.request.prefill_candidates.is_empty());
    call.act(LENGTH);
    assert_eq!(asked.await.unwrap().status, 200);
    assert!(scheduler.get("/metrics").await.text().contains("baton_fallbacks_total 1"));
}

#[tokio::test]
async fn a_failure_before_the_first_token_has_its_status() {
    use FailureKind::{Deadline, Internal, Invalid, Overloaded, Unavailable};
    let cases: [(Step, u16, Value); 6] = [
        (Step::Fail(Invalid, "too odd"), 400, Value::Null),
        (Step::Fail(Overloaded, "no room"), 429, "overloaded".into()),
        (Step::Fail(Unavailable, "prefill gone"), 503, "worker_lost".into()),
        (Step::Fail(Deadline, "too late"), 504, "deadline_exceeded".into()),
        (Step::Fail(Internal, "a bug"), 500, "internal_error".into()),
        (Step::Break, 503, "worker_lost".into()),
    ];
    for (step, status, code) in cases {
        for stream in [false, true] {
            let (scheduler, mut sidecar, _workers) = TestScheduler::with_pair(&[]).await;
            let asked = post(&scheduler, prompt(stream));
            sidecar.call().await.act(step.clone());
            let answer = asked.await.unwrap();
            assert_eq!((answer.status, &answer.json()["error"]["code"]), (status, &code), "{step:?}");
        }
    }
}

#[tokio::test]
async fn another_decode_worker_takes_over_before_the_first_token() {
    let (scheduler, mut first, _workers) = TestScheduler::with_pair(&[]).await;
    let mut second = FakeSidecar::start().await;
    let _second = FakeWorker::join(&scheduler, decode_info("decode-1", second.address)).await.unwrap();
    let asked = post(&scheduler, prompt(false));
    // Equals take turns, and either may begin.
    let other = tokio::select! {
        call = first.call() => { call.act(Step::Break); &mut second }
        call = second.call() => { call.act(Step::Break); &mut first }
    };
    other.call().await.act_all([say("b").remove(0), LENGTH]);
    let answer = asked.await.unwrap();
    assert_eq!(answer.json()["choices"][0]["text"], "b");
    let metrics = scheduler.get("/metrics").await.text();
    assert!(
        metrics.contains("baton_scheduler_retries_total 1") && metrics.contains("baton_fallbacks_total 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_dead_sidecar_is_passed_over_at_the_first_try() {
    let (scheduler, mut first, _workers) = TestScheduler::with_pair(&[]).await;
    let second = FakeSidecar::start().await;
    let _second = FakeWorker::join(&scheduler, decode_info("decode-1", second.address)).await.unwrap();
    first.kill();
    let _answering = second.always(vec![say("b").remove(0), LENGTH]);
    for _ in 0..3 {
        assert_eq!(scheduler.post(COMPLETIONS, &prompt(false)).await.status, 200);
    }
}

#[tokio::test]
async fn retries_are_bounded_and_the_last_failure_is_told() {
    let scheduler = TestScheduler::start(&["--retries=1"]).await;
    let mut sidecars = Vec::new();
    let mut workers = Vec::new();
    for id in ["decode-0", "decode-1", "decode-2"] {
        let sidecar = FakeSidecar::start().await;
        workers.push(FakeWorker::join(&scheduler, decode_info(id, sidecar.address)).await.unwrap());
        sidecars.push(sidecar.always(vec![Step::Break]));
    }
    let answer = scheduler.post(COMPLETIONS, &prompt(false)).await;
    check_error(&answer, 503, "worker_lost", &["decode-", "broken on purpose"]);
    assert!(scheduler.get("/metrics").await.text().contains("baton_scheduler_retries_total 1"));
}

#[tokio::test]
async fn a_break_after_the_first_token_is_an_error_event() {
    let (scheduler, mut sidecar, _workers) = TestScheduler::with_pair(&[]).await;
    let (mut reader, call) = streaming(&scheduler, &mut sidecar).await;
    call.act(Step::Break);
    check_broken(&mut reader, "worker_lost").await;

    let (mut reader, call) = streaming(&scheduler, &mut sidecar).await;
    call.act(Step::Fail(FailureKind::Internal, "a bug"));
    check_broken(&mut reader, "internal_error").await;

    let (mut reader, call) = streaming(&scheduler, &mut sidecar).await;
    drop(call);
    check_broken(&mut reader, "worker_lost").await;

    let (mut reader, _call) = streaming(&scheduler, &mut sidecar).await;
    assert!(sidecar.is_idle(), "nothing is retried once a byte was shown");
    sidecar.kill();
    check_broken(&mut reader, "worker_lost").await;
}

#[tokio::test]
async fn a_decode_worker_that_leaves_breaks_its_streams() {
    let (scheduler, mut sidecar, [decode, _prefill]) = TestScheduler::with_pair(&[]).await;
    let (mut reader, call) = streaming(&scheduler, &mut sidecar).await;
    // Its sidecar still holds the call, and says nothing.
    drop(decode);
    check_broken(&mut reader, "worker_lost").await;
    call.dropped().await;
    check_error(&scheduler.post(COMPLETIONS, &prompt(false)).await, 503, "no_decode_worker", &[]);
}

#[tokio::test]
async fn a_decode_worker_that_falls_silent_breaks_its_streams() {
    let (scheduler, mut sidecar, [decode, _prefill]) =
        TestScheduler::with_pair(&["--worker-ttl-ms=100"]).await;
    // It reports more rarely than this registry wants.
    drop(decode);
    let decode = FakeWorker::join(&scheduler, decode_info("decode-0", sidecar.address)).await.unwrap();
    let (mut reader, _call) = streaming(&scheduler, &mut sidecar).await;
    decode.fall_silent();
    check_broken(&mut reader, "worker_lost").await;
}

#[tokio::test]
async fn a_decode_worker_that_comes_back_keeps_its_streams() {
    let (scheduler, mut sidecar, [decode, _prefill]) =
        TestScheduler::with_pair(&["--worker-grace-ms=60000"]).await;
    let (mut reader, call) = streaming(&scheduler, &mut sidecar).await;
    drop(decode);
    scheduler.workers_until(|workers| workers.as_array().unwrap().len() == 1).await;
    let _back = FakeWorker::join(&scheduler, decode_info("decode-0", sidecar.address)).await.unwrap();
    call.act_all([say("b").remove(0), LENGTH]);
    assert!(reader.next().await.unwrap().contains("\"text\":\"b\""));
}

#[tokio::test]
async fn a_restarted_decode_worker_does_not_keep_its_streams() {
    let (scheduler, mut sidecar, _workers) = TestScheduler::with_pair(&["--worker-grace-ms=60000"]).await;
    let (mut reader, _call) = streaming(&scheduler, &mut sidecar).await;
    let mut info = decode_info("decode-0", sidecar.address);
    info.incarnation = 2;
    let _restarted = FakeWorker::join(&scheduler, info).await.unwrap();
    check_broken(&mut reader, "worker_lost").await;
}

#[tokio::test]
async fn a_client_that_hangs_up_drops_the_call() {
    let (scheduler, mut sidecar, _workers) = TestScheduler::with_pair(&[]).await;
    let (reader, call) = streaming(&scheduler, &mut sidecar).await;
    drop(reader);
    call.dropped().await;

    // Also before the first token, streamed or not.
    for stream in [false, true] {
        let asked = post(&scheduler, prompt(stream));
        let call = sidecar.call().await;
        asked.abort();
        call.dropped().await;
    }
    scheduler
        .workers_until(|workers| workers.as_array().unwrap().iter().all(|w| w["in_flight"]["requests"] == 0))
        .await;
    let metrics = scheduler.get("/metrics").await.text();
    let line =
        "baton_scheduler_requests_total{endpoint=\"/v1/completions\",status=\"499\",outcome=\"cancelled\"} 3";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("baton_scheduler_inflight_completions 0"), "{metrics}");
}

#[tokio::test]
async fn a_request_ends_at_its_deadline() {
    let (scheduler, mut sidecar, _workers) = TestScheduler::with_pair(&["--request-timeout=1"]).await;
    let asked = post(&scheduler, prompt(false));
    let call = sidecar.call().await;
    call.dropped().await;
    check_error(&asked.await.unwrap(), 504, "deadline_exceeded", &["1 s"]);
    let (mut reader, _call) = streaming(&scheduler, &mut sidecar).await;
    check_broken(&mut reader, "deadline_exceeded").await;
}

#[tokio::test]
async fn more_completions_than_places_are_answered_429() {
    let (scheduler, mut sidecar, _workers) = TestScheduler::with_pair(&["--max-inflight=3"]).await;
    let three = post(&scheduler, json!({"prompt": "Hello", "n": 3}));
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(sidecar.call().await);
    }
    check_error(&scheduler.post(COMPLETIONS, &prompt(false)).await, 429, "overloaded", &["3 places"]);
    calls.iter().for_each(|call| call.act(LENGTH));
    assert_eq!(three.await.unwrap().status, 200);
    let four = scheduler.post(COMPLETIONS, &json!({"prompt": "Hello", "n": 4})).await;
    check_error(&four, 429, "overloaded", &["3 places"]);
    let asked = post(&scheduler, prompt(false));
    sidecar.call().await.act(LENGTH);
    assert_eq!(asked.await.unwrap().status, 200, "the places are free again");
}

#[tokio::test]
async fn load_is_spread_by_reports_and_by_what_was_sent() {
    let (scheduler, mut first, [reporting, _prefill]) = TestScheduler::with_pair(&[]).await;
    let mut second = FakeSidecar::start().await;
    let _second = FakeWorker::join(&scheduler, decode_info("decode-1", second.address)).await.unwrap();
    let asked = [post(&scheduler, prompt(false)), post(&scheduler, prompt(false))];
    first.call().await.act(LENGTH);
    second.call().await.act(LENGTH);
    for asked in asked {
        assert_eq!(asked.await.unwrap().status, 200);
    }
    reporting.report(WorkerLoad { running: 5, ..WorkerLoad::default() }).await;
    scheduler.workers_until(|workers| workers[0]["load"]["running"] == 5).await;
    for _ in 0..2 {
        let asked = post(&scheduler, prompt(false));
        second.call().await.act(LENGTH);
        assert_eq!(asked.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_draining_worker_gets_nothing_new() {
    let (scheduler, mut sidecar, [decode, _prefill]) = TestScheduler::with_pair(&[]).await;
    decode.report(WorkerLoad { draining: true, ..WorkerLoad::default() }).await;
    scheduler.workers_until(|workers| workers[0]["load"]["draining"] == true).await;
    check_error(&scheduler.post(COMPLETIONS, &prompt(false)).await, 503, "no_decode_worker", &["draining"]);
    assert_eq!(scheduler.get("/ready").await.status, 503);
    assert!(sidecar.is_idle());
}

#[tokio::test]
async fn a_stopping_scheduler_lets_requests_end() {
    let (scheduler, mut sidecar, _workers) = TestScheduler::with_pair(&[]).await;
    let (mut reader, call) = streaming(&scheduler, &mut sidecar).await;
    scheduler.shutdown.trigger();
    call.act_all([say("b").remove(0), LENGTH]);
    let mut rest = Vec::new();
    while let Some(event) = reader.next().await {
        rest.push(event);
    }
    assert_eq!(rest.last().map(String::as_str), Some("[DONE]"));
    scheduler.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stopping_scheduler_gives_up_what_does_not_end() {
    let (scheduler, mut sidecar, _workers) = TestScheduler::with_pair(&["--drain-timeout=0"]).await;
    let (mut reader, call) = streaming(&scheduler, &mut sidecar).await;
    scheduler.shutdown.trigger();
    check_broken(&mut reader, "worker_lost").await;
    call.dropped().await;
    scheduler.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn workers_that_do_not_fit_are_refused_with_field_and_both_values() {
    let (scheduler, sidecar, _workers) = TestScheduler::with_pair(&[]).await;
    type Change = fn(&mut baton_proto::v1::WorkerInfo);
    let cases: [(Change, &[&str]); 11] = [
        (|info| info.model.as_mut().unwrap().name = "other".into(), &["model.name", "tiny", "other"]),
        (|info| info.model.as_mut().unwrap().revision = "r2".into(), &["model.revision", "r1", "r2"]),
        (|info| info.model.as_mut().unwrap().dtype = "bf16".into(), &["model.dtype", "f32", "bf16"]),
        (|info| info.model.as_mut().unwrap().max_context_tokens = 99, &["max_context_tokens", "256", "99"]),
        (|info| info.model.as_mut().unwrap().vocab_size = 3, &["vocab_size", "3"]),
        (|info| info.kv_cache.as_mut().unwrap().layers = 9, &["layers", "2", "9"]),
        (|info| info.kv_cache.as_mut().unwrap().num_blocks = 0, &["holds nothing"]),
        (
            |info| info.fabric.as_mut().unwrap().name = "libfabric".into(),
            &["fabric.name", "shm", "libfabric"],
        ),
        (|info| info.role = 0, &["role"]),
        (|info| info.serving_endpoint.clear(), &["serving_endpoint", "sidecar"]),
        (|info| info.worker_id.clear(), &["worker_id"]),
    ];
    for (change, words) in cases {
        let mut info = decode_info("decode-9", sidecar.address);
        change(&mut info);
        let Err(reason) = FakeWorker::join(&scheduler, info).await else { panic!("let in: {words:?}") };
        assert!(words.iter().all(|word| reason.contains(word)), "{reason:?} lacks one of {words:?}");
    }
    let mut prefill = prefill_info("prefill-9");
    prefill.fabric.as_mut().unwrap().provider = "tcp".into();
    let Err(reason) = FakeWorker::join(&scheduler, prefill).await else {
        panic!("an unmatched fabric was let in")
    };
    assert!(reason.contains("fabric.provider"), "{reason}");
}

#[tokio::test]
async fn a_newer_process_replaces_the_older_and_not_the_other_way() {
    let (scheduler, sidecar, [mut older, _prefill]) = TestScheduler::with_pair(&[]).await;
    let mut newer = decode_info("decode-0", sidecar.address);
    newer.incarnation = 5;
    let _newer = FakeWorker::join(&scheduler, newer).await.unwrap();
    older.ended().await;
    let straggler = decode_info("decode-0", sidecar.address);
    let Err(reason) = FakeWorker::join(&scheduler, straggler).await else { panic!("the older one is back") };
    assert!(reason.contains("incarnation 5"), "{reason}");
    let workers = scheduler.workers_until(|_| true).await;
    assert_eq!(workers[0]["incarnation"], 5, "{workers}");
}

#[tokio::test]
async fn a_fleet_that_has_emptied_may_come_back_with_another_revision() {
    let (scheduler, sidecar, workers) = TestScheduler::with_pair(&[]).await;
    drop(workers);
    scheduler.workers_until(|workers| workers.as_array().unwrap().is_empty()).await;
    let mut info = decode_info("decode-0", sidecar.address);
    info.model.as_mut().unwrap().revision = "r2".to_owned();
    info.incarnation = 2;
    assert!(FakeWorker::join(&scheduler, info).await.is_ok());
}

#[tokio::test]
async fn the_fleet_is_bounded() {
    let scheduler = TestScheduler::start(&["--max-workers=1"]).await;
    let _first = FakeWorker::join(&scheduler, prefill_info("prefill-0")).await.unwrap();
    let Err(reason) = FakeWorker::join(&scheduler, prefill_info("prefill-1")).await else {
        panic!("one too many")
    };
    assert!(reason.contains("--max-workers"), "{reason}");
}
