//! Tool calls and reasoning, from what workers say to what clients see, and back.

mod common;

use baton_proto::v1::FinishReason;
use common::{Answer, Step, TestFront, say, tokenizer};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const HERMES: &[&str] = &["--tool-call-parser=hermes"];
const SAID: &str = "<think>\nHm.\n</think>\n\nOne moment.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"é\"}}\n</tool_call>\n\
                    <tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call><|im_end|>";

fn tools() -> Value {
    json!([
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}},
        {"type": "function", "function": {"name": "g"}},
    ])
}

fn chat(fields: Value) -> Value {
    let mut body =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "tools": tools()});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

async fn ask(options: &[&str], body: Value, said: &str) -> Answer {
    let (front, told) = TestFront::start(options).await;
    let mut steps = say(said);
    steps.push(Step::Finish(FinishReason::Stop));
    let _answering = told.always(steps);
    front.post(CHAT, &body).await
}

fn calls(message: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let call = |call: &Value| {
        assert_eq!(call["type"], "function");
        assert!(text(&call["id"]).starts_with("call_"), "{call}");
        (text(&call["function"]["name"]), text(&call["function"]["arguments"]))
    };
    message["tool_calls"].as_array().expect("calls").iter().map(call).collect()
}

fn expected() -> Vec<(String, String)> {
    [("f", "{\"x\": \"é\"}"), ("g", "{}")]
        .map(|(name, arguments)| (name.to_owned(), arguments.to_owned()))
        .to_vec()
}

#[tokio::test]
async fn a_whole_answer_is_taken_apart() {
    let answer = ask(HERMES, chat(json!({})), SAID).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let message = &choice["message"];
    assert_eq!(message["content"], "One moment.");
    assert_eq!((&message["reasoning_content"], &message["reasoning"]), (&json!("Hm."), &json!("Hm.")));
    assert_eq!(calls(message), expected());
    assert_ne!(message["tool_calls"][0]["id"], message["tool_calls"][1]["id"]);
}

#[tokio::test]
async fn a_stream_says_the_same_piece_by_piece() {
    let answer = ask(HERMES, chat(json!({"stream": true})), SAID).await;
    let (mut content, mut reasoning, mut told) = (String::new(), String::new(), Vec::<Value>::new());
    let mut ends = Vec::new();
    for event in answer.events().iter().filter(|event| *event != "[DONE]") {
        let chunk: Value = serde_json::from_str(event).unwrap();
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        content += delta["content"].as_str().unwrap_or_default();
        reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
        assert_eq!(delta["reasoning_content"], delta["reasoning"]);
        for call in delta["tool_calls"].as_array().unwrap_or(&Vec::new()) {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            if index == told.len() {
                assert!(call["id"].is_string() && call["function"]["name"].is_string(), "{call}");
                told.push(call.clone());
            } else {
                assert!(call.get("id").is_none() && index + 1 == told.len(), "{call}");
                let more = call["function"]["arguments"].as_str().unwrap();
                let arguments = told[index]["function"]["arguments"].as_str().unwrap().to_owned() + more;
                told[index]["function"]["arguments"] = json!(arguments);
            }
        }
        ends.extend(choice["finish_reason"].as_str().map(str::to_owned));
    }
    assert_eq!(
        (content.as_str(), reasoning.as_str(), ends),
        ("One moment.", "Hm.", vec!["tool_calls".to_owned()])
    );
    assert_eq!(calls(&json!({"tool_calls": told})), expected());
}

#[tokio::test]
async fn content_is_null_where_there_are_calls_instead() {
    let said = "<tool_call>{\"name\": \"g\"}</tool_call><|im_end|>";
    let answer = ask(HERMES, chat(json!({})), said).await.json();
    let message = &answer["choices"][0]["message"];
    assert!(message["content"].is_null() && message.get("reasoning_content").is_none(), "{message}");
}

#[tokio::test]
async fn clients_and_operators_choose_what_is_taken_apart() {
    let message = |answer: Answer| answer.json()["choices"][0].clone();
    let one = message(ask(HERMES, chat(json!({"parallel_tool_calls": false})), SAID).await);
    assert_eq!(calls(&one["message"]).len(), 1);

    let hidden = message(ask(HERMES, chat(json!({"include_reasoning": false})), SAID).await);
    assert!(hidden["message"].get("reasoning_content").is_none(), "{hidden}");
    assert_eq!(hidden["message"]["content"], "One moment.");

    // No tools: their marks are text.
    let untold = message(ask(HERMES, chat(json!({"tool_choice": "none"})), SAID).await);
    assert_eq!(untold["finish_reason"], "stop");
    assert!(
        untold["message"]["content"].as_str().is_some_and(|text| text.contains("<tool_call>")),
        "{untold}"
    );

    // The fixture's template knows <think>, and no marks for calls.
    let detected = message(ask(&[], chat(json!({})), SAID).await);
    assert_eq!(detected["message"]["reasoning_content"], "Hm.");
    assert!(detected["message"].get("tool_calls").is_none(), "{detected}");
    let off = message(ask(&["--reasoning-parser=none"], chat(json!({})), SAID).await);
    assert!(off["message"]["content"].as_str().is_some_and(|text| text.starts_with("<think>")), "{off}");
}

#[tokio::test]
async fn what_was_cut_off_is_not_called_a_call() {
    let (front, told) = TestFront::start(HERMES).await;
    let mut steps = say("<tool_call>{\"name\": \"f\", \"arguments\": {\"x\"");
    steps.push(Step::Finish(FinishReason::Length));
    let _answering = told.always(steps);
    let answer = front.post(CHAT, &chat(json!({}))).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn a_forced_call_goes_to_the_workers_as_a_grammar() {
    for (choice, functions) in [
        (json!("required"), vec!["f", "g"]),
        (json!({"type": "function", "function": {"name": "g"}}), vec!["g"]),
    ] {
        let (front, mut told) = TestFront::start(HERMES).await;
        let body = chat(json!({"tool_choice": choice}));
        let asked = tokio::spawn(async move { front.post(CHAT, &body).await });
        let call = told.call().await;
        call.act(Step::Finish(FinishReason::Stop));
        let answer = asked.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let grammar = call.request.sampling.grammar.clone();
        for name in ["f", "g"] {
            let is_there = grammar.contains(&format!("{{\\\"name\\\": \\\"{name}\\\""));
            assert_eq!(is_there, functions.contains(&name), "{grammar}");
        }
    }
}

const CODER: &[&str] = &["--tool-call-parser=qwen3_coder"];

/// A function with arguments of several kinds.
fn typed() -> Value {
    json!([{"type": "function", "function": {"name": "f", "parameters": {
        "required": ["t"], "properties": {"t": {"type": "string"}, "n": {"type": "integer"}},
    }}}])
}

#[tokio::test]
async fn arguments_between_tags_are_typed_by_the_schema() {
    let said = "Now.\n<tool_call>\n<function=f>\n<parameter=t>\n12\n</parameter>\n<parameter=n>\n12\n</parameter>\n</function>\n</tool_call><|im_end|>";
    let answer = ask(CODER, chat(json!({"tools": typed()})), said).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let choice = answer.json()["choices"][0].clone();
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &json!("Now."))
    );
    let expected = r#"{"t": "12", "n": 12}"#;
    assert_eq!(calls(&choice["message"]), [("f".to_owned(), expected.to_owned())]);
}

#[tokio::test]
async fn calls_with_tags_can_be_forced() {
    let (front, mut told) = TestFront::start(CODER).await;
    let body = chat(json!({"tool_choice": "required", "tools": typed()}));
    let asked = tokio::spawn(async move { front.post(CHAT, &body).await });
    let call = told.call().await;
    call.act(Step::Finish(FinishReason::Stop));
    let answer = asked.await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let grammar = call.request.sampling.grammar.clone();
    for part in [
        "<function=f>",
        "\"<parameter=t>\\n\" parameter_text (\"<parameter=n>",
        "%json {\"type\":\"integer\"",
    ] {
        assert!(grammar.contains(part), "no {part} in {grammar}");
    }
}

#[tokio::test]
async fn what_can_not_be_forced_is_refused() {
    let cases: &[(&[&str], Value, &str, &str)] = &[
        (&[], json!({"tool_choice": "required"}), "tool_choice", "--tool-call-parser"),
        (
            HERMES,
            json!({"tool_choice": {"type": "function", "function": {"name": "h"}}}),
            "tool_choice.function.name",
            "\"h\"",
        ),
        (
            HERMES,
            json!({"tool_choice": "required", "response_format": {"type": "json_object"}}),
            "tool_choice",
            "response_format",
        ),
        (
            HERMES,
            json!({"tool_choice": "required", "tools": [{"type": "function", "function": {
                "name": "f", "strict": true, "parameters": {"type": "object", "minContains": 1}}}]}),
            "tools[0].function.parameters",
            "minContains",
        ),
        (
            CODER,
            json!({"tool_choice": "required", "tools": [{"type": "function", "function": {
                "name": "f", "parameters": {"anyOf": [{"type": "object"}]}}}]}),
            "tools",
            "an object of properties",
        ),
        (
            CODER,
            json!({"tool_choice": "required", "tools": [{"type": "function", "function": {
                "name": "f", "strict": true, "parameters": {"properties": {"x": {"type": "string", "pattern": "a"}}}}}]}),
            "tools",
            "properties.x.pattern",
        ),
    ];
    for (options, fields, param, word) in cases {
        let (front, mut told) = TestFront::start(options).await;
        let answer = front.post(CHAT, &chat(fields.clone())).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["param"]), (400, &json!(param)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
        assert!(told.is_idle());
    }
}

#[tokio::test]
async fn calls_results_and_reasoning_of_earlier_turns_reach_the_template() {
    let (front, mut told) = TestFront::start(HERMES).await;
    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": \"é\"}"}});
    let body = json!({
        "tools": [tools()[1]], "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": false},
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": null, "reasoning": "Hm.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
    });
    let asked = tokio::spawn(async move { front.post(CHAT, &body).await });
    let call = told.call().await;
    call.act_all(say("<think>no"));
    call.act(Step::Finish(FinishReason::Stop));
    let prompt = tokenizer().decode(&call.request.prompt, false);
    for part in [
        "<tools>",
        "<think>\nHm.\n</think>",
        "{\"name\": \"f\", \"arguments\": {\"x\": \"é\"}}",
        "<result>\nsunny\n</result>",
    ] {
        assert!(prompt.contains(part), "no {part:?} in {prompt}");
    }
    assert!(prompt.ends_with("<think>\n\n</think>\n\n"), "{prompt}");
    // The prompt has closed the reasoning: what looks like some is none.
    assert_eq!(asked.await.unwrap().json()["choices"][0]["message"]["content"], "<think>no");
}

#[tokio::test]
async fn with_a_format_the_model_may_answer_or_call() {
    let (front, mut told) = TestFront::start(HERMES).await;
    let body = chat(json!({"response_format": {"type": "json_object"}}));
    let asked = tokio::spawn(async move { front.post(CHAT, &body).await });
    let call = told.call().await;
    call.act(Step::Finish(FinishReason::Stop));
    assert_eq!(asked.await.unwrap().status, 200);
    let grammar = call.request.sampling.grammar.clone();
    assert!(grammar.contains("(answer | calls)") && grammar.contains("thought"), "{grammar}");
}
