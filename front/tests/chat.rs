//! Answers, streamed and whole, to the byte.

mod common;

use baton_proto::v1::{FinishReason, Token, TopLogprob};
use common::{Step, TestFront, say, send, tokenizer, tokens};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const STOP: Step = Step::Finish(FinishReason::Stop);
const LENGTH: Step = Step::Finish(FinishReason::Length);

/// `fields` with a question.
fn chat(fields: Value) -> Value {
    with(json!({"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}), fields)
}

fn with(mut body: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("an object") };
    body.as_object_mut().unwrap().extend(fields);
    body
}

fn steps(text: &str, end: Step) -> Vec<Step> {
    let mut steps = say(text);
    steps.push(end);
    steps
}

/// Asks a front whose generator answers every call with `steps`.
async fn ask(path: &str, body: Value, steps: Vec<Step>) -> common::Answer {
    let (front, told) = TestFront::start(&[]).await;
    let _answering = told.always(steps);
    front.post(path, &body).await
}

fn prompt_tokens() -> usize {
    tokenizer().encode("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", false).unwrap().len()
}

#[tokio::test]
async fn a_chat_stream_is_these_bytes() {
    let body = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let answer = ask(CHAT, body, steps("Hello<|im_end|>", STOP)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(answer.headers["x-request-id"], "test");
    let head = r#"data: {"id":"chatcmpl-test","object":"chat.completion.chunk","created":0,"model":"tiny","choices":["#;
    let chunk = |delta: &str, finish: &str| {
        format!(
            r#"{head}{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}],"usage":null}}"#
        ) + "\n\n"
    };
    let mut expected = chunk(r#"{"role":"assistant","content":""}"#, "null");
    let words = tokens("Hello");
    for token in &words {
        expected += &chunk(&format!(r#"{{"content":"{}"}}"#, tokenizer().decode(&[token.id], false)), "null");
    }
    expected += &chunk("{}", "\"stop\"");
    let (prompt, completion) = (prompt_tokens(), words.len() + 1);
    expected += &format!(
        r#"{head}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":2}}}}}}"#,
        prompt + completion
    );
    expected += "\n\ndata: [DONE]\n\n";
    assert_eq!(answer.golden(), expected);
}

#[tokio::test]
async fn a_whole_chat_answer_is_these_bytes() {
    let answer = ask(CHAT, chat(json!({})), steps("Hello<|im_end|>", STOP)).await;
    let (prompt, completion) = (prompt_tokens(), tokens("Hello").len() + 1);
    let expected = format!(
        r#"{{"id":"chatcmpl-test","object":"chat.completion","created":0,"model":"tiny","choices":[{{"index":0,"message":{{"role":"assistant","content":"Hello","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":2}}}}}}"#,
        prompt + completion
    );
    assert_eq!(answer.golden(), expected);
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_completion_stream_is_these_bytes() {
    let body = json!({"prompt": "a", "stream": true, "max_tokens": 1});
    let answer = ask(COMPLETIONS, body, steps("b", LENGTH)).await;
    let chunk = |text: &str, finish: &str| {
        format!(
            r#"data: {{"id":"cmpl-test","object":"text_completion","created":0,"model":"tiny","choices":[{{"index":0,"text":"{text}","logprobs":null,"finish_reason":{finish}}}]}}"#
        ) + "\n\n"
    };
    assert_eq!(answer.golden(), chunk("b", "null") + &chunk("", "\"length\"") + "data: [DONE]\n\n");
}

#[tokio::test]
async fn usage_in_each_chunk_counts_the_tokens_so_far() {
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let answer =
        ask(CHAT, chat(json!({"stream": true, "stream_options": options})), steps("Hello", LENGTH)).await;
    let events = answer.events();
    let counts: Vec<u64> = events[..events.len() - 1]
        .iter()
        .map(|event| {
            serde_json::from_str::<Value>(event).unwrap()["usage"]["completion_tokens"].as_u64().unwrap()
        })
        .collect();
    let total = tokens("Hello").len() as u64;
    let expected: Vec<u64> = [1].into_iter().chain(1..=total).chain([total, total]).collect();
    assert_eq!(counts, expected, "the opening comes with the first token");
}

#[tokio::test]
async fn the_generator_gets_the_tokens_and_the_sampling_that_were_asked_for() {
    let (front, mut told) = TestFront::start(&[]).await;
    let body = chat(json!({
        "temperature": 0.5, "top_p": 0.25, "top_k": -1, "min_p": 0.125, "seed": 7, "presence_penalty": 1,
        "frequency_penalty": -1, "repetition_penalty": 1.5, "max_completion_tokens": 9, "max_tokens": 3, "min_tokens": 2,
        "ignore_eos": true, "stop_token_ids": [5], "logit_bias": {"3": -100}, "logprobs": true, "top_logprobs": 4,
    }));
    let asked = tokio::spawn(async move { front.post(CHAT, &body).await });
    let call = told.call().await;
    call.act(LENGTH);
    assert_eq!(asked.await.unwrap().status, 200);
    let request = &call.request;
    let text = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(*request.prompt, tokenizer().encode(text, false).unwrap());
    assert!(request.request_id.starts_with("test."), "{}", request.request_id);
    assert_eq!(request.deadline.limit.as_secs(), 600);
    let sampling = request.sampling.clone();
    let expected = baton_proto::v1::SamplingParams {
        temperature: 0.5,
        top_p: 0.25,
        top_k: 0,
        min_p: 0.125,
        seed: 7,
        presence_penalty: 1.0,
        frequency_penalty: -1.0,
        repetition_penalty: 1.5,
        max_tokens: 9,
        min_tokens: 2,
        ignore_eos: true,
        stop_token_ids: vec![5],
        logprobs: Some(4),
        logit_bias: [(3, -100.0)].into(),
        grammar: String::new(),
    };
    assert_eq!(sampling, expected);
}

#[tokio::test]
async fn a_stop_string_ends_the_text_drops_the_call_and_is_counted() {
    for (include, expected) in [(false, "one two"), (true, "one two three")] {
        let (front, mut told) = TestFront::start(&[]).await;
        let body = chat(json!({"stop": [" three", "never"], "include_stop_str_in_output": include}));
        let asked = tokio::spawn(async move { front.post(CHAT, &body).await });
        let call = told.call().await;
        call.act_all(say("one two three four five"));
        // No `finished`: the front does not wait for it.
        call.dropped().await;
        let answer = asked.await.unwrap().json();
        let choice = &answer["choices"][0];
        assert_eq!(choice["message"]["content"], expected);
        assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("stop"), &json!(" three")));
        let needed = (1..).find(|&n| {
            let ids: Vec<u32> = tokens("one two three four five")[..n].iter().map(|token| token.id).collect();
            tokenizer().decode(&ids, true).contains(" three")
        });
        assert_eq!(answer["usage"]["completion_tokens"].as_u64(), needed.map(|n| n as u64));
        // Known from the account that comes with the first token.
        assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
    }
}

#[tokio::test]
async fn the_token_that_ends_a_text_is_not_shown_and_is_counted() {
    let token = tokens("!")[0].id;
    let body = chat(json!({"stop_token_ids": [token], "skip_special_tokens": false}));
    let answer = ask(CHAT, body, steps("Hello!", STOP)).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["choices"][0]["stop_reason"], token);
    assert_eq!(answer["usage"]["completion_tokens"].as_u64(), Some(tokens("Hello!").len() as u64));

    let shown = ask(CHAT, chat(json!({"skip_special_tokens": false})), steps("Hi<think><|im_end|>", STOP))
        .await
        .json();
    assert_eq!(
        shown["choices"][0]["message"]["content"], "Hi<think>",
        "the end-of-sequence token is never text"
    );
}

#[tokio::test]
async fn a_character_across_tokens_is_shown_whole() {
    let answer = ask(CHAT, chat(json!({"stream": true})), steps("a🦜b", LENGTH)).await;
    let events = answer.events();
    let contents: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).unwrap()["choices"][0]["delta"]["content"].clone())
        .collect();
    let shown: Vec<&str> =
        contents.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).collect();
    assert_eq!(shown, ["a", "🦜", "b"]);
}

#[tokio::test]
async fn several_choices_of_several_prompts_have_their_own_seeds() {
    let (front, mut told) = TestFront::start(&[]).await;
    let body = json!({"prompt": ["a", "bb"], "n": 2, "seed": 5, "max_tokens": 4});
    let asked = tokio::spawn(async move { front.post(COMPLETIONS, &body).await });
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(told.call().await);
    }
    calls.sort_by_key(|call| call.request.request_id.rsplit('.').next().unwrap().to_owned());
    for (call, text) in calls.iter().zip(["w", "x", "y", "z"]) {
        call.act_all(steps(text, LENGTH));
    }
    let answer = asked.await.unwrap().json();
    let choices = answer["choices"].as_array().unwrap();
    let shown: Vec<_> = choices
        .iter()
        .map(|choice| (choice["index"].as_u64().unwrap(), choice["text"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [(0, "w"), (1, "x"), (2, "y"), (3, "z")]);
    let seeds: Vec<u64> = calls.iter().map(|call| call.request.sampling.seed).collect();
    assert_eq!((seeds[0], seeds[2]), (5, 5), "the first choice has the client's own seed");
    assert_ne!(seeds[0], seeds[1]);
    let ids: std::collections::BTreeSet<&str> =
        calls.iter().map(|call| call.request.request_id.as_str()).collect();
    assert_eq!(ids.len(), 4, "workers see each completion under its own id");
    let prompts = tokens("a").len() + tokens("bb").len();
    assert_eq!(answer["usage"]["prompt_tokens"].as_u64(), Some(prompts as u64), "a prompt counts once");
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    assert_eq!(
        answer["usage"]["prompt_tokens_details"]["cached_tokens"], 4,
        "two prompts, two cached tokens each"
    );
}

fn likely(text: &str) -> Vec<Step> {
    let other = tokens("z")[0].id;
    let with_logprobs = |token: Token| Token {
        logprob: Some(-0.5),
        top: vec![
            TopLogprob { token_id: token.id, logprob: -0.5 },
            TopLogprob { token_id: other, logprob: f32::NEG_INFINITY },
        ],
        ..token
    };
    let mut steps: Vec<Step> =
        tokens(text).into_iter().map(|token| Step::Tokens(vec![with_logprobs(token)])).collect();
    steps.push(LENGTH);
    steps
}

#[tokio::test]
async fn logprobs_have_openais_two_shapes() {
    let first = tokenizer().decode(&[tokens("é!")[0].id], false);
    let answer = ask(CHAT, chat(json!({"logprobs": true, "top_logprobs": 2})), likely("é!")).await.json();
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let bytes: Vec<u8> = content
        .iter()
        .flat_map(|entry| serde_json::from_value::<Vec<u8>>(entry["bytes"].clone()).unwrap())
        .collect();
    assert_eq!(bytes, "é!".as_bytes(), "bytes are exact even where a token is a part of a character");
    assert_eq!(content[0]["token"], first);
    assert_eq!(content[0]["logprob"], -0.5);
    assert_eq!(content[0]["top_logprobs"][1], json!({"token": "z", "logprob": -9999.0, "bytes": [122]}));

    let answer = ask(COMPLETIONS, json!({"prompt": "a", "logprobs": 2}), likely("bc")).await.json();
    let logprobs = &answer["choices"][0]["logprobs"];
    let count = tokens("bc").len();
    assert_eq!(logprobs["tokens"].as_array().unwrap().concat_strings(), "bc");
    assert_eq!(logprobs["token_logprobs"].as_array().unwrap().len(), count);
    assert_eq!(logprobs["text_offset"][0], 0);
    assert_eq!(logprobs["top_logprobs"][0]["z"], -9999.0);

    let streamed =
        ask(COMPLETIONS, json!({"prompt": "a", "logprobs": 1, "stream": true}), likely("bc")).await.events();
    let offsets: Vec<Value> = streamed[..count]
        .iter()
        .map(|event| {
            serde_json::from_str::<Value>(event).unwrap()["choices"][0]["logprobs"]["text_offset"][0].clone()
        })
        .collect();
    assert_eq!(
        json!(offsets),
        logprobs["text_offset"],
        "a stream's offsets go on where the last chunk ended"
    );
}

trait ConcatStrings {
    fn concat_strings(&self) -> String;
}

impl ConcatStrings for Vec<Value> {
    fn concat_strings(&self) -> String {
        self.iter().map(|value| value.as_str().unwrap()).collect()
    }
}

#[tokio::test]
async fn echo_puts_the_prompt_first() {
    for stream in [false, true] {
        let body = json!({"prompt": ["ab ", tokens("cd ").iter().map(|t| t.id).collect::<Vec<_>>()], "echo": true, "stream": stream});
        let answer = ask(COMPLETIONS, body, steps("x", LENGTH)).await;
        let mut texts = [String::new(), String::new()];
        let chunks: Vec<Value> = if stream {
            answer.events().iter().filter_map(|event| serde_json::from_str(event).ok()).collect()
        } else {
            vec![answer.json()]
        };
        for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
            texts[usize::try_from(choice["index"].as_u64().unwrap()).unwrap()] +=
                choice["text"].as_str().unwrap();
        }
        assert_eq!(texts, ["ab x", "cd x"]);
    }
}

#[tokio::test]
async fn the_other_endpoints_answer() {
    let (front, _told) = TestFront::start(&[]).await;
    assert_eq!(front.get("/health").await.status, 200);
    assert_eq!(front.get("/ready").await.status, 200);
    assert!(front.get("/version").await.json()["version"].is_string());
    let models = front.get("/v1/models").await.json();
    assert_eq!(models["data"][0]["id"], "tiny");
    assert_eq!(models["data"][0]["max_model_len"], 256);
    assert_eq!(front.get("/v1/models/tiny").await.json()["object"], "model");
    assert_eq!(front.get("/v1/models/org/other").await.status, 404);

    let ids: Vec<u32> = tokens("Hello").iter().map(|token| token.id).collect();
    let answer = front.post("/tokenize", &json!({"prompt": "Hello", "return_token_strs": true})).await.json();
    assert_eq!((&answer["tokens"], &answer["count"]), (&json!(ids), &json!(ids.len())));
    assert_eq!(answer["max_model_len"], 256);
    assert_eq!(answer["token_strs"].as_array().unwrap().concat_strings(), "Hello");
    let conversation = front.post("/tokenize", &chat(json!({}))).await.json();
    assert_eq!(conversation["count"].as_u64(), Some(prompt_tokens() as u64));
    let text = front.post("/detokenize", &json!({"tokens": ids})).await.json();
    assert_eq!(text["prompt"], "Hello");
}

#[tokio::test]
async fn metrics_tell_what_was_served() {
    let (front, told) = TestFront::start(&[]).await;
    let _answering = told.always(steps("Hello", STOP));
    front.post(CHAT, &chat(json!({}))).await;
    front.post(CHAT, &json!({"messages": []})).await;
    let text = front.get("/metrics").await.text();
    for line in [
        "baton_test_requests_total{endpoint=\"/v1/chat/completions\",status=\"200\",outcome=\"ok\"} 1"
            .to_owned(),
        "baton_test_requests_total{endpoint=\"/v1/chat/completions\",status=\"400\",outcome=\"invalid\"} 1"
            .to_owned(),
        "baton_test_inflight_completions 0".to_owned(),
        "baton_fallbacks_total 0".to_owned(),
        format!("vllm:prompt_tokens_total{{model_name=\"tiny\"}} {}", prompt_tokens()),
        format!("vllm:generation_tokens_total{{model_name=\"tiny\"}} {}", tokens("Hello").len()),
        "vllm:request_success_total{model_name=\"tiny\",finished_reason=\"stop\"} 1".to_owned(),
        "vllm:time_to_first_token_seconds_count{model_name=\"tiny\"} 1".to_owned(),
        "vllm:e2e_request_latency_seconds_count{model_name=\"tiny\"} 1".to_owned(),
        "vllm:num_requests_running{model_name=\"tiny\"} 0".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }
}

#[tokio::test]
async fn request_ids_are_taken_or_made() {
    let (front, _told) = TestFront::start(&[]).await;
    let id = |given: &'static str| async move {
        send(front.http, "GET", "/health", &[("x-request-id", given)], b"").await.headers["x-request-id"]
            .clone()
    };
    assert_eq!(id("my-id").await, "my-id");
    assert_eq!(id("not an id").await.len(), 32);
}
