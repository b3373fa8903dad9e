//! Bad input over real HTTP: a clear error in OpenAI's shape, nothing lost, nothing stuck, and the next request is served.

use std::{io::Write as _, net::TcpStream};

use serde_json::{Value, json};

use crate::harness::{Ask, Client, Deployment, ModelFolder, Reply, Role, Shape, Up, eventually, prompt_of};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

#[test]
fn every_bad_request_is_refused_clearly_and_costs_nothing() {
    let model = ModelFolder::made_up(Shape::TINY);
    let deployment = Deployment::up(&Up::new(&model, 1, 1));
    let client = deployment.client();
    let asked = Ask::new(&prompt_of(100, 1), 8);
    let expected = asked.answer(client);

    what_is_no_request(client);
    what_is_missing_or_of_the_wrong_type(client);
    what_is_out_of_range(client);
    what_is_too_long(client);
    what_is_unknown_is_ignored(client);

    assert_eq!(asked.answer(client), expected, "the next request is served as before");
    deployment.stop();
}

/// `post` of the body is refused with a message that has all of `words`.
fn check(path: &str, reply: &Reply, status: u16, words: &[&str]) {
    let error = reply.error(status);
    let said = error.to_string();
    for word in words {
        assert!(said.contains(word), "{path}: no {word:?} in {said}");
    }
}

fn what_is_no_request(client: &Client) {
    for path in [CHAT, TEXT] {
        for body in ["", "{", "nonsense", "{\"model\": }", "[1, 2", "{\"a\": 1e}", "{} {}"] {
            check(path, &client.post_bytes(path, body.as_bytes()), 400, &["JSON"]);
        }
        for body in ["[]", "null", "3", "\"text\""] {
            check(path, &client.post_bytes(path, body.as_bytes()), 400, &["object"]);
        }
        let invalid_utf8 = b"{\"model\": \"\xff\xfe\", \"prompt\": \"\xc3\x28\", \"messages\": []}";
        check(path, &client.post_bytes(path, invalid_utf8), 400, &["UTF-8"]);
        let deep = format!("{{\"prompt\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        check(path, &client.post_bytes(path, deep.as_bytes()), 400, &[]);
        assert_eq!(client.get(path).status, 405, "GET {path}");
    }
    assert_eq!(client.get("/v1/nothing").status, 404);
    let huge = json!({"prompt": "x".repeat(64 << 20)}).to_string();
    check(TEXT, &client.post_bytes(TEXT, huge.as_bytes()), 413, &["bytes"]);
}

fn what_is_missing_or_of_the_wrong_type(client: &Client) {
    let hello = json!([{"role": "user", "content": "hello"}]);
    for (body, words) in [
        (json!({}), ["messages"]),
        (json!({"messages": []}), ["messages"]),
        (json!({"messages": "hello"}), ["messages"]),
        (json!({"messages": [3]}), ["messages"]),
        (json!({"messages": [{"content": "no role"}]}), ["role"]),
        (json!({"messages": [{"role": "user", "content": 3}]}), ["content"]),
        (json!({"messages": hello, "max_tokens": "many"}), ["max_tokens"]),
        (json!({"messages": hello, "temperature": "hot"}), ["temperature"]),
        (json!({"messages": hello, "stream": "yes"}), ["stream"]),
        (json!({"messages": hello, "stop": 7}), ["stop"]),
        (json!({"messages": hello, "model": 7}), ["model"]),
        (json!({"messages": hello, "seed": 1.5}), ["seed"]),
    ] {
        check(CHAT, &client.post(CHAT, &body), 400, &words);
    }
    for (body, words) in [
        (json!({}), ["prompt"]),
        (json!({"prompt": ""}), ["prompt"]),
        (json!({"prompt": []}), ["prompt"]),
        (json!({"prompt": {"text": "x"}}), ["prompt"]),
        (json!({"prompt": [1, "two"]}), ["prompt"]),
        (json!({"prompt": [-1]}), ["prompt"]),
        (json!({"prompt": [1, 2, 999_999]}), ["999999"]),
        (json!({"prompt": "x", "logprobs": "all"}), ["logprobs"]),
    ] {
        check(TEXT, &client.post(TEXT, &body), 400, &words);
    }
    let unknown_model = json!({"model": "gpt-17", "messages": hello, "prompt": "x"});
    for path in [CHAT, TEXT] {
        check(path, &client.post(path, &unknown_model), 404, &["model_not_found", "gpt-17", "made-up"]);
    }
}

fn what_is_out_of_range(client: &Client) {
    for (field, values) in [
        ("temperature", vec![json!(-0.1), json!(1e30), json!(2.1)]),
        ("top_p", vec![json!(-0.5), json!(0), json!(1.01)]),
        ("top_k", vec![json!(-7), json!(1u64 << 40)]),
        ("min_p", vec![json!(-0.1), json!(1.1)]),
        ("max_tokens", vec![json!(0), json!(-1), json!(1_000_000_000_000u64), json!(3.5)]),
        ("n", vec![json!(0), json!(-1), json!(100_000)]),
        ("presence_penalty", vec![json!(-2.5), json!(99)]),
        ("frequency_penalty", vec![json!(-2.5), json!(99)]),
        ("repetition_penalty", vec![json!(0), json!(-1)]),
        ("logprobs", vec![json!(-1), json!(1000)]),
        ("min_tokens", vec![json!(-1), json!(1_000_000_000_000u64)]),
        ("stop", vec![json!(vec!["x"; 1000])]),
        ("logit_bias", vec![json!({"1": 1e9}), json!({"x": 1}), json!({"999999": 1})]),
    ] {
        for value in values {
            let mut body = json!({"prompt": "x", "max_tokens": 2});
            body[field] = value.clone();
            let reply = client.post(TEXT, &body);
            assert_eq!(reply.status, 400, "{field} = {value}: {reply:?}");
            check(TEXT, &reply, 400, &[field]);
        }
    }
}

fn what_is_too_long(client: &Client) {
    let context = Shape::TINY.context;
    let too_long = json!({"prompt": prompt_of(context + 1, 1), "max_tokens": 1});
    let size = (context + 1).to_string();
    check(
        TEXT,
        &client.post(TEXT, &too_long),
        400,
        &["context_length_exceeded", &context.to_string(), &size],
    );
    let no_room = json!({"prompt": prompt_of(context - 10, 1), "max_tokens": 100});
    check(TEXT, &client.post(TEXT, &no_room), 400, &["context_length_exceeded", &context.to_string()]);
    let streamed = json!({"prompt": prompt_of(context + 1, 1), "max_tokens": 1, "stream": true});
    check(TEXT, &client.post(TEXT, &streamed), 400, &["context_length_exceeded"]);
}

fn what_is_unknown_is_ignored(client: &Client) {
    let body = json!({
        "prompt": "x", "max_tokens": 2, "some_future_field": {"deep": [1, 2]}, "user": "me", "metadata": null,
        "stream_options": null, "logit_bias": null, "stop": null, "seed": null,
    });
    assert_eq!(client.post(TEXT, &body).ok()["object"], "text_completion");
}

#[test]
fn a_prompt_that_can_never_fit_the_kv_cache_is_refused_with_both_sizes() {
    let model = ModelFolder::made_up(Shape::TINY);
    let deployment = Deployment::up(&Up::new(&model, 1, 1).with("--kv-blocks", 20));
    let client = deployment.client();
    let body = json!({"prompt": prompt_of(1500, 1), "max_tokens": 1});
    let reply = client.post(TEXT, &body);
    assert_eq!(reply.status, 400, "{reply:?}");
    check(TEXT, &reply, 400, &["1500", "KV"]);
    Ask::new(&prompt_of(100, 1), 8).answer(client);
    deployment.stop();
}

#[test]
fn more_requests_than_the_kv_cache_holds_wait_for_their_turn() {
    let model = ModelFolder::made_up(Shape::TINY);
    let deployment = Deployment::up(&Up::new(&model, 1, 1).with("--kv-blocks", 20));
    let client = deployment.client();
    let asks: Vec<Ask> = (0..12).map(|seed| Ask::new(&prompt_of(90, seed), 60)).collect();
    let alone: Vec<_> = asks.iter().map(|ask| ask.answer(client)).collect();
    let together = crate::harness::all_at_once(&asks, client);
    assert_eq!(together, alone);
    deployment.stop();
}

#[test]
fn an_abandoned_request_gives_everything_back_at_any_stage() {
    let model = ModelFolder::made_up(Shape::SLOW);
    let deployment = Deployment::up(&Up::new(&model, 1, 1));
    let client = deployment.client();
    // Each prompt begins in its own way: what was cached of an earlier one would be over too soon.
    let mut seeds = 1..;
    let mut long = |max_tokens: usize, stream: bool| {
        let prompt = prompt_of(3000, seeds.next().expect("without end"));
        json!({"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": true, "stream": stream})
    };
    let running = |role: Role| deployment.worker(role).metrics().get("vllm:num_requests_running", &[]) > 0.0;

    // Before the whole request was sent.
    let mut half_sent = connect(client);
    half_sent.write_all(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{\"prompt\"").expect("sent");
    drop(half_sent);

    for stream in [false, true] {
        // While the prompt is computed.
        let hung_up = send(client, &long(500, stream));
        eventually("a prompt under way", || if running(Role::Prefill) { Ok(()) } else { Err("idle".into()) });
        drop(hung_up);
        deployment.assert_blocks_return();

        // While the answer is written.
        let hung_up = send(client, &long(1000, stream));
        eventually("an answer under way", || if running(Role::Decode) { Ok(()) } else { Err("idle".into()) });
        drop(hung_up);
        deployment.assert_blocks_return();
    }
    Ask::new(&prompt_of(100, 1), 8).answer(client);
    deployment.stop();
}

fn connect(client: &Client) -> TcpStream {
    TcpStream::connect(client.base().trim_start_matches("http://")).expect("the front accepts")
}

/// Sends a request and reads nothing of its answer.
fn send(client: &Client, body: &Value) -> TcpStream {
    let mut connection = connect(client);
    let body = body.to_string();
    let head = format!(
        "POST {TEXT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(format!("{head}{body}").as_bytes()).expect("sent");
    connection
}
