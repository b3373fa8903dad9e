//! Forced tool calls over real processes, in each format: the bundled model has never seen one, and babbles, so what comes out as a
//! call is the grammar's doing and the parser's.

use serde_json::{Value, json};

use crate::harness::{Client, Deployment, ModelFolder, Up};

const CHAT: &str = "/v1/chat/completions";
const FORMATS: [&str; 5] = ["hermes", "qwen3_coder", "llama3_json", "mistral", "harmony"];

fn tools() -> Value {
    json!([
        {"type": "function", "function": {"name": "send_parcel", "parameters": {
            "type": "object", "additionalProperties": false, "required": ["to", "weight"],
            "properties": {"to": {"enum": ["Lisbon", "Oslo"]}, "weight": {"type": "integer", "minimum": 1, "maximum": 30}}}}},
        {"type": "function", "function": {"name": "count_parcels"}},
    ])
}

fn request(seed: u64, choice: Value) -> Value {
    json!({
        "messages": [{"role": "user", "content": "Parcel 7 goes to Lisbon by train with Mira."}], "tools": tools(),
        "tool_choice": choice, "temperature": 1.5, "seed": seed, "max_tokens": 2000,
    })
}

/// Checks each call, and says which functions were called.
#[track_caller]
fn called(message: &Value) -> Vec<String> {
    let check = |call: &Value| {
        let name = call["function"]["name"].as_str().expect("a name");
        let arguments = call["function"]["arguments"].as_str().expect("arguments");
        let arguments: Value =
            serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{error}: {arguments}"));
        match name {
            "send_parcel" => {
                assert!(
                    ["Lisbon", "Oslo"].contains(&arguments["to"].as_str().expect("a city")),
                    "{arguments}"
                );
                assert!((1..=30).contains(&arguments["weight"].as_i64().expect("a weight")), "{arguments}");
            }
            "count_parcels" => assert_eq!(arguments, json!({})),
            other => panic!("no such function: {other}"),
        }
        name.to_owned()
    };
    message["tool_calls"]
        .as_array()
        .unwrap_or_else(|| panic!("no calls: {message}"))
        .iter()
        .map(check)
        .collect()
}

fn ask(client: &Client, body: &Value) -> Value {
    let choice = client.post(CHAT, body).ok()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
    assert!(choice["message"]["content"].is_null(), "nothing but calls: {choice}");
    choice["message"].clone()
}

/// A bias against every token that `word` may begin with. In harmony's grammar reasoning is free to come first, and to babble on
/// until the tokens are used up: so it does not begin.
fn bias_against(client: &Client, word: &str) -> Value {
    let ids = (1..=word.len()).filter_map(|end| {
        let answer = client.post("/tokenize", &json!({"prompt": &word[..end]})).ok();
        (answer["count"] == 1).then(|| answer["tokens"][0].to_string())
    });
    ids.map(|id| (id, json!(-100))).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn forced_calls_are_calls_in_every_format() {
    for format in FORMATS {
        let up = Up::new(&ModelFolder::bundled(), 1, 1).with("--tool-call-parser", format);
        let deployment = Deployment::up(&up);
        let client = deployment.client();
        let bias = if format == "harmony" { bias_against(client, "analysis") } else { json!({}) };
        let biased = |seed, choice| {
            let mut body = request(seed, choice);
            body["logit_bias"] = bias.clone();
            body
        };
        for seed in 0..4 {
            assert!(!called(&ask(client, &biased(seed, json!("required")))).is_empty(), "{format}");
        }
        let mut one = biased(9, json!({"type": "function", "function": {"name": "send_parcel"}}));
        one["parallel_tool_calls"] = json!(false);
        assert_eq!(called(&ask(client, &one)), ["send_parcel"], "{format}");
        deployment.stop();
    }
}

#[test]
fn an_answer_is_constrained_and_reasoning_before_it_is_not() {
    let up = Up::new(&ModelFolder::bundled(), 1, 1)
        .with("--tool-call-parser", "hermes")
        .with("--reasoning-parser", "think");
    let deployment = Deployment::up(&up);
    let mut thinking = 0;
    for seed in 0..12 {
        let body = json!({
            "messages": [{"role": "user", "content": "Parcel 7 goes to Lisbon."}], "temperature": 1.8, "seed": seed, "max_tokens": 60,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [1, 22, "three"]}}},
        });
        let choice = deployment.client().post(CHAT, &body).ok()["choices"][0].clone();
        if choice["finish_reason"] == "stop" {
            let content = choice["message"]["content"].as_str().expect("an answer");
            assert!(["1", "22", "\"three\""].contains(&content), "{choice}");
        } else {
            assert!(choice["message"]["reasoning_content"].is_string(), "{choice}");
            thinking += 1;
        }
    }
    assert!(thinking < 12, "some answers come");
    deployment.stop();
}
