//! What each format's texts mean, however they are cut.

use baton_parsers::{
    Delta, Formats, Function, OutputOptions, OutputParser, ReasoningFormat, ThinkMark, ToolFormat,
};
use proptest::prelude::*;
use serde_json::json;

/// A message put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Message {
    content: String,
    reasoning: String,
    calls: Vec<(String, String)>,
}

fn message(deltas: impl IntoIterator<Item = Delta>) -> Message {
    let mut message = Message::default();
    for delta in deltas {
        match delta {
            Delta::Content(text) => message.content += &text,
            Delta::Reasoning(text) => message.reasoning += &text,
            Delta::ToolCall { name } => message.calls.push((name, String::new())),
            Delta::Arguments(text) => message.calls.last_mut().expect("a call comes first").1 += &text,
        }
    }
    message
}

fn options(tools: Option<ToolFormat>, reasoning: Option<ReasoningFormat>) -> OutputOptions {
    let parameters = json!({"properties": {
        "text": {"type": "string"}, "count": {"type": "integer"}, "ratio": {"type": "number"}, "is_on": {"type": "boolean"},
        "list": {"type": "array"}, "maybe": {"anyOf": [{"type": "object"}, {"type": "null"}]},
    }});
    let function = |name: &str| Function {
        name: name.to_owned(),
        parameters: parameters.as_object().cloned().unwrap_or_default(),
    };
    let functions = ["f", "get weather"].map(function).into();
    OutputOptions { formats: Formats { tools, reasoning }, functions, ..OutputOptions::default() }
}

/// Takes the text in pieces that begin at `cuts` (in characters).
fn parse_cut(options: &OutputOptions, text: &str, is_cut: impl Fn(usize) -> bool) -> Message {
    let mut parser = OutputParser::new(options);
    let (mut deltas, mut piece) = (Vec::new(), String::new());
    for (at, c) in text.chars().enumerate() {
        if is_cut(at) {
            deltas.extend(parser.push(&std::mem::take(&mut piece)));
        }
        piece.push(c);
    }
    deltas.extend(parser.push(&piece));
    deltas.extend(parser.finish());
    message(deltas)
}

#[track_caller]
fn check(options: &OutputOptions, text: &str, content: &str, reasoning: &str, calls: &[(&str, &str)]) {
    let calls = calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned())).collect();
    let expected = Message { content: content.to_owned(), reasoning: reasoning.to_owned(), calls };
    assert_eq!(parse_cut(options, text, |_| false), expected, "in one piece");
    assert_eq!(parse_cut(options, text, |_| true), expected, "character by character");
}

#[test]
fn hermes() {
    let options = options(Some(ToolFormat::Hermes), None);
    let check = |text, content, calls| check(&options, text, content, "", calls);
    check("Hello <b> there\n", "Hello <b> there\n", &[]);
    check(
        "Let me see.\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"a}\\\"b\", \"y\": [1, {}]}}\n</tool_call>\n",
        "Let me see.",
        &[("f", "{\"x\": \"a}\\\"b\", \"y\": [1, {}]}")],
    );
    check(
        "<tool_call>{\"arguments\": {\"x\": 1}, \"name\": \"f\"}</tool_call>\n<tool_call>{\"name\": \"g\"}</tool_call> Done",
        "Done",
        &[("f", "{\"x\": 1}"), ("g", "{}")],
    );
    // No calls after all.
    check("<tool_call>x</tool_call>", "<tool_call>x</tool_call>", &[]);
    check("<tool_call>{\"a\": 1}</tool_call>", "<tool_call>{\"a\": 1}</tool_call>", &[]);
    check("<tool_call>{\"name\": 7}", "<tool_call>{\"name\": 7}", &[]);
    check("<tool_call>{\"na", "<tool_call>{\"na", &[]);
    check("a <tool_ca", "a <tool_ca", &[]);
    // Cut off in the midst.
    check("<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1", "", &[("f", "{\"x\": 1")]);
}

#[test]
fn qwen3_coder() {
    let options = options(Some(ToolFormat::Qwen3Coder), None);
    let check = |text, content, calls| check(&options, text, content, "", calls);
    check("Hello <b> there\n", "Hello <b> there\n", &[]);
    check(
        "Let me see.\n\n<tool_call>\n<function=f>\n<parameter=text>\nfor x in y:\n    \"é\" < 3\n\n</parameter>\n\
         <parameter=count>\n42\n</parameter>\n<parameter=ratio>\n5.0\n</parameter>\n<parameter=is_on>\nTrue\n</parameter>\n\
         <parameter=list>\n[1, {\"a\": 2}]\n</parameter>\n<parameter=maybe>\nnull\n</parameter>\n<parameter=other>\n7\n</parameter>\n\
         </function>\n</tool_call>\n",
        "Let me see.",
        &[(
            "f",
            "{\"text\": \"for x in y:\\n    \\\"é\\\" < 3\\n\", \"count\": 42, \"ratio\": 5, \"is_on\": true, \
             \"list\": [1, {\"a\": 2}], \"maybe\": null, \"other\": \"7\"}",
        )],
    );
    // Two calls, and words after them.
    check(
        "<tool_call><function=f></function></tool_call>\n<tool_call>\n<function=g>\n<parameter=a>b</parameter>\n</function>\n</tool_call> Done",
        "Done",
        &[("f", "{}"), ("g", "{\"a\": \"b\"}")],
    );
    // What is not true is false, what is no number stays text, and so does what is no JSON.
    check(
        "<tool_call>\n<function=f>\n<parameter=is_on>\nyes\n</parameter><parameter=count>\nfour\n</parameter><parameter=list>\n[1\n</parameter></function></tool_call>",
        "",
        &[("f", "{\"is_on\": false, \"count\": \"four\", \"list\": \"[1\"}")],
    );
    check(
        "<tool_call><function=f><parameter=text>null</parameter><parameter=x>nullify</parameter><parameter=y>\n\n</parameter></function></tool_call>",
        "",
        &[("f", "{\"text\": null, \"x\": \"nullify\", \"y\": \"\"}")],
    );
    // Tags that are left out: around a call that is known, after a value, after the arguments.
    check("<function=f>\n<parameter=count>3</parameter></function>", "", &[("f", "{\"count\": 3}")]);
    check("Write <function=x> so.", "Write <function=x> so.", &[]);
    check(
        "<tool_call><function=f><parameter=count>3<parameter=text>a\n</function></tool_call>",
        "",
        &[("f", "{\"count\": 3, \"text\": \"a\"}")],
    );
    check(
        "<tool_call><function=f><parameter=count>3</parameter></tool_call>!",
        "!",
        &[("f", "{\"count\": 3}")],
    );
    // An argument that comes twice.
    check(
        "<tool_call><function=f><parameter=text>a</parameter><parameter=text>b</parameter></function></tool_call>",
        "",
        &[("f", "{\"text\": \"a\"}")],
    );
    // No calls after all.
    check("<tool_call>{\"name\": \"f\"}</tool_call>", "<tool_call>{\"name\": \"f\"}</tool_call>", &[]);
    check("<tool_call>\n<func", "<tool_call>\n<func", &[]);
    check("<tool_call>\n<function=f", "<tool_call>\n<function=f", &[]);
    check("<function=\nx <function=f></function>", "<function=\nx", &[("f", "{}")]);
    check("a <tool_ca", "a <tool_ca", &[]);
    // Cut off in the midst: what has come of a text, and nothing of what can't be read yet.
    check("<tool_call><function=f><parameter=text>\nab\n", "", &[("f", "{\"text\": \"ab")]);
    check("<tool_call><function=f><parameter=count>4", "", &[("f", "{\"count\": ")]);
}

#[test]
fn llama() {
    let options = options(Some(ToolFormat::Llama3Json), None);
    let check = |text, content, calls| check(&options, text, content, "", calls);
    check("{\"name\": \"f\", \"parameters\": {\"x\": 1}}", "", &[("f", "{\"x\": 1}")]);
    check(
        "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"get weather\", \"parameters\": {\"x\": 2}}",
        "",
        &[("f", "{}"), ("get weather", "{\"x\": 2}")],
    );
    check("Well: {\"name\": \"f\"}", "Well: {\"name\": \"f\"}", &[]);
    check("So <|python_tag|>{\"name\": \"f\"}", "So ", &[("f", "{}")]);
    // An answer that is JSON.
    check("{\"name\": \"Ann\", \"age\": 3}", "{\"name\": \"Ann\", \"age\": 3}", &[]);
    check(" {\"city\": \"Oslo\"}\n", " {\"city\": \"Oslo\"}\n", &[]);
    check("<|python_tag|>search.call()", "<|python_tag|>search.call()", &[]);
    check("<|pyth", "<|pyth", &[]);
}

#[test]
fn mistral() {
    let options = options(Some(ToolFormat::Mistral), None);
    let check = |text, content, calls| check(&options, text, content, "", calls);
    check(
        "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"x\": [1]}}, {\"name\": \"g\", \"arguments\": {}}]",
        "",
        &[("f", "{\"x\": [1]}"), ("g", "{}")],
    );
    check("Yes. [TOOL_CALLS]f{\"x\": \"}\"}[TOOL_CALLS]g{}", "Yes.", &[("f", "{\"x\": \"}\"}"), ("g", "{}")]);
    check("[TOOL_CALLS]f[ARGS]{\"x\": 1}", "", &[("f", "{\"x\": 1}")]);
    check("[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{\"x\": 1}", "", &[("f", "{\"x\": 1}")]);
    check("a [b] [TOOL c\n", "a [b] [TOOL c\n", &[]);
    check("[TOOL_CALLS]never", "[TOOL_CALLS]never", &[]);
}

#[test]
fn harmony() {
    let options = options(Some(ToolFormat::Harmony), Some(ReasoningFormat::Harmony));
    check(
        &options,
        "<|channel|>analysis<|message|>Hm < 3.<|end|><|start|>assistant<|channel|>final<|message|>Four.<|return|>",
        "Four.",
        "Hm < 3.",
        &[],
    );
    check(
        &options,
        "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>commentary to=functions.f \
         <|constrain|>json<|message|>{\"x\": 1}<|call|>",
        "",
        "A",
        &[("f", "{\"x\": 1}")],
    );
    check(
        &options,
        "<|channel|>commentary<|message|>First<|end|><|start|>assistant to=functions.f<|channel|>commentary json\
         <|message|>{}<|call|><|start|>assistant<|channel|>final<|message|>last",
        "First\nlast",
        "",
        &[("f", "{}")],
    );
    check(&options, "no harmony at all", "no harmony at all", "", &[]);
}

#[test]
fn reasoning() {
    let options = options(Some(ToolFormat::Hermes), Some(ReasoningFormat::Think));
    check(&options, "<think>\nHm.\n\nSo.\n</think>\n\nFour.", "Four.", "Hm.\n\nSo.", &[]);
    check(&options, "\n Four <think>", "\n Four <think>", "", &[]);
    check(&options, "<think>never closed", "", "never closed", &[]);
    check(&options, "<think>\n\n</think>\n\nFour", "Four", "", &[]);
    check(&options, "<thi", "<thi", "", &[]);
    // A call that is only thought of is none.
    check(
        &options,
        "<think>perhaps <tool_call>{\"name\": \"f\"}</tool_call></think><tool_call>{\"name\": \"g\"}</tool_call>",
        "",
        "perhaps <tool_call>{\"name\": \"f\"}</tool_call>",
        &[("g", "{}")],
    );
    let opened =
        OutputOptions { mark: ThinkMark::at_the_end_of("<|im_start|>assistant\n<think>\n"), ..options };
    check(&opened, "Hm.</think>Four", "Four", "Hm.", &[]);
}

#[test]
fn what_the_request_does_not_want_is_left_out() {
    let wanted = options(Some(ToolFormat::Hermes), Some(ReasoningFormat::Think));
    let options = OutputOptions { one_call: true, hide_reasoning: true, ..wanted };
    let text = "<think>a</think>b<tool_call>{\"name\": \"f\"}</tool_call><tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>";
    check(&options, text, "b", "", &[("f", "{}")]);
}

/// Text made of what parsers look for.
fn text() -> impl Strategy<Value = String> {
    let parts = prop_oneof![
        4 => prop::sample::select(vec![
            "<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>",
            "<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|call|>", "analysis", "final", "commentary",
            " to=functions.f", "{\"name\": \"f\", \"arguments\": {\"a\": \"é}\\\"\"}}", "{\"name\":\"f\",\"parameters\":[1,2]}",
            "{\"arguments\": 3, \"name\": \"f\" }", "{\"name\": \"f\"", "{\"x\":", "[", "]", "{", "}", ",", ":", ";", "\"", "\\",
            " ", "\n", "f", "<", "<t", "[TOOL", "<function=f>", "<function=", ">", "</function>", "<parameter=text>", "<parameter=count>",
            "</parameter>", "null", "<parameter=list>",
        ]).prop_map(str::to_owned),
        1 => "[a-zé<>|\\[\\]{}\" \n]{0,6}",
    ];
    prop::collection::vec(parts, 0..14).prop_map(|parts| parts.concat())
}

fn any_options() -> impl Strategy<Value = OutputOptions> {
    let tools = prop::option::of(prop::sample::select(vec![
        ToolFormat::Hermes,
        ToolFormat::Qwen3Coder,
        ToolFormat::Llama3Json,
        ToolFormat::Mistral,
        ToolFormat::Harmony,
    ]));
    let marks = prop::sample::select(vec![ThinkMark::None, ThinkMark::Opened]);
    (tools, any::<bool>(), marks, prop::bool::weighted(0.2)).prop_map(|(tools, thinks, mark, one_call)| {
        OutputOptions { mark, one_call, ..options(tools, thinks.then_some(ReasoningFormat::Think)) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn the_message_does_not_depend_on_the_cuts(options in any_options(), text in text(), cuts: u64) {
        let whole = parse_cut(&options, &text, |_| false);
        prop_assert_eq!(&parse_cut(&options, &text, |_| true), &whole);
        let is_cut = |at: usize| cuts.rotate_left(u32::try_from(at % 64).unwrap()).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 62 == 0;
        prop_assert_eq!(&parse_cut(&options, &text, is_cut), &whole);
    }

    #[test]
    fn text_without_marks_is_content(options in any_options(), text in "[a-z {}\"\n:,é]{0,40}") {
        let options = OutputOptions { mark: ThinkMark::None, ..options };
        let message = parse_cut(&options, &text, |_| true);
        if message.calls.is_empty() {
            prop_assert_eq!(message.content.trim(), text.trim());
        }
    }
}
