//! What the generator can't serve is served by an upstream, as long as nothing of an answer was shown.

mod common;

use std::time::Duration;

use baton_front::{
    DeadlinePassed, Edge, GenerateError, NeverFits, NoDecodeWorker, NotNow, Stopping, WorkerLost,
};
use baton_process::Metrics;
use baton_proto::v1::FinishReason;
use baton_tenancy::Tenancy;
use common::{
    Answer, EventReader, FakeGenerator, FakeUpstream, Keys, Reply, Step, TestFront, Told, say, send,
};
use serde_json::{Value, json};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const SPARE: &str = "  models: [tiny]\n  send-model: theirs\n  retries: 1";

struct Fixture {
    front: TestFront,
    told: Told,
    upstream: FakeUpstream,
    metrics: Metrics,
}

impl Fixture {
    /// A front with an upstream of these terms.
    async fn new(lines: &str) -> Self {
        let (upstream, metrics) = (FakeUpstream::start().await, Metrics::new());
        let edge = Edge { tenancy: Tenancy::open_to_all(), upstreams: upstream.upstreams(lines, &metrics) };
        let (front, told) = TestFront::behind(edge, metrics.clone(), FakeGenerator::new(), &[]).await;
        Self { front, told, upstream, metrics }
    }

    /// The front's answer, whose generator fails with `error`.
    async fn failing(&mut self, error: impl Into<GenerateError>, body: &Value) -> Answer {
        let asking = self.front.post(COMPLETIONS, body);
        let failing = async { self.told.call().await.act(Step::Fail(error.into())) };
        tokio::join!(asking, failing).0
    }

    fn count(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|there| there == line)
    }

    fn ended(&self, outcome: &str, count: u32) -> bool {
        self.count(&format!(
            r#"baton_upstream_requests_total{{upstream="spare",outcome="{outcome}"}} {count}"#
        ))
    }
}

fn nobody() -> NoDecodeWorker {
    NoDecodeWorker { draining: 0 }
}

fn served() -> Value {
    json!({ "model": "theirs", "choices": [], "usage": { "prompt_tokens": 3, "completion_tokens": 4 } })
}

fn code(answer: &Answer) -> (u16, String) {
    let error = answer.json()["error"].clone();
    (answer.status, error["code"].as_str().unwrap_or_else(|| panic!("{error}")).to_owned())
}

#[tokio::test]
async fn what_the_pool_cannot_serve_goes_on_as_it_came_but_for_model_and_key() {
    let lost = WorkerLost { worker: "decode-0".to_owned() };
    let full = NotNow { reason: "full".to_owned(), is_nobody: false, retry_after: Duration::from_secs(9) };
    for error in [GenerateError::from(nobody()), lost.into(), full.into()] {
        let mut fixture = Fixture::new(SPARE).await;
        fixture.upstream.reply(Reply::json(200, &served()));
        let body = json!({ "prompt": "Hi", "temperature": 0.5, "made_up": { "b": [1, null], "a": 2 } });
        let headers =
            [("authorization", "Bearer of-the-client"), ("cookie", "secret"), ("x-session-id", "s")];
        let text = body.to_string();
        let asking = send(fixture.front.http, "POST", COMPLETIONS, &headers, text.as_bytes());
        let failing = async { fixture.told.call().await.act(Step::Fail(error)) };
        let (answer, ()) = tokio::join!(asking, failing);
        assert_eq!((answer.status, answer.json()), (200, served()));
        assert_eq!(answer.headers["x-baton-served-by"], "upstream spare");
        assert_eq!(answer.headers["x-request-id"], "test");

        let heard = fixture.upstream.heard().await;
        assert_eq!(heard.path, "/api/v1/completions");
        let mut expected = body;
        expected["model"] = "theirs".into();
        assert_eq!(heard.body, expected);
        assert_eq!(heard.headers["authorization"], "Bearer sk-theirs");
        assert_eq!(heard.headers["x-request-id"], "test");
        assert!(heard.headers.contains_key("x-baton-upstream-hop"));
        assert!(!heard.headers.contains_key("cookie") && !heard.headers.contains_key("x-session-id"));
        assert!(fixture.ended("served", 1), "{}", fixture.metrics.encode());
        assert!(fixture.count("baton_fallbacks_total 1"));
    }
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_comes() {
    let mut fixture = Fixture::new("  models: [\"*\"]").await;
    let (reply, sender) = Reply::live();
    fixture.upstream.reply(reply);
    let (address, body) =
        (fixture.front.http, json!({ "messages": [{ "role": "user", "content": "Hi" }], "stream": true }));
    let reading = tokio::spawn(async move { EventReader::open(address, CHAT, &body).await });
    fixture.told.call().await.act(Step::Fail(nobody().into()));
    sender.send(Ok("data: one\n\n".into())).unwrap();
    let mut events = reading.await.unwrap();
    assert_eq!((events.status, events.next().await.as_deref()), (200, Some("one")));
    sender.send(Ok("data: two\n\n".into())).unwrap();
    assert_eq!(events.next().await.as_deref(), Some("two"), "before the end is there");
    drop(sender);
    assert_eq!(events.next().await, None);
    let heard = fixture.upstream.heard().await;
    assert_eq!((heard.path.as_str(), &heard.body["model"]), ("/api/v1/chat/completions", &json!("tiny")));
}

#[tokio::test]
async fn requests_that_are_wrong_or_late_are_not_sent_on() {
    let mut fixture = Fixture::new(SPARE).await;
    let never = NeverFits { needed_tokens: 9, prompt_tokens: 8, max_tokens: 1, capacity_tokens: 4 };
    let late = DeadlinePassed { limit: Duration::from_secs(1) };
    for (error, status) in [(GenerateError::from(never), 400), (late.into(), 504), (Stopping.into(), 503)] {
        assert_eq!(fixture.failing(error, &json!({ "prompt": "x" })).await.status, status);
    }
    assert_eq!(fixture.front.post(COMPLETIONS, &json!({ "prompt": "x", "n": "many" })).await.status, 400);
    assert_eq!(
        code(&fixture.front.post(COMPLETIONS, &json!({ "prompt": "x", "model": "else" })).await).0,
        404
    );
    assert!(fixture.upstream.is_idle());
}

#[tokio::test]
async fn once_a_byte_was_shown_nothing_is_tried_any_more() {
    let mut fixture = Fixture::new(SPARE).await;
    let (address, body) = (fixture.front.http, json!({ "prompt": "x", "stream": true }));
    let reading = tokio::spawn(async move { EventReader::open(address, COMPLETIONS, &body).await });
    let call = fixture.told.call().await;
    call.act_all(say("Hello"));
    call.act(Step::Fail(WorkerLost { worker: "decode-0".to_owned() }.into()));
    let mut events = reading.await.unwrap();
    let mut last = String::new();
    while let Some(event) = events.next().await {
        last = event;
    }
    assert!(last.contains("worker_lost"), "{last}");
    assert!(fixture.upstream.is_idle());
}

#[tokio::test]
async fn an_answer_of_which_nothing_was_shown_is_had_elsewhere() {
    let mut fixture = Fixture::new(SPARE).await;
    fixture.upstream.reply(Reply::json(200, &served()));
    let asking = async { fixture.front.post(COMPLETIONS, &json!({ "prompt": "x" })).await };
    let failing = async {
        let call = fixture.told.call().await;
        call.act_all(say("Hello"));
        call.act(Step::Fail(WorkerLost { worker: "decode-0".to_owned() }.into()));
    };
    assert_eq!(tokio::join!(asking, failing).0.json(), served());
    assert!(!fixture.metrics.encode().contains("vllm:generation_tokens_total"), "no tokens of ours");
}

#[tokio::test]
async fn an_upstream_is_asked_a_bounded_number_of_times() {
    let mut fixture = Fixture::new(SPARE).await;
    fixture.upstream.reply(Reply::json(503, &json!({})));
    fixture.upstream.reply(Reply::json(200, &served()));
    assert_eq!(fixture.failing(nobody(), &json!({ "prompt": "x" })).await.json(), served());
    assert!(fixture.count(r#"baton_upstream_retries_total{upstream="spare"} 1"#));
    for _ in 0..2 {
        fixture.upstream.heard().await;
        fixture.upstream.reply(Reply::json(500, &json!({})));
    }
    // The client is told what stood against it here.
    let answer = fixture.failing(nobody(), &json!({ "prompt": "x" })).await;
    assert_eq!(code(&answer), (503, "no_decode_worker".to_owned()));
    assert!(!answer.headers.contains_key("x-baton-served-by"));
    for _ in 0..2 {
        fixture.upstream.heard().await;
    }
    assert!(fixture.upstream.is_idle() && fixture.ended("busy", 1));
}

#[tokio::test]
async fn a_stream_that_fails_before_its_first_byte_is_asked_for_again_and_later_not() {
    let mut fixture = Fixture::new(SPARE).await;
    let (empty, sender) = Reply::live();
    drop(sender);
    fixture.upstream.reply(empty);
    let (reply, sender) = Reply::live();
    fixture.upstream.reply(reply);
    let (address, body) = (fixture.front.http, json!({ "prompt": "x", "stream": true }));
    let reading = tokio::spawn(async move { EventReader::open(address, COMPLETIONS, &body).await });
    fixture.told.call().await.act(Step::Fail(nobody().into()));
    sender.send(Ok("data: one\n\n".into())).unwrap();
    let mut events = reading.await.unwrap();
    assert_eq!(events.next().await.as_deref(), Some("one"));
    sender.send(Err(std::io::Error::other("gone"))).unwrap();
    let error: Value = serde_json::from_str(&events.next().await.expect("an error event")).unwrap();
    assert_eq!(error["error"]["code"], "upstream_failed");
    assert_eq!(events.next().await, None);
    for _ in 0..2 {
        fixture.upstream.heard().await;
    }
    assert!(fixture.upstream.is_idle() && fixture.ended("broke_off", 1), "{}", fixture.metrics.encode());
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_call() {
    let mut fixture = Fixture::new(SPARE).await;
    let (reply, sender) = Reply::live();
    fixture.upstream.reply(reply);
    let (address, body) = (fixture.front.http, json!({ "prompt": "x", "stream": true }));
    let reading = tokio::spawn(async move { EventReader::open(address, COMPLETIONS, &body).await });
    fixture.told.call().await.act(Step::Fail(nobody().into()));
    sender.send(Ok("data: {}\n\n".into())).unwrap();
    drop(reading.await.unwrap());
    tokio::time::timeout(Duration::from_secs(20), sender.closed()).await.expect("the upstream is left");
}

#[tokio::test]
async fn a_model_of_an_upstream_alone_is_listed_and_served_there() {
    let mut fixture = Fixture::new("  models: [big, tiny]\n  retries: 0").await;
    let models = fixture.front.get("/v1/models").await.json();
    let listed: Vec<_> =
        models["data"].as_array().unwrap().iter().map(|model| (&model["id"], &model["owned_by"])).collect();
    let expected = [(json!("tiny"), json!("baton")), (json!("big"), json!("upstream spare"))];
    assert_eq!(listed, expected.iter().map(|(id, owner)| (id, owner)).collect::<Vec<_>>());
    assert_eq!(fixture.front.get("/v1/models/big").await.json()["owned_by"], "upstream spare");
    let body = json!({ "prompt": "x", "model": "big" });
    fixture.upstream.reply(Reply::json(200, &served()));
    assert_eq!(fixture.front.post(COMPLETIONS, &body).await.json(), served());
    assert_eq!(fixture.upstream.heard().await.body, body);
    assert_eq!(code(&fixture.front.post("/tokenize", &body).await), (404, "model_not_found".to_owned()));

    // What the client did wrong it is told in the upstream's words, and what the upstream's operator did wrong in ours.
    let wrong = json!({ "error": { "message": "no such thing", "type": "invalid_request_error", "param": null, "code": null } });
    fixture.upstream.reply(Reply::json(400, &wrong));
    let answer = fixture.front.post(COMPLETIONS, &body).await;
    assert_eq!((answer.status, answer.json()), (400, wrong.clone()));
    for (reply, status, expected) in [
        (Reply::json(401, &wrong), 502, "upstream_failed"),
        (Reply::json(404, &wrong), 502, "upstream_failed"),
        (Reply::json(302, &wrong).with("location", "http://127.0.0.1:1/"), 502, "upstream_failed"),
        (Reply::json(500, &wrong), 503, "upstream_failed"),
        (Reply::json(429, &wrong).with("retry-after", "7"), 429, "overloaded"),
    ] {
        fixture.upstream.reply(reply);
        let answer = fixture.front.post(COMPLETIONS, &body).await;
        assert_eq!(code(&answer), (status, expected.to_owned()));
        assert!(!answer.text().contains("no such thing"), "{}", answer.text());
        assert_eq!(
            answer.headers.get("retry-after").map(String::as_str),
            match status {
                429 => Some("7"),
                503 => Some("1"),
                _ => None,
            }
        );
    }
    assert!(fixture.ended("misconfigured", 3) && fixture.ended("refused", 1));
    assert!(fixture.told.is_idle());
}

#[tokio::test]
async fn an_upstream_that_is_not_there_or_silent_is_said_so() {
    let mut fixture = Fixture::new("  models: [big]\n  answer-timeout-s: 1\n  retries: 0").await;
    let body = json!({ "prompt": "x", "model": "big" });
    // It hears the request, and has no reply to give.
    assert_eq!(code(&fixture.front.post(COMPLETIONS, &body).await), (504, "deadline_exceeded".to_owned()));
    fixture.upstream.heard().await;
    assert!(fixture.ended("late", 1));
    let Fixture { front, upstream, metrics, .. } = fixture;
    let address = upstream.stop().await;
    let refused = front.post(COMPLETIONS, &body).await;
    assert_eq!(code(&refused), (502, "upstream_failed".to_owned()));
    assert!(!refused.text().contains(&address.to_string()), "{}", refused.text());
    assert!(metrics.encode().contains(r#"upstream="spare",outcome="unreachable""#));
}

#[tokio::test]
async fn what_comes_from_another_fallback_is_not_sent_on() {
    let mut fixture = Fixture::new("  models: [tiny, big]").await;
    let hop = [("x-baton-upstream-hop", "1")];
    let asking = send(fixture.front.http, "POST", COMPLETIONS, &hop, br#"{"prompt": "x"}"#);
    let failing = async { fixture.told.call().await.act(Step::Fail(nobody().into())) };
    assert_eq!(code(&tokio::join!(asking, failing).0), (503, "no_decode_worker".to_owned()));
    let answer =
        send(fixture.front.http, "POST", COMPLETIONS, &hop, br#"{"prompt": "x", "model": "big"}"#).await;
    assert_eq!(code(&answer).0, 404);
    assert!(fixture.upstream.is_idle());
}

#[tokio::test]
async fn who_is_served_elsewhere_needs_a_key_and_pays_what_the_upstream_counts() {
    let keys = Keys::new(&[
        ("alice", &["models: [big, tiny]", "tokens-per-minute: 1000"]),
        ("bob", &["models: [tiny]"]),
    ]);
    let mut upstream = FakeUpstream::start().await;
    let edge = Edge { upstreams: upstream.upstreams("  models: [big, tiny]", &keys.metrics), ..keys.edge() };
    let (front, mut told) = TestFront::behind(edge, keys.metrics.clone(), FakeGenerator::new(), &[]).await;
    let (alice, bob) = (keys.bearer("alice"), keys.bearer("bob"));
    let (alice, bob) = ([("authorization", alice.as_str())], [("authorization", bob.as_str())]);
    let post = |headers, body: Value| {
        send(front.http, "POST", COMPLETIONS, headers, body.to_string().leak().as_bytes())
    };

    assert_eq!(post(&[], json!({ "prompt": "x", "model": "big" })).await.status, 401);
    assert_eq!(post(&bob, json!({ "prompt": "x", "model": "big" })).await.status, 403);
    assert_eq!(send(front.http, "GET", "/v1/models/big", &bob, b"").await.status, 404);
    assert!(upstream.is_idle());

    // A model of the upstream's own: 3 tokens and 4.
    upstream.reply(Reply::json(200, &served()));
    assert_eq!(post(&alice, json!({ "prompt": "x", "model": "big" })).await.status, 200);
    // In place of the pool, which counted 2 of the prompt: a stream that says 200 and 100.
    let usage = json!({ "choices": [], "usage": { "prompt_tokens": 200, "completion_tokens": 100,
        "prompt_tokens_details": { "cached_tokens": 50 } } });
    upstream.reply(Reply::events(&["{}", &usage.to_string(), "[DONE]"]));
    let asking = post(&alice, json!({ "prompt": "Hi", "stream": true }));
    let failing = async { told.call().await.act(Step::Fail(nobody().into())) };
    assert_eq!(tokio::join!(asking, failing).0.status, 200);
    // One that says nothing: its events.
    upstream.reply(Reply::events(&["{}", "{}", "{}", "[DONE]"]));
    let asking = post(&alice, json!({ "prompt": "Hi", "stream": true }));
    let failing = async { told.call().await.act(Step::Fail(nobody().into())) };
    assert_eq!(tokio::join!(asking, failing).0.status, 200);

    let audit = keys.audit(5).await;
    let tokens = |line: &Value| {
        ["prompt_tokens", "cached_tokens", "output_tokens"].map(|field| line[field].as_u64().unwrap())
    };
    assert_eq!(audit[2..].iter().map(tokens).collect::<Vec<_>>(), [[3, 0, 4], [200, 50, 100], [2, 0, 3]]);
    assert!(audit[2..].iter().all(|line| line["outcome"] == "ok" && line["key"] == "alice"), "{audit:?}");
    // 312 of 1000, of which some came back meanwhile.
    let call = async {
        let call = told.call().await;
        call.act(Step::Finish(FinishReason::Stop));
    };
    let answer = tokio::join!(post(&alice, json!({ "prompt": "Hi" })), call).0;
    let left: u64 = answer.headers["x-ratelimit-remaining-tokens"].parse().unwrap();
    assert!((686..1000).contains(&left), "{left}");
    for secret in ["sk-theirs", keys.secret("alice")] {
        assert!(!keys.audit_text().contains(secret) && !keys.metrics.encode().contains(secret));
    }
}
