//! Schemas, regular expressions and grammars that are refused: the answer says what to change in what the client wrote, at once.

mod common;

use std::time::{Duration, Instant};

use common::TestFront;
use serde_json::{Map, Value, json};

const CHAT: &str = "/v1/chat/completions";
const SCHEMA: &str = "response_format.json_schema.schema";

fn chat(field: &str, value: Value) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], field: value})
}

/// Each is refused quickly, at that path, with those words, and with none of the grammar that would have been made of it.
async fn check(cases: Vec<(&str, Value, String, &str)>) {
    let (front, mut told) = TestFront::start(&["--tool-call-parser=hermes"]).await;
    for (field, value, param, word) in cases {
        let begun = Instant::now();
        let answer = front.post(CHAT, &chat(field, value)).await;
        let error = answer.json()["error"].clone();
        let message = error["message"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned();
        assert_eq!((answer.status, error["param"].as_str()), (400, Some(&*param)), "{message}");
        assert!(message.contains(word), "no {word:?} in {message:?}");
        for foreign in ["x-guidance", "%json", "%lark", "start: answer", "failed to compile", "f64"] {
            assert!(!message.contains(foreign), "{message:?}");
        }
        assert!(message.len() < 300 && !message.contains('\n'), "{message:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?} for {message}", begun.elapsed());
    }
    assert!(told.is_idle(), "no worker heard of any of this");
}

fn of_schema(cases: Vec<(Value, &str, &'static str)>) -> Vec<(&'static str, Value, String, &'static str)> {
    let case = |(schema, path, word): (Value, &str, &'static str)| {
        let dot = if path.is_empty() { "" } else { "." };
        let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        ("response_format", format, format!("{SCHEMA}{dot}{path}"), word)
    };
    cases.into_iter().map(case).collect()
}

#[tokio::test]
async fn a_schema_is_refused_at_the_part_that_is_wrong() {
    let in_b = |part: Value| json!({"type": "object", "required": ["b"], "properties": {"a": {"type": "string"}, "b": part}});
    let cases = vec![
        (json!({"type": "strin"}), "type", "\"strin\""),
        (
            in_b(json!({"type": "object", "properties": {"c": {"type": "int"}}})),
            "properties.b.properties.c.type",
            "\"int\"",
        ),
        (json!({"anyOf": [{"type": "string"}, {"type": "no"}]}), "anyOf[1].type", "\"no\""),
        (in_b(json!({"type": 3})), "properties.b", "type must be a string"),
        (json!({"properties": []}), "", "properties must be an object"),
        (in_b(json!(3)), "properties.b", "an object, true or false"),
        (json!({"type": "array", "items": "string"}), "items", "an object, true or false"),
        (json!({"type": "object", "required": "a"}), "", "array for 'required'"),
        (
            in_b(json!({"type": "integer", "minimum": 5, "maximum": 3})),
            "properties.b",
            "nothing fits it: minimum (5)",
        ),
        (json!({"type": "integer", "minimum": "x"}), "", "a number for 'minimum', got \"x\""),
        (json!({"type": "number", "multipleOf": 0}), "multipleOf", "above 0"),
        (in_b(json!({"type": "string", "minLength": 5, "maxLength": 3})), "properties.b", "minLength (5)"),
        (json!({"type": "string", "minLength": -1}), "", "a whole number from 0 for 'minLength', got -1"),
        (
            in_b(json!({"type": "string", "pattern": "x(a"})),
            "properties.b.pattern",
            "unclosed group, at character 2",
        ),
        (json!({"type": "string", "pattern": "(?=a)b"}), "pattern", "look-around"),
        (json!({"type": "string", "pattern": "\\bfoo"}), "pattern", "look-around"),
        (json!({"type": "string", "format": "zip"}), "format", "\"zip\" is not known"),
        (json!({"type": "string", "format": "date", "pattern": "x"}), "", "exclude each other"),
        (json!({"type": "array", "minItems": 3, "maxItems": 1}), "", "minItems (3)"),
        (json!({"enum": []}), "", "nothing fits it"),
        (json!({"enum": "a"}), "", "enum must be an array"),
        (
            in_b(json!({"allOf": [{"type": "string"}, {"type": "integer"}]})),
            "properties.b",
            "incompatible types",
        ),
        (in_b(json!({"$ref": "#/$defs/x"})), "properties.b.$ref", "\"#/$defs/x\""),
        (json!({"$ref": "http://x/y"}), "$ref", "outside of the schema"),
        (json!({"$defs": {"x": {"type": "strin"}}, "$ref": "#/$defs/x"}), "$defs.x.type", "\"strin\""),
        (in_b(json!({"not": {"type": "string"}})), "properties.b", "\"not\" can't be enforced"),
        (
            json!({"type": "array", "uniqueItems": true, "contains": {}}),
            "",
            "\"contains\", \"uniqueItems\" can't",
        ),
        (
            json!({"type": "object", "patternProperties": {"a": {}, "b": {}}}),
            "patternProperties",
            "exclude each other",
        ),
    ];
    check(of_schema(cases)).await;
}

#[tokio::test]
async fn patterns_grammars_and_tools_are_refused_with_the_place() {
    let cases = [
        ("guided_regex", json!("a(b"), "guided_regex", "unclosed group, at character 2 (\"(b\")"),
        ("guided_regex", json!("[z-a]"), "guided_regex", "at character 2"),
        ("guided_regex", json!("(a)\\1"), "guided_regex", "backreferences"),
        ("guided_regex", json!("a\\b"), "guided_regex", "look-around"),
        ("guided_grammar", json!("begin: \"a\""), "guided_grammar", "no rule named start"),
        (
            "guided_grammar",
            json!("start: a\na: b"),
            "guided_grammar",
            "line 2, column 4: unknown name: \"b\"",
        ),
        ("guided_grammar", json!("start: \"a\"\n  x y"), "guided_grammar", "line 2"),
        ("guided_grammar", json!("start: /(/"), "guided_grammar", "line 1, column 8: unclosed group"),
        ("guided_grammar", json!("start: 'a'"), "guided_grammar", "line 1, column 8: this can't be read"),
        ("guided_grammar", json!("start: %json {\"type\": \"x\"}"), "guided_grammar", "type: expected null"),
    ];
    let mut cases: Vec<_> =
        cases.into_iter().map(|(field, value, param, word)| (field, value, param.to_owned(), word)).collect();
    let tool = json!([
        {"type": "function", "function": {"name": "f"}},
        {"type": "function", "function": {"name": "g", "parameters": {"properties": {"x": {"type": "strin"}}}}},
    ]);
    let (front, _told) = TestFront::start(&["--tool-call-parser=hermes"]).await;
    let mut body = chat("tools", tool);
    body["tool_choice"] = json!("required");
    let error = front.post(CHAT, &body).await.json()["error"].clone();
    assert_eq!(error["param"], "tools[1].function.parameters.properties.x.type", "{error}");
    cases.push(("guided_json", json!({"type": "x"}), "guided_json.type".to_owned(), "\"x\""));
    check(cases).await;
}

#[tokio::test]
async fn what_would_take_long_is_refused_at_once() {
    let patterns: Map<String, Value> = (0..1_000).map(|n| (format!("^x{n}$"), json!({}))).collect();
    let deep = (0..49).fold(json!({"type": "string"}), |part, _| json!({"type": "array", "items": part}));
    let either = |n: usize| json!({"anyOf": [{"properties": {format!("a{n}"): {"type": "string"}}}, {"properties": {format!("b{n}"): {}}}]});
    let mut cases = of_schema(vec![
        (
            json!({"properties": {"a": {"patternProperties": patterns}}}),
            "properties.a.patternProperties",
            "the limit is 64",
        ),
        (deep, "", "48 levels"),
        (
            json!({"type": "string", "pattern": "a?".repeat(40_000)}),
            "pattern",
            "80000 bytes, the limit is 4096",
        ),
        (json!({"allOf": (0..20).map(either).collect::<Vec<_>>()}), "", "too many combinations"),
        (
            json!({"enum": (0..20_000).map(|n| format!("value {n}")).collect::<Vec<_>>()}),
            "",
            "the limit is 262144",
        ),
    ]);
    let long = "a?".repeat(40_000);
    cases.push(("guided_regex", json!(long), "guided_regex".to_owned(), "the limit is 4096"));
    cases.push((
        "guided_grammar",
        json!(format!("start: A\nA: /{long}/")),
        "guided_grammar".to_owned(),
        "a line of it",
    ));
    check(cases).await;
}
