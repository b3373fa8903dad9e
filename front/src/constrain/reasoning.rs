//! Reasoning before what is constrained: free, and optional unless the prompt has begun it.

use baton_grammar::source;
use baton_parsers::{
    Formats, ReasoningFormat, ThinkMark,
    marks::{self, THINK_CLOSE, THINK_OPEN},
};

use super::Marks;

/// The grammar's first rules: what may come before `body`, which is a rule's name or an expression.
pub(super) fn start(marks: &Marks<'_>, formats: Formats, mark: ThinkMark, body: &str) -> String {
    if formats.is_harmony() {
        return format!("start: analysis? {body}\n{}", analysis(marks));
    }
    match (formats.reasoning, mark) {
        (Some(ReasoningFormat::Think), ThinkMark::Opened) => {
            format!("start: thought {body}\n{}", thought(marks))
        }
        (Some(ReasoningFormat::Think), ThinkMark::None) => {
            format!("start: ({} thought)? {body}\n{}", marks.rule(THINK_OPEN), thought(marks))
        }
        _ => format!("start: {body}\n"),
    }
}

/// The rule `answer`: `rule`, in the channel where answers are written.
pub(super) fn answer(marks: &Marks<'_>, formats: Formats, rule: &str) -> String {
    if !formats.is_harmony() {
        return format!("answer: {rule}\n");
    }
    let [channel, message] = [marks::CHANNEL, marks::MESSAGE].map(|mark| marks.rule(mark));
    format!("answer: {channel} \"final\" {message} text\ntext: {rule}\n")
}

/// What is thought, with its closing mark and the white space after it.
fn thought(marks: &Marks<'_>) -> String {
    let space = "/[ \\n]{1,4}/?";
    match marks.control(THINK_CLOSE) {
        Some(id) => format!("thought: /(.|\\n)*/ {} {space}\n", source::token(id)),
        None => {
            let close = THINK_CLOSE.replace('/', "\\/");
            format!("thought: thinking {space}\nthinking[lazy]: /(.|\\n)*{close}/\n")
        }
    }
}

/// A message of reasoning, up to the header of the next one.
fn analysis(marks: &Marks<'_>) -> String {
    let [channel, message, end, start] =
        [marks::CHANNEL, marks::MESSAGE, marks::END, marks::START].map(|mark| marks.rule(mark));
    format!("analysis: {channel} \"analysis\" {message} /(.|\\n)*/ {end} {start} \"assistant\"\n")
}
