//! What transformers and the `tokenizers` package gave for the same templates and texts.

mod common;

use std::{
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use baton_tokenizer::{ChatInput, Tokenizer};
use common::{KINDS, fixture, golden, load};
use serde_json::{Map, Value, json};

/// A model folder with the byte-level tokenizer, and `config` as its tokenizer_config.json.
fn folder_with(config: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(fixture("byte-level/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    dir
}

fn tokenizer_with(config: &Value) -> Tokenizer {
    Tokenizer::load(folder_with(config).path()).unwrap()
}

fn render(tokenizer: &Tokenizer, case: &Value, now: u64) -> Result<String, String> {
    let empty = Map::new();
    let input = ChatInput {
        messages: case["messages"].as_array().unwrap(),
        tools: case["tools"].as_array().map(Vec::as_slice),
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap_or(false),
        kwargs: case["kwargs"].as_object().unwrap_or(&empty),
    };
    tokenizer.render_chat(&input, UNIX_EPOCH + Duration::from_secs(now)).map_err(|error| error.to_string())
}

#[test]
fn conversations_are_rendered_as_transformers_renders_them() {
    let golden = golden();
    let cases = golden["renders"].as_array().unwrap();
    assert!(cases.len() >= 90, "{} cases", cases.len());
    for case in cases {
        let mut config = golden["special_tokens"].clone();
        config["chat_template"] = golden["templates"][case["template"].as_str().unwrap()].clone();
        let rendered = render(&tokenizer_with(&config), case, golden["now"].as_u64().unwrap());
        match (&case["text"], &case["error"]) {
            (Value::String(text), _) => assert_eq!(rendered.as_ref(), Ok(text), "{case:#}"),
            (_, Value::String(error)) => {
                let refusal = rendered.unwrap_err();
                assert!(refusal.contains(error.as_str()), "{refusal:?} for {error:?}");
            }
            _ => panic!("a case without an answer: {case:#}"),
        }
    }
}

#[test]
fn texts_are_encoded_and_decoded_as_the_reference_does() {
    let golden = golden();
    for kind in KINDS {
        let tokenizer = load(kind);
        for case in golden["texts"][kind].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(json!(ids), case["ids"], "{kind} {text:?}");
            assert_eq!(
                json!(tokenizer.encode(text, false).unwrap()),
                case["ids_without_special"],
                "{kind} {text:?}"
            );
            assert_eq!(tokenizer.decode(&ids, false), case["decoded"], "{kind} {text:?}");
            assert_eq!(tokenizer.decode(&ids, true), case["decoded_without_special"], "{kind} {text:?}");
        }
    }
}

#[test]
fn a_named_template_for_tools_is_preferred_when_there_are_tools() {
    let tokenizer = tokenizer_with(&json!({"chat_template": [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools | length }} tools"},
    ]}));
    assert_eq!(render(&tokenizer, &json!({"messages": []}), 0).unwrap(), "plain");
    assert_eq!(render(&tokenizer, &json!({"messages": [], "tools": [1, 2]}), 0).unwrap(), "2 tools");
}

#[test]
fn a_template_in_a_file_of_its_own_takes_precedence() {
    let dir = folder_with(&json!({"chat_template": "old"}));
    fs::write(dir.path().join("chat_template.jinja"), "new").unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(render(&tokenizer, &json!({"messages": []}), 0).unwrap(), "new");
}

#[test]
fn clients_variables_do_not_replace_the_conversation() {
    let tokenizer = tokenizer_with(&json!({"chat_template": "{{ messages | length }}{{ extra }}"}));
    let case = json!({"messages": [1], "kwargs": {"messages": [], "extra": "!"}});
    assert_eq!(render(&tokenizer, &case, 0).unwrap(), "1!");
}

#[test]
fn without_a_template_the_error_says_what_to_do() {
    let tokenizer = tokenizer_with(&json!({}));
    assert!(!tokenizer.has_chat_template());
    let error = render(&tokenizer, &json!({"messages": []}), 0).unwrap_err();
    assert!(error.contains("no chat template") && error.contains("/v1/completions"), "{error}");
}

#[test]
fn folders_that_cannot_be_loaded_name_the_file() {
    let check = |prepare: &dyn Fn(&Path), expected: &[&str]| {
        let dir = folder_with(&json!({}));
        prepare(dir.path());
        let error = Tokenizer::load(dir.path()).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error:?} lacks one of {expected:?}");
    };
    check(&|dir| fs::remove_file(dir.join("tokenizer.json")).unwrap(), &["tokenizer.json is missing"]);
    check(
        &|dir| {
            let whole = fs::read(dir.join("tokenizer.json")).unwrap();
            fs::write(dir.join("tokenizer.json"), &whole[..whole.len() / 2]).unwrap();
        },
        &["tokenizer.json can't be used"],
    );
    check(
        &|dir| fs::write(dir.join("tokenizer_config.json"), "{").unwrap(),
        &["tokenizer_config.json can't be used"],
    );
    check(
        &|dir| fs::write(dir.join("chat_template.jinja"), "{% if %}").unwrap(),
        &["\"default\"", "compiled"],
    );
    check(&|dir| fs::write(dir.join("config.json"), "{\"vocab_size\": \"x\"}").unwrap(), &["config.json"]);
}

#[test]
fn end_of_sequence_tokens_come_from_all_files_that_name_one() {
    let tokenizer = load("byte-level");
    let id = |token: &str| tokenizer.encode(token, false).unwrap()[0];
    let mut expected = [id("<|endoftext|>"), id("<|im_end|>")];
    expected.sort_unstable();
    assert_eq!(tokenizer.eos_ids(), expected);
    assert_eq!(tokenizer.facts().context_tokens, Some(256));
}
