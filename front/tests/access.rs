//! Who is served, how much, and what is recorded of it.

mod common;

use baton_front::{NoDecodeWorker, Owner};
use baton_proto::v1::FinishReason;
use common::{Answer, EventReader, Keys, Step, TestFront, Told, say, send, tokens};
use serde_json::{Value, json};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

async fn post(front: &TestFront, headers: &[(&str, &str)], path: &str, body: &Value) -> Answer {
    send(front.http, "POST", path, headers, body.to_string().as_bytes()).await
}

async fn get(front: &TestFront, headers: &[(&str, &str)], path: &str) -> Answer {
    send(front.http, "GET", path, headers, b"").await
}

/// One completion of `prompt` for the key of `name`.
async fn ask(front: &TestFront, keys: &Keys, name: &str, prompt: &str) -> Answer {
    post(front, &[("authorization", &keys.bearer(name))], COMPLETIONS, &json!({ "prompt": prompt })).await
}

fn answering(told: Told) -> tokio::task::JoinHandle<()> {
    let end = Step::Finish(FinishReason::Stop);
    told.always(say("Hello").into_iter().chain([end]).collect())
}

fn code(answer: &Answer) -> (u16, String) {
    let error = answer.json()["error"].clone();
    (answer.status, error["code"].as_str().unwrap_or_else(|| panic!("{error}")).to_owned())
}

#[tokio::test]
async fn who_has_no_good_key_is_told_so_before_anybody_hears_of_the_request() {
    let keys = Keys::new(&[("alice", &[]), ("old", &["expires: 2020-01-01"])]);
    let (front, mut told) = TestFront::with_keys(&keys).await;
    // So large that an answer which did not wait for it would be lost.
    let large = json!({ "prompt": "x".repeat(3 << 20) });
    let old = keys.bearer("old");
    for (headers, expected) in [
        (&[][..], "missing_api_key"),
        (&[("authorization", "Bearer sk-baton-wrong")], "invalid_api_key"),
        (&[("authorization", "Basic eDp5")], "invalid_api_key"),
        (&[("x-api-key", "sk-baton-wrong")], "invalid_api_key"),
        (&[("authorization", old.as_str())], "expired_api_key"),
    ] {
        let answer = post(&front, headers, CHAT, &large).await;
        assert_eq!(code(&answer), (401, expected.to_owned()));
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert_eq!(answer.json()["error"]["type"], "authentication_error");
        for path in [
            "/v1/models",
            "/v1/models/tiny",
            "/v1/workers",
            "/v1/decisions",
            "/v1/decisions/x",
            "/v1/traffic",
        ] {
            assert_eq!(code(&get(&front, headers, path).await), (401, expected.to_owned()), "{path}");
        }
        for path in ["/tokenize", "/detokenize"] {
            assert_eq!(code(&post(&front, headers, path, &large).await).0, 401, "{path}");
        }
    }
    assert!(told.is_idle());
    for path in ["/health", "/ready", "/metrics", "/version"] {
        assert_eq!(get(&front, &[], path).await.status, 200, "{path}");
    }
    let audit = keys.audit(15).await;
    assert!(audit.iter().all(|line| line["status"] == 401 && line["client"] == "127.0.0.1"), "{audit:?}");
    assert_eq!(audit[14]["key"], "old");
    assert!(!keys.audit_text().contains("sk-baton-wrong"));
    assert!(!keys.metrics.encode().contains("sk-baton-wrong"));
}

#[tokio::test]
async fn a_key_opens_and_goes_no_further() {
    let keys = Keys::new(&[("alice", &["priority: 7", "weight: 3"])]);
    let (front, mut told) = TestFront::with_keys(&keys).await;
    let (address, bearer, secret) = (front.http, keys.bearer("alice"), keys.secret("alice").to_owned());
    for header in [("authorization", bearer), ("x-api-key", secret)] {
        let asked = tokio::spawn(async move {
            let headers = [(header.0, header.1.as_str()), ("cookie", "secret"), ("x-session-id", "s")];
            send(address, "POST", COMPLETIONS, &headers, br#"{"prompt": "x"}"#).await
        });
        let call = told.call().await;
        let names: Vec<&str> = call.request.headers.keys().map(|name| name.as_str()).collect();
        let hidden = ["authorization", "x-api-key", "cookie"];
        assert!(
            names.contains(&"x-session-id") && !names.iter().any(|name| hidden.contains(name)),
            "{names:?}"
        );
        let owner = Owner { tenant: "alice".into(), priority: 7, weight: 3 };
        assert_eq!(call.request.owner, Some(owner));
        call.act(Step::Finish(FinishReason::Stop));
        assert_eq!(asked.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn without_keys_everybody_is_served_and_the_headers_say_whose_it_is() {
    let (front, mut told) = TestFront::start(&[]).await;
    let address = front.http;
    let asked = tokio::spawn(async move {
        let any = [("authorization", "Bearer whatever")];
        send(address, "POST", COMPLETIONS, &any, br#"{"prompt": "x"}"#).await
    });
    let call = told.call().await;
    assert_eq!(call.request.owner, None);
    call.act(Step::Finish(FinishReason::Stop));
    assert_eq!(asked.await.unwrap().status, 200);
    for path in ["/v1/models", "/v1/workers", "/v1/decisions"] {
        assert_eq!(get(&front, &[], path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_key_is_for_its_models_and_shows_no_others() {
    let keys = Keys::new(&[("alice", &["models: [other]"]), ("bob", &["models: [tiny]"])]);
    let (front, told) = TestFront::with_keys(&keys).await;
    let _answering = answering(told);
    let (alice, bob) = (keys.bearer("alice"), keys.bearer("bob"));
    let (alice, bob) = ([("authorization", alice.as_str())], [("authorization", bob.as_str())]);
    for body in [json!({ "prompt": "x" }), json!({ "prompt": "x", "model": "tiny" })] {
        let answer = post(&front, &alice, COMPLETIONS, &body).await;
        assert_eq!(code(&answer), (403, "model_not_allowed".to_owned()));
        assert_eq!(answer.json()["error"]["param"], "model");
        assert_eq!(post(&front, &bob, COMPLETIONS, &body).await.status, 200);
    }
    let answer = post(&front, &alice, "/tokenize", &json!({ "prompt": "x" })).await;
    assert_eq!(code(&answer), (403, "model_not_allowed".to_owned()));
    // Whether a model exists that one may not use is not told, either.
    let answer = post(&front, &alice, COMPLETIONS, &json!({ "prompt": "x", "model": "other" })).await;
    assert_eq!(code(&answer), (404, "model_not_found".to_owned()));
    assert!(!answer.text().contains("tiny"), "{}", answer.text());
    let unknown = post(&front, &alice, COMPLETIONS, &json!({ "prompt": "x", "model": "secret" })).await;
    assert_eq!(code(&unknown), (403, "model_not_allowed".to_owned()));

    assert_eq!(get(&front, &alice, "/v1/models").await.json()["data"], json!([]));
    assert_eq!(get(&front, &bob, "/v1/models").await.json()["data"][0]["id"], "tiny");
    assert_eq!(code(&get(&front, &alice, "/v1/models/tiny").await), (404, "model_not_found".to_owned()));
    assert_eq!(get(&front, &bob, "/v1/models/tiny").await.json()["id"], "tiny");
}

#[tokio::test]
async fn only_operators_see_workers_and_decisions() {
    let keys = Keys::new(&[("alice", &[]), ("operator", &["admin: true"])]);
    let (front, _told) = TestFront::with_keys(&keys).await;
    for path in ["/v1/workers", "/v1/decisions"] {
        let answer = get(&front, &[("authorization", &keys.bearer("alice"))], path).await;
        assert_eq!(code(&answer), (403, "admin_key_needed".to_owned()));
        let answer = get(&front, &[("authorization", &keys.bearer("operator"))], path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(keys.metric(r#"baton_tenant_refusals_total{reason="admin_key_needed"} 2"#));
}

#[tokio::test]
async fn limits_are_kept_and_told() {
    let keys = Keys::new(&[("alice", &["requests-per-minute: 2"]), ("bob", &["tokens-per-minute: 100"])]);
    let (front, told) = TestFront::with_keys(&keys).await;
    let _answering = answering(told);
    for remaining in ["1", "0"] {
        let answer = ask(&front, &keys, "alice", "x").await;
        assert_eq!(
            (answer.status, answer.headers["x-ratelimit-remaining-requests"].as_str()),
            (200, remaining)
        );
        assert_eq!(answer.headers["x-ratelimit-limit-requests"], "2");
    }
    let refused = ask(&front, &keys, "alice", "x").await;
    assert_eq!(code(&refused), (429, "requests_per_minute_exceeded".to_owned()));
    let after: u64 = refused.headers["retry-after"].parse().unwrap();
    assert!((1..=30).contains(&after), "{after}");
    assert_eq!(refused.headers["x-ratelimit-remaining-requests"], "0");

    // A prompt of 60 tokens, and an answer.
    let output = tokens("Hello").len();
    let answer = ask(&front, &keys, "bob", &"x".repeat(60)).await;
    assert_eq!(answer.json()["usage"]["total_tokens"], 60 + output);
    let refused = ask(&front, &keys, "bob", &"x".repeat(60)).await;
    assert_eq!(code(&refused), (429, "tokens_per_minute_exceeded".to_owned()));
    let left: u64 = refused.headers["x-ratelimit-remaining-tokens"].parse().unwrap();
    assert!((35..60).contains(&left), "{left}");
    let never = ask(&front, &keys, "bob", &"x".repeat(101)).await;
    assert_eq!((never.status, never.headers["x-should-retry"].as_str()), (429, "false"));
    assert!(keys.metric(r#"baton_tenant_prompt_tokens_total{key="bob",team=""} 60"#));
    assert!(keys.metric(&format!(r#"baton_tenant_output_tokens_total{{key="bob",team=""}} {output}"#)));
    let audit = keys.audit(6).await;
    let outcomes: Vec<_> = audit.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    let (requests, tokens) = ("requests_per_minute_exceeded", "tokens_per_minute_exceeded");
    assert_eq!(outcomes, ["ok", "ok", requests, "ok", tokens, tokens]);
}

#[tokio::test]
async fn each_request_is_recorded_as_it_ended() {
    let keys = Keys::new(&[("alice", &["team: research"])]);
    let (front, mut told) = TestFront::with_keys(&keys).await;
    let address = front.http;
    let bearer = keys.bearer("alice");
    let open = |stream: bool| {
        let bearer = bearer.clone();
        tokio::spawn(async move {
            let body = json!({ "prompt": "Hi", "stream": stream });
            EventReader::saying(address, COMPLETIONS, &[("authorization", &bearer)], &body).await
        })
    };
    // Served.
    let reading = open(true);
    told.call().await.act_all(say("Hello").into_iter().chain([Step::Finish(FinishReason::Stop)]));
    let mut events = reading.await.unwrap();
    while events.next().await.is_some() {}
    // Failed before the first token.
    let reading = open(true);
    told.call().await.act(Step::Fail(NoDecodeWorker { draining: 0 }.into()));
    assert_eq!(reading.await.unwrap().status, 503);
    // The client left.
    let reading = open(true);
    let call = told.call().await;
    call.act_all(say("Hello").into_iter().take(1));
    let mut events = reading.await.unwrap();
    events.next().await.expect("a token");
    drop(events);
    call.dropped().await;

    let audit = keys.audit(3).await;
    let of = |line: &Value| {
        ["outcome", "status", "prompt_tokens", "cached_tokens", "output_tokens"]
            .map(|field| line[field].clone())
    };
    let (prompt, output) = (tokens("Hi").len(), tokens("Hello").len());
    let expected = [
        json!(["ok", 200, prompt, 2, output]),
        // Its prompt was never computed.
        json!(["no_decode_worker", 503, 0, 0, 0]),
        json!(["cancelled", 499, prompt, 2, 1]),
    ];
    assert_eq!(audit.iter().map(|line| json!(of(line))).collect::<Vec<_>>(), expected);
    for line in &audit {
        assert_eq!(
            (&line["key"], &line["team"], &line["model"]),
            (&json!("alice"), &json!("research"), &json!("tiny"))
        );
        assert_eq!((&line["endpoint"], &line["prompt"]), (&json!(COMPLETIONS), &json!("Hi")));
        assert_eq!(line["request_id"], "test");
    }
    for (outcome, count) in [("served", 1), ("refused", 1), ("cancelled", 1)] {
        let line = format!(
            r#"baton_tenant_requests_total{{key="alice",team="research",outcome="{outcome}"}} {count}"#
        );
        assert!(keys.metric(&line), "{}", keys.metrics.encode());
    }
}
