//! What a parsed request says, where a wrong one is the black-box tests' business.

use serde_json::json;

use super::*;

const LIMITS: ParseLimits = ParseLimits { vocab_size: 100, max_choices: 8 };

fn chat(more: Value) -> Result<GenerateJob, ApiError> {
    let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let Value::Object(fields) = body else { panic!("an object") };
    parse_chat(Fields(fields), &LIMITS)
}

fn completion(body: Value) -> Result<GenerateJob, ApiError> {
    let Value::Object(fields) = body else { panic!("an object") };
    parse_completion(Fields(fields), &LIMITS)
}

#[test]
fn defaults_are_openais() {
    let job = chat(json!({})).unwrap();
    assert_eq!((job.n, job.max_tokens, job.logprobs, job.stream), (1, MaxTokens::Rest, None, None));
    let SamplingParams { temperature, top_p, top_k, min_p, repetition_penalty, .. } = job.sampling;
    assert_eq!([temperature, top_p, min_p, repetition_penalty], [1.0, 1.0, 0.0, 1.0]);
    assert_eq!(top_k, 0);
    assert!(job.text.skip_special && !job.text.include_stop);
    assert_eq!(completion(json!({"prompt": "x"})).unwrap().max_tokens, MaxTokens::Default(16));
}

#[test]
fn a_request_without_a_seed_gets_one_of_its_own() {
    let seed = || chat(json!({})).unwrap().sampling.seed;
    assert_ne!(seed(), seed());
    assert_eq!(chat(json!({"seed": -1})).unwrap().sampling.seed, u64::MAX);
}

#[test]
fn choices_have_different_seeds_that_follow_from_the_requests() {
    let seeds: std::collections::BTreeSet<u64> = (0..128).map(|choice| choice_seed(7, choice)).collect();
    assert_eq!(seeds.len(), 128);
    assert_eq!(choice_seed(7, 0), 7);
    assert_eq!(choice_seed(7, 3), choice_seed(7, 3));
}

#[test]
fn prompts_come_in_four_shapes() {
    let prompts = |prompt: Value| completion(json!({"prompt": prompt})).unwrap().prompts.len();
    assert_eq!(prompts(json!("text")), 1);
    assert_eq!(prompts(json!([1, 2, 3])), 1);
    assert_eq!(prompts(json!(["a", "b"])), 2);
    assert_eq!(prompts(json!([[1, 2], [3]])), 2);
}

#[test]
fn prompts_times_n_are_bounded() {
    assert_eq!(completion(json!({"prompt": ["a", "b"], "n": 4})).unwrap().choices(), 8);
    let error = completion(json!({"prompt": ["a", "b", "c"], "n": 4})).unwrap_err();
    assert_eq!(error.body.param.as_deref(), Some("n"));
}

#[test]
fn text_parts_stay_apart_and_tool_arguments_become_an_object() {
    let messages = json!([
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
    ]);
    let job = chat(json!({"messages": messages})).unwrap();
    let PromptSource::Chat(chat) = &job.prompts[0] else { panic!("a conversation") };
    assert_eq!(
        chat.messages[0]["content"],
        json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    );
    assert_eq!(chat.messages[1]["content"], "");
    assert_eq!(chat.messages[1]["tool_calls"][0]["function"]["arguments"], json!({"x": 1}));
}

#[test]
fn tools_are_for_the_template_unless_the_client_wants_none() {
    let tools = |choice: Value| {
        let tool = json!({"type": "function", "function": {"name": "f"}});
        let job = chat(json!({"tools": [tool], "tool_choice": choice})).unwrap();
        let PromptSource::Chat(chat) = &job.prompts[0] else { panic!("a conversation") };
        chat.tools.shown().is_some()
    };
    assert!(tools(json!("auto")) && tools(json!(null)) && !tools(json!("none")));
}

#[test]
fn a_cache_salt_is_a_string_that_is_not_empty_and_refusals_do_not_repeat_it() {
    assert_eq!(chat(json!({"cache_salt": "a"})).unwrap().cache_salt.as_deref(), Some("a"));
    assert_eq!(chat(json!({"cache_salt": null})).unwrap().cache_salt, None);
    assert_eq!(
        completion(json!({"prompt": "x", "cache_salt": "b"})).unwrap().cache_salt.as_deref(),
        Some("b")
    );
    for wrong in [json!(""), json!(71_077), json!(["71077"]), json!("71077".repeat(1_000))] {
        let error = chat(json!({"cache_salt": wrong})).unwrap_err().body;
        assert_eq!(error.param.as_deref(), Some("cache_salt"));
        assert!(!error.message.contains("71077"), "{}", error.message);
    }
}
