//! What is computed once is not computed again, and the usage says so.

use serde_json::{Value, json};

use crate::harness::{Client, Deployment, Event, ModelFolder, Role, Up};

const BLOCK_TOKENS: u64 = 16;

/// A conversation long enough for several blocks.
fn question(parcel: usize) -> Value {
    let facts: Vec<String> =
        (1..12).map(|n| format!("Parcel {n} goes to Lisbon by train with Mira.")).collect();
    let content = format!("{} Where does parcel {parcel} go?", facts.join(" "));
    json!({"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 12})
}

/// The answer's text, its prompt's tokens, and how many of these were cached.
fn ask(client: &Client, body: &Value) -> (String, u64, u64) {
    let answer = client.post("/v1/chat/completions", body).ok();
    let text = answer["choices"][0]["message"]["content"].as_str().expect("text").to_owned();
    let (prompt, cached) = usage(&answer["usage"]);
    (text, prompt, cached)
}

fn usage(usage: &Value) -> (u64, u64) {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {usage}"));
    (number(&usage["prompt_tokens"]), number(&usage["prompt_tokens_details"]["cached_tokens"]))
}

fn asked_again(up: &Up, prefiller: Role) {
    let deployment = Deployment::up(up);
    let client = deployment.client();
    let (text, tokens, cached) = ask(client, &question(3));
    assert_eq!(cached, 0);
    let most = (tokens - 1) / BLOCK_TOKENS * BLOCK_TOKENS;
    assert!(most >= 5 * BLOCK_TOKENS, "{tokens} tokens are too few to show anything");
    assert_eq!(ask(client, &question(3)), (text, tokens, most));

    // Another question begins the same.
    let (_, tokens, cached) = ask(client, &question(4));
    assert!(cached >= 4 * BLOCK_TOKENS && cached < tokens, "{cached} of {tokens}");

    let mut streamed = question(3);
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let events: Vec<Event> = client.stream("/v1/chat/completions", &streamed).collect();
    let last = events
        .iter()
        .filter_map(|event| if let Event::Data(data) = event { Some(data) } else { None })
        .next_back();
    assert_eq!(usage(&last.expect("a chunk with the usage")["usage"]).1, most);

    let metrics = deployment.worker(prefiller).metrics();
    let hits = metrics.get("vllm:prefix_cache_hits_total", &[]);
    assert_eq!(hits, (2 * most + cached) as f64);
    assert!(metrics.get("vllm:prefix_cache_queries_total", &[]) > hits);
    assert!(metrics.get("baton_kv_blocks", &[("state", "cached")]) > 0.0);
    deployment.stop();
}

#[test]
fn an_aggregated_worker_says_what_it_had_cached() {
    asked_again(&Up::new(&ModelFolder::bundled(), 0, 1), Role::Decode);
}

#[test]
fn the_prefill_workers_hits_are_what_the_client_is_told() {
    asked_again(&Up::new(&ModelFolder::bundled(), 1, 1), Role::Prefill);
}

/// Whoever has another salt neither profits from what was cached, on any worker, nor can tell that it was.
fn salted(prefill: usize, decode: usize) {
    let up = Up::new(&ModelFolder::bundled(), prefill, decode).with("--log", "debug");
    let mut deployment = Deployment::up(&up);
    let client = deployment.client();
    let with = |salt: Option<&str>| {
        let mut body = question(3);
        body["cache_salt"] = json!(salt);
        body
    };
    let received = || match prefill {
        0 => 0.0,
        _ => deployment.worker(Role::Decode).bytes_received(),
    };
    let before = received();
    let (text, tokens, cached) = ask(client, &with(Some("salt-of-ann")));
    assert_eq!(cached, 0);
    let all = received() - before;
    let most = (tokens - 1) / BLOCK_TOKENS * BLOCK_TOKENS;
    for (salt, cached) in [
        (Some("salt-of-bob"), 0),
        (None, 0),
        (Some("salt-of-ann"), most),
        (Some("salt-of-bob"), most),
        (None, most),
    ] {
        let before = received();
        assert_eq!(ask(client, &with(salt)), (text.clone(), tokens, cached), "{salt:?}");
        let sent = received() - before;
        assert!(if cached == 0 { sent == all } else { sent < all || prefill == 0 }, "{sent} of {all} bytes");
    }
    for (path, wrong) in
        [("chat/completions", json!("")), ("completions", json!("")), ("completions", json!(3))]
    {
        let mut body = question(3);
        (body["cache_salt"], body["prompt"]) = (wrong, json!("x"));
        let error = client.post(&format!("/v1/{path}"), &body).error(400);
        assert_eq!(error["param"], "cache_salt", "{error}");
    }
    let process = deployment.process();
    assert!(!process.log_lines(&["DEBUG"]).is_empty());
    assert_eq!(process.log_lines(&["salt-of-"]), [""; 0]);
    deployment.stop();
}

#[test]
fn only_requests_with_the_same_salt_share_what_an_aggregated_worker_cached() {
    salted(0, 1);
}

#[test]
fn only_requests_with_the_same_salt_share_what_prefill_and_decode_workers_cached() {
    salted(1, 1);
}
