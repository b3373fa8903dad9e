//! Which prefill workers are candidates: those that said that they are connected to the decode worker which is chosen.

mod common;

use baton_proto::v1::{
    FinishReason,
    pair::{Refused, State, Unreachable},
};
use common::{
    FakeSidecar, FakeWorker, Pairing, Step, TestScheduler, connected, decode_info, prefill_info, send,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const LENGTH: Step = Step::Finish(FinishReason::Length);

/// Of another model than every decode worker.
fn refused(_: &str) -> Option<State> {
    Some(State::Refused(Refused {
        field: "model".to_owned(),
        prefill_value: "revision a".to_owned(),
        decode_value: "revision b".to_owned(),
    }))
}

fn unreachable(_: &str) -> Option<State> {
    Some(State::Unreachable(Unreachable { reason: "the cable is cut".to_owned() }))
}

/// Still trying.
fn trying(_: &str) -> Option<State> {
    None
}

async fn prefill(scheduler: &TestScheduler, id: &str, pairing: Pairing) -> FakeWorker {
    FakeWorker::join_with(scheduler, prefill_info(id), pairing).await.unwrap()
}

async fn decode(scheduler: &TestScheduler, id: &str, incarnation: u64) -> (FakeWorker, FakeSidecar) {
    let sidecar = FakeSidecar::start().await;
    let info = baton_proto::v1::WorkerInfo { incarnation, ..decode_info(id, sidecar.address) };
    (FakeWorker::join(scheduler, info).await.unwrap(), sidecar)
}

/// The prefill candidates that a request is sent with.
async fn candidates(scheduler: &TestScheduler, sidecar: &mut FakeSidecar) -> Vec<String> {
    let http = scheduler.http;
    let asked: JoinHandle<_> = tokio::spawn(async move {
        let body = json!({"prompt": "Hello"}).to_string();
        send(http, "POST", "/v1/completions", &[], body.as_bytes()).await
    });
    let call = sidecar.call().await;
    call.act(LENGTH);
    assert_eq!(asked.await.unwrap().status, 200);
    call.request.prefill_candidates.iter().map(|candidate| candidate.worker_id.clone()).collect()
}

/// The state that `/v1/workers` shows of a prefill worker's only pair.
fn state<'a>(workers: &'a Value, id: &str) -> &'a str {
    let worker = workers.as_array().unwrap().iter().find(|worker| worker["worker_id"] == id);
    worker.and_then(|worker| worker["pairs"][0]["state"].as_str()).unwrap_or("none")
}

#[tokio::test]
async fn only_connected_prefill_workers_are_candidates_and_the_others_are_shown_with_their_reason() {
    let scheduler = TestScheduler::start(&[]).await;
    let (_decode, mut sidecar) = decode(&scheduler, "decode-0", 1).await;
    let _good = prefill(&scheduler, "good", connected).await;
    let _wrong = prefill(&scheduler, "wrong", refused).await;
    let cut = prefill(&scheduler, "cut", unreachable).await;
    let slow = prefill(&scheduler, "slow", trying).await;
    let states = [("good", "connected"), ("wrong", "refused"), ("cut", "unreachable"), ("slow", "trying")];
    let workers =
        scheduler.workers_until(|workers| states.iter().all(|&(id, is)| state(workers, id) == is)).await;
    for _ in 0..4 {
        assert_eq!(candidates(&scheduler, &mut sidecar).await, ["good"]);
    }

    let shown = |id: &str| workers.as_array().unwrap().iter().find(|w| w["worker_id"] == id).unwrap().clone();
    assert_eq!(
        shown("wrong")["pairs"][0]["differs"],
        json!({"field": "model", "prefill": "revision a", "decode": "revision b"})
    );
    assert_eq!(shown("cut")["pairs"][0]["reason"], "the cable is cut");
    assert_eq!(shown("decode-0")["pairs"], Value::Null);
    let metrics = scheduler.get("/metrics").await.text();
    for (_, state) in states {
        let line = format!("baton_scheduler_pairs{{state=\"{state}\"}} 1");
        assert!(metrics.contains(&line), "no {line} in\n{metrics}");
    }

    // A request would be served; the pairs are not settled.
    assert_eq!(scheduler.get("/ready").await.status, 200);
    let answer = scheduler.get("/ready/pairs").await;
    assert_eq!(answer.status, 503);
    for words in ["cut cannot reach decode-0: the cable is cut", "slow is connecting to decode-0"] {
        assert!(answer.text().contains(words), "no {words:?} in {}", answer.text());
    }
    drop((cut, slow));
    scheduler.workers_until(|workers| workers.as_array().unwrap().len() == 3).await;
    let answer = scheduler.get("/ready/pairs").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.text(),
        "wrong and decode-0 are never paired: model is `revision a` at wrong and `revision b` at decode-0\n"
    );
}

#[tokio::test]
async fn a_decode_worker_to_which_nobody_is_connected_prefills_itself() {
    let scheduler = TestScheduler::start(&[]).await;
    let (_decode, mut sidecar) = decode(&scheduler, "decode-0", 1).await;
    let _wrong = prefill(&scheduler, "wrong", refused).await;
    scheduler.workers_until(|workers| state(workers, "wrong") == "refused").await;
    assert_eq!(candidates(&scheduler, &mut sidecar).await, [""; 0]);
    assert!(scheduler.get("/metrics").await.text().contains("baton_fallbacks_total 1"));
}

#[tokio::test]
async fn a_decode_worker_that_joins_later_or_again_is_told_to_prefill_workers() {
    let scheduler = TestScheduler::start(&[]).await;
    let _prefill = prefill(&scheduler, "prefill-0", connected).await;
    let (decode_0, mut sidecar) = decode(&scheduler, "decode-0", 1).await;
    scheduler.connected(1).await;
    assert_eq!(candidates(&scheduler, &mut sidecar).await, ["prefill-0"]);
    let (_decode_1, _sidecar) = decode(&scheduler, "decode-1", 1).await;
    scheduler.connected(2).await;

    // Its next life is another peer: the pair of the former one does not stand for it.
    drop((decode_0, sidecar));
    scheduler.connected(1).await;
    let (_again, _sidecar) = decode(&scheduler, "decode-0", 2).await;
    scheduler.connected(2).await;
}

#[tokio::test]
async fn an_aggregated_fleet_waits_for_no_pairs() {
    let scheduler = TestScheduler::start(&["--aggregated"]).await;
    let (_decode, _sidecar) = decode(&scheduler, "decode-0", 1).await;
    let _cut = prefill(&scheduler, "cut", unreachable).await;
    assert_eq!(scheduler.get("/ready/pairs").await.status, 200);
}
