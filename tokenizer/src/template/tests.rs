//! Templates of our own, each with a construct of real ones. Expected: what transformers' Jinja makes of them.

use serde_json::{Value, json};

use super::*;

fn renderer(template: &str) -> ChatRenderer {
    let config = serde_json::from_value(json!({"chat_template": template})).unwrap();
    ChatRenderer::new(config).unwrap_or_else(|error| panic!("{error}: {template}"))
}

fn render(template: &str, messages: Value, tools: Option<&[Value]>, kwargs: Value) -> String {
    let (Value::Array(messages), Value::Object(kwargs)) = (messages, kwargs) else { panic!("wrong types") };
    let input = ChatInput { messages: &messages, tools, add_generation_prompt: false, kwargs: &kwargs };
    renderer(template)
        .render(&input, SystemTime::UNIX_EPOCH)
        .unwrap_or_else(|error| panic!("{error}: {template}"))
}

#[track_caller]
fn check(template: &str, expected: &str) {
    let kwargs = json!({
        "f": 1e-7, "ff": 1e22, "list": [{"n": "x"}], "odd": {"a": [1e-5, null, true, "it's"], "b": {}},
    });
    assert_eq!(
        render(template, json!([{"role": "user", "content": "hi"}]), None, kwargs),
        expected,
        "{template}"
    );
}

#[test]
fn none_is_not_iterable_and_text_is_a_sequence() {
    check("{% if tools is iterable and tools | length > 0 %}t{% endif %}-", "-");
    check(
        "{{ none is iterable }} {{ 'a' is iterable }} {{ [] is iterable }} {{ 1 is iterable }}",
        "False True True False",
    );
    check(
        "{{ 'a' is sequence }} {{ odd is sequence }} {{ list is sequence }} {{ none is sequence }}",
        "True True True False",
    );
    check("{{ nothing | length }}", "0");
}

#[test]
fn marks_for_training_render_as_what_is_in_them() {
    check("a{% generation %}b {{ 1 }}{% endgeneration %}c", "ab 1c");
    check("a\n  {%- generation -%}\n  b\n  {%- endgeneration %}\nc", "abc");
    check("a\n  {% generation %}\n  b\n  {% endgeneration %}\nc", "a\n  b\nc");
    check("{% set generation = 'x' %}{{ generation }}", "x");
}

#[test]
fn floats_are_written_as_python_writes_them() {
    check("{{ f }} {{ ff }} {{ 1e16 }} {{ 0.5 }} {{ 2.0 }}", "1e-07 1e+22 1e+16 0.5 2.0");
    check(
        "{{ f | string }}|{{ [f, 1] }}|{{ odd }}",
        "1e-07|[1e-07, 1]|{'a': [1e-05, None, True, \"it's\"], 'b': {}}",
    );
    check("{{ f | tojson }} {{ [ff, -0.0] | tojson }}", "1e-07 [1e+22, -0.0]");
}

#[test]
fn tojson_takes_what_pythons_dumps_takes() {
    check("{{ list | tojson(separators=(',', ':')) }}", r#"[{"n":"x"}]"#);
    check("{{ list | tojson(indent=1, separators=(', ', ': ')) }}", "[\n {\n  \"n\": \"x\"\n }\n]");
    check("{{ 'é' | tojson(true) }} {{ 'é' | tojson(false) }}", r#""\u00e9" "é""#);
}

#[test]
fn strings_have_pythons_methods() {
    check("{{ 'a,b,c'.rsplit(',', 1) }} {{ ' a  b '.rsplit() }}", "['a,b', 'c'] ['a', 'b']");
    check(
        "{{ 'a-b-c'.partition('-') | join('|') }} {{ 'a-b-c'.rpartition('-')[0] }} {{ 'x'.partition('-')[0] }}",
        "a|-|b-c a-b x",
    );
    check("{{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ 'abc'.index('c') }}", "bc ab 2");
    check(
        "[{{ 'ab'.ljust(4) }}][{{ 'ab'.rjust(4) }}][{{ 'ab'.center(5) }}] {{ '-7'.zfill(4) }}",
        "[ab  ][  ab][  ab ] -007",
    );
    check("{{ 'aBc'.swapcase() }} {{ [1, 2].index(2) }} {{ odd.copy() == odd }}", "AbC 1 True");
    check(
        "{{ 'aaa' | replace('a', 'b', 2) }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 'x' | float }}",
        "bba 0 7 0.0",
    );
}

#[test]
fn documents_come_from_the_request() {
    let template = "{% if documents %}{{ documents[0].text }}{% endif %}-";
    let messages = json!([{"role": "user", "content": "hi"}]);
    assert_eq!(render(template, messages.clone(), None, json!({"documents": [{"text": "t"}]})), "t-");
    assert_eq!(render(template, messages, None, json!({})), "-");
}

/// `a` and `b` as one user's parts, through that template.
fn two_parts(template: &str) -> String {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    render(template, json!([{"role": "user", "content": parts}]), None, json!({}))
}

#[test]
fn parts_are_joined_for_templates_that_take_text() {
    assert_eq!(two_parts("{% for m in messages %}{{ m.content }}{% endfor %}"), "a\nb");
    assert_eq!(two_parts("{% for m in messages %}{{ m.content | tojson }}{% endfor %}"), "\"a\\nb\"");
    assert_eq!(two_parts("{% for m in messages %}{{ m.content | trim + '.' }}{% endfor %}"), "a\nb.");
    // Without an error, but without the text too.
    let silent = "{% for m in messages %}{{ m.content if m.content is string else '' }}{% endfor %}";
    assert_eq!(two_parts(silent), "a\nb");
}

#[test]
fn parts_stay_parts_for_templates_that_take_them_by_role() {
    let of_users = "{% for m in messages %}{% if m.role == 'user' and m.content is not string %}\
        {% for part in m.content %}<{{ part.text }}>{% endfor %}{% else %}{{ m.role + m.content }}{% endif %}{% endfor %}";
    assert_eq!(two_parts(of_users), "<a><b>");
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let messages = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": parts}]);
    assert_eq!(render(of_users, messages, None, json!({})), "userxassistanta\nb");
}

#[test]
fn text_becomes_a_part_where_a_template_takes_nothing_else() {
    let strict =
        "{% for m in messages %}{% for part in m.content %}<{{ part['text'] }}>{% endfor %}{% endfor %}";
    assert_eq!(two_parts(strict), "<a><b>");
    assert_eq!(render(strict, json!([{"role": "user", "content": "hi"}]), None, json!({})), "<hi>");
}
