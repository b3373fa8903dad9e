//! The seam: what a generator is given, and what becomes of its failures.

mod common;

use baton_front::{GenerateError, NoDecodeWorker, WorkerLost};
use common::{EventReader, Step, TestFront, say, send};
use serde_json::{Value, json};

const COMPLETIONS: &str = "/v1/completions";

fn lost() -> GenerateError {
    WorkerLost { worker: "decode-0".to_owned() }.into()
}

#[tokio::test]
async fn it_is_given_the_clients_headers_but_not_its_key() {
    let (front, mut told) = TestFront::start(&[]).await;
    let headers = [("x-prefiller-host-port", "a:1"), ("authorization", "Bearer secret")];
    let body = json!({"prompt": "x"}).to_string();
    let asked =
        tokio::spawn(async move { send(front.http, "POST", COMPLETIONS, &headers, body.as_bytes()).await });
    let call = told.call().await;
    assert_eq!(call.request.headers["x-prefiller-host-port"], "a:1");
    assert!(!call.request.headers.contains_key("authorization"));
    call.act(Step::Finish(baton_proto::v1::FinishReason::Stop));
    assert_eq!(asked.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_failure_before_the_first_event_is_a_status_streamed_or_not() {
    for stream in [false, true] {
        let (front, told) = TestFront::start(&[]).await;
        let _answering = told.always(vec![Step::Fail(NoDecodeWorker { draining: 0 }.into())]);
        let answer = front.post(COMPLETIONS, &json!({"prompt": "x", "stream": stream})).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.headers["retry-after"], "1");
        assert_eq!(answer.json()["error"]["code"], "no_decode_worker");
    }
}

#[tokio::test]
async fn a_failure_or_a_silent_end_later_is_the_streams_last_event() {
    for (step, reason) in [(Some(Step::Fail(lost())), "was lost"), (None, "ended before the request did")] {
        let (front, mut told) = TestFront::start(&[]).await;
        let body = json!({"prompt": "x", "stream": true});
        let address = front.http;
        let reading = tokio::spawn(async move { EventReader::open(address, COMPLETIONS, &body).await });
        let call = told.call().await;
        call.act_all(say("Hello"));
        step.into_iter().for_each(|step| call.act(step));
        drop(call);
        let mut events = reading.await.unwrap();
        assert_eq!(events.status, 200);
        let mut last = String::new();
        while let Some(event) = events.next().await {
            last = event;
        }
        let error: Value = serde_json::from_str(&last).unwrap();
        assert_eq!(error["error"]["code"], "worker_lost", "{last}");
        assert!(error["error"]["message"].as_str().unwrap().contains(reason), "{last}");
    }
}
