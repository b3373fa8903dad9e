//! Bad input: each case has its status, its field, and a message that helps; no worker hears of it.

mod common;

use common::{Answer, FakeGenerator, TestFront, raw, send};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

#[track_caller]
fn check(answer: &Answer, status: u16, param: Option<&str>, code: Option<&str>, words: &[&str]) {
    let body = answer.json();
    let error = &body["error"];
    assert_eq!(answer.status, status, "{body}");
    assert_eq!(error["param"].as_str(), param, "{body}");
    assert_eq!(error["code"].as_str(), code, "{body}");
    assert!(error["type"].is_string(), "{body}");
    let message = error["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

fn chat(field: &str, value: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Hello"}]});
    body[field] = value;
    body
}

fn completion(field: &str, value: Value) -> Value {
    let mut body = json!({"prompt": "Hello"});
    body[field] = value;
    body
}

#[tokio::test]
async fn parameters_out_of_range_or_of_the_wrong_type_are_named() {
    let (front, mut told) = TestFront::start(&[]).await;
    let both: &[(&str, Value, &str, &[&str])] = &[
        ("temperature", json!(-0.1), "temperature", &["0 to 2", "-0.1"]),
        ("temperature", json!("hot"), "temperature", &["a number", "\"hot\""]),
        ("top_p", json!(0), "top_p", &["above 0"]),
        ("top_p", json!(1.5), "top_p", &["0 to 1"]),
        ("top_k", json!(-2), "top_k", &["-1 to"]),
        ("min_p", json!(2), "min_p", &["0 to 1"]),
        ("presence_penalty", json!(3), "presence_penalty", &["-2 to 2"]),
        ("frequency_penalty", json!(-3), "frequency_penalty", &["-2 to 2"]),
        ("repetition_penalty", json!(0), "repetition_penalty", &["above 0"]),
        ("max_tokens", json!(0), "max_tokens", &["1 to"]),
        ("max_tokens", json!(-5), "max_tokens", &["1 to", "-5"]),
        ("max_tokens", json!(1.5), "max_tokens", &["an integer", "1.5"]),
        ("max_tokens", json!(1e30), "max_tokens", &["an integer"]),
        ("max_tokens", json!("9"), "max_tokens", &["an integer", "string"]),
        ("min_tokens", json!(-1), "min_tokens", &["0 to"]),
        ("n", json!(0), "n", &["1 to 128"]),
        ("n", json!(129), "n", &["1 to 128"]),
        ("n", json!(null), "", &[]),
        ("seed", json!("x"), "seed", &["an integer"]),
        ("stop", json!(7), "stop", &["a string"]),
        ("stop", json!([""]), "stop", &["1 to 1024 bytes"]),
        ("stop", json!(vec!["x"; 17]), "stop", &["at most 16", "17"]),
        ("stop_token_ids", json!([1_000_000]), "stop_token_ids[0]", &["a token id from 0"]),
        ("logit_bias", json!({"x": 1}), "logit_bias", &["token ids"]),
        ("logit_bias", json!({"3": 101}), "logit_bias.3", &["-100 to 100"]),
        ("logit_bias", json!([1]), "logit_bias", &["an object"]),
        ("stream", json!("yes"), "stream", &["true or false"]),
        ("stream_options", json!({"include_usage": true}), "stream_options", &["stream is true"]),
        ("ignore_eos", json!(1), "ignore_eos", &["true or false"]),
        ("response_format", json!("json_object"), "response_format", &["an object"]),
        ("response_format", json!({"type": "xml"}), "response_format.type", &["xml", "json_schema"]),
        (
            "response_format",
            json!({"type": "json_schema"}),
            "response_format.json_schema",
            &["with a schema"],
        ),
        (
            "response_format",
            schema_format(json!("x")),
            "response_format.json_schema.schema",
            &["JSON schema"],
        ),
        (
            "response_format",
            schema_format(json!({"type": "strnig"})),
            "response_format.json_schema.schema.type",
            &["strnig"],
        ),
        (
            "response_format",
            schema_format(json!({"type": "array", "uniqueItems": true})),
            "response_format.json_schema.schema",
            &["uniqueItems"],
        ),
        ("guided_json", json!("{"), "guided_json", &["JSON schema"]),
        ("guided_regex", json!("("), "guided_regex", &["unclosed"]),
        ("guided_grammar", json!("root ::= x"), "guided_grammar", &["Lark", "EBNF"]),
        ("guided_choice", json!([]), "guided_choice", &["at least one"]),
        ("guided_choice", json!(["a", 3]), "guided_choice[1]", &["a string", "3"]),
        ("structured_outputs", json!({}), "structured_outputs", &["exactly one of json, regex"]),
        ("structured_outputs", json!({"regex": "a", "json": {}}), "structured_outputs", &["got 2"]),
        ("structured_outputs", json!({"grammar": "start: x"}), "structured_outputs.grammar", &["x"]),
        (
            "structured_outputs",
            json!({"structural_tag": "x"}),
            "structured_outputs.structural_tag",
            &["not supported"],
        ),
        ("logits_processors", json!(["x"]), "logits_processors", &["not supported yet"]),
        ("suffix", json!("tail"), "suffix", &["not supported yet"]),
        ("best_of", json!(3), "best_of", &["n, which is 1"]),
        ("prompt_logprobs", json!(1), "prompt_logprobs", &["not supported yet"]),
        ("model", json!(7), "model", &["a string", "7"]),
    ];
    for (field, value, param, words) in both.iter().filter(|(_, _, param, _)| !param.is_empty()) {
        check(&front.post(CHAT, &chat(field, value.clone())).await, 400, Some(param), None, words);
        check(
            &front.post(COMPLETIONS, &completion(field, value.clone())).await,
            400,
            Some(param),
            None,
            words,
        );
    }
    assert!(told.is_idle(), "no worker heard of any of this");
}

fn schema_format(schema: Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
}

#[tokio::test]
async fn one_format_is_asked_for_and_has_an_end() {
    let (front, mut told) = TestFront::start(&[]).await;
    let object = json!({"type": "json_object"});
    let two = json!({"prompt": "x", "response_format": object, "guided_regex": "a"});
    check(&front.post(COMPLETIONS, &two).await, 400, Some("guided_regex"), None, &["response_format"]);
    let endless = json!({"prompt": "x", "response_format": object, "ignore_eos": true});
    check(&front.post(COMPLETIONS, &endless).await, 400, Some("ignore_eos"), None, &["response_format"]);
    assert!(told.is_idle(), "no worker heard of any of this");
}

#[tokio::test]
async fn bad_conversations_are_named_by_place() {
    let (front, mut told) = TestFront::start(&[]).await;
    let user = json!({"role": "user", "content": "x"});
    let image = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]});
    let call = json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]});
    let cases: &[(&str, Value, &str, &[&str])] = &[
        ("messages", json!([]), "messages", &["at least one"]),
        ("messages", json!(null), "messages", &["got nothing"]),
        ("messages", json!("hello"), "messages", &["an array"]),
        ("messages", json!([user, "hello"]), "messages[1]", &["an object"]),
        ("messages", json!([{"content": "x"}]), "messages[0].role", &["a role"]),
        ("messages", json!([{"role": "user"}]), "messages[0].content", &["got nothing"]),
        ("messages", json!([{"role": "user", "content": 3}]), "messages[0].content", &["a string", "3"]),
        ("messages", json!([image]), "messages[0].content[0].type", &["image_url", "text only"]),
        ("messages", json!([user, call]), "messages[1].tool_calls[0].function.arguments", &["JSON"]),
        ("top_logprobs", json!(3), "top_logprobs", &["logprobs is true"]),
        ("tool_choice", json!("required"), "tool_choice", &["tools to choose from"]),
        ("tool_choice", json!({"type": "allowed_tools"}), "tool_choice", &["not supported"]),
        ("tools", json!([{"type": "web_search"}]), "tools[0].type", &["function"]),
        ("tools", json!([{"type": "function"}]), "tools[0].function.name", &["a name"]),
        ("reasoning_effort", json!(3), "reasoning_effort", &["a string"]),
        ("modalities", json!(["audio"]), "modalities", &["text"]),
        ("chat_template", json!("{{ 1 }}"), "chat_template", &["not supported yet"]),
        ("min_tokens", json!(10_000), "min_tokens", &["room"]),
    ];
    for (field, value, param, words) in cases {
        check(&front.post(CHAT, &chat(field, value.clone())).await, 400, Some(param), None, words);
    }
    let cases: &[(&str, Value, &str, &[&str])] = &[
        ("prompt", json!(null), "prompt", &["got nothing"]),
        ("prompt", json!(""), "prompt", &["no tokens"]),
        ("prompt", json!([]), "prompt", &["at least one"]),
        ("prompt", json!([[]]), "prompt[0]", &["token ids"]),
        ("prompt", json!(["a", 1]), "prompt[1]", &["a string or token ids"]),
        ("prompt", json!([5, 1_000_000]), "prompt[1]", &["a token id from 0", "1000000"]),
        ("prompt", json!(vec!["a"; 129]), "prompt", &["at most 128", "129"]),
        ("logprobs", json!(21), "logprobs", &["0 to 20"]),
        ("min_tokens", json!(17), "min_tokens", &["16"]),
    ];
    for (field, value, param, words) in cases {
        check(
            &front.post(COMPLETIONS, &completion(field, value.clone())).await,
            400,
            Some(param),
            None,
            words,
        );
    }
    let echo = json!({"prompt": "a", "echo": true, "logprobs": 1});
    check(&front.post(COMPLETIONS, &echo).await, 400, Some("echo"), None, &["logprobs"]);
    assert!(told.is_idle());
}

#[tokio::test]
async fn a_prompt_over_the_context_names_limit_and_size() {
    let (front, mut told) = TestFront::start(&[]).await;
    let code = Some("context_length_exceeded");
    let long = json!({"prompt": vec![5; 256]});
    check(&front.post(COMPLETIONS, &long).await, 400, Some("prompt"), code, &["256 tokens", "has 256"]);
    let greedy = json!({"prompt": vec![5; 200], "max_tokens": 57});
    check(
        &front.post(COMPLETIONS, &greedy).await,
        400,
        Some("max_tokens"),
        code,
        &["256", "257", "200", "57"],
    );
    let long = chat("messages", json!([{"role": "user", "content": "word ".repeat(5_000)}]));
    check(&front.post(CHAT, &long).await, 400, Some("messages"), code, &["256 tokens"]);
    assert!(told.is_idle());
}

#[tokio::test]
async fn a_prompt_that_never_fits_the_kv_cache_names_both_numbers() {
    let (mut generator, told) = FakeGenerator::new();
    generator.capacity_tokens = 64;
    let (front, _told) = TestFront::over((generator, told), &[]).await;
    let answer = front.post(COMPLETIONS, &json!({"prompt": vec![5; 60], "max_tokens": 5})).await;
    let code = Some("context_length_exceeded");
    check(&answer, 400, Some("max_tokens"), code, &["KV cache", "65 tokens", "room for 64"]);
    let answer = front.post(COMPLETIONS, &json!({"prompt": vec![5; 64]})).await;
    check(&answer, 400, Some("max_tokens"), code, &["KV cache", "65 tokens", "room for 64"]);
}

#[tokio::test]
async fn what_is_no_json_object_says_where() {
    let (front, _told) = TestFront::start(&[]).await;
    let invalid = |body: &'static [u8]| send(front.http, "POST", CHAT, &[], body);
    let code = Some("invalid_json");
    check(&invalid(b"{\"messages\": [}").await, 400, None, code, &["line 1 column 15"]);
    check(&invalid(b" ").await, 400, None, code, &["not valid JSON"]);
    check(&invalid(b"[1]").await, 400, None, code, &["a JSON object", "an array"]);
    check(&invalid(b"{\"model\": \"\xff\"}").await, 400, None, code, &["not UTF-8"]);
    check(&invalid(b"{} trailing").await, 400, None, code, &["line 1"]);
    let deep = "[".repeat(100_000);
    let answer = send(front.http, "POST", CHAT, &[], format!("{{\"a\":{deep}").as_bytes()).await;
    check(&answer, 400, None, code, &["recursion limit"]);
}

#[tokio::test]
async fn unknown_models_paths_and_methods_have_their_status() {
    let (front, _told) = TestFront::start(&[]).await;
    let unknown = front.post(CHAT, &chat("model", json!("gpt-9"))).await;
    check(&unknown, 404, Some("model"), Some("model_not_found"), &["gpt-9", "tiny"]);
    check(&front.get("/v2/none").await, 404, None, Some("unknown_url"), &["/v2/none"]);
    check(&front.get(CHAT).await, 405, None, Some("method_not_allowed"), &["GET", CHAT]);
    let delete = send(front.http, "DELETE", "/v1/models", &[], b"").await;
    check(&delete, 405, None, Some("method_not_allowed"), &["DELETE"]);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let (front, _told) = TestFront::start(&["--max-body-bytes=1000"]).await;
    let code = Some("body_too_large");
    let large = json!({"prompt": "x".repeat(2_000)});
    check(&front.post(COMPLETIONS, &large).await, 413, None, code, &["1000 bytes"]);
    let chunked = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n",
        "x".repeat(2_000)
    );
    check(&raw(front.http, chunked.as_bytes()).await, 413, None, code, &["1000 bytes"]);
}

#[tokio::test]
async fn unknown_fields_and_harmless_values_are_ignored() {
    let (front, told) = TestFront::start(&[]).await;
    let _answering = told.always(vec![common::Step::Finish(baton_proto::v1::FinishReason::Length)]);
    let body = json!({
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "Hello", "name": "me"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "done"},
        ],
        "unknown": {"deep": [1]}, "user": "u", "store": false, "metadata": {}, "max_tokens": null, "n": 1.0, "best_of": 1,
        "response_format": {"type": "text"}, "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto",
        "suffix": null, "guided_json": null, "use_beam_search": false, "stop": null, "logit_bias": {}, "seed": -1,
        "chat_template_kwargs": {"enable_thinking": false}, "parallel_tool_calls": true,
    });
    let answer = front.post(CHAT, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
