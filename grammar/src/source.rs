//! Texts of grammars: what clients ask for, written in the one language that is compiled.

use serde_json::{Map, Value, json};

/// How strictly a JSON schema is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaStyle {
    /// No line breaks or spaces between the parts of the text.
    pub is_compact: bool,
    /// Keywords that can't be enforced are passed over; otherwise they are errors.
    pub is_lenient: bool,
    /// A regular expression for what may stand between the parts, instead of a little white space.
    pub whitespace: Option<String>,
}

/// White space between the parts of a JSON text: a space, or one line break and as much indentation as 16 levels take. No more, as
/// a model may be fond of it.
const WHITESPACE: &str = r"\x20|\x0D?\x0A[\x20\x09]{0,32}";

/// A rule's right-hand side: JSON that `schema` allows.
pub fn json_schema(schema: &Map<String, Value>, style: &SchemaStyle) -> String {
    let mut schema = schema.clone();
    let whitespace = style.whitespace.as_deref().unwrap_or(WHITESPACE);
    // llguidance reads its options from the schema itself; the client's own would be a way around this one.
    let options = json!({
        "whitespace_flexible": !style.is_compact,
        "whitespace_pattern": (!style.is_compact).then_some(whitespace),
        "lenient": style.is_lenient,
        // One of them is one of them; that no other fits too is not promised.
        "coerce_one_of": true,
    });
    schema.insert("x-guidance".to_owned(), options);
    format!("%json {}", Value::Object(schema))
}

/// A rule's right-hand side: any JSON object.
pub fn json_object(style: &SchemaStyle) -> String {
    let schema = Map::from_iter([("type".to_owned(), json!("object"))]);
    json_schema(&schema, style)
}

/// A rule's right-hand side: text that `pattern` matches from end to end.
pub fn regex(pattern: &str) -> String {
    format!("/{}/", llguidance::regex_to_lark(pattern, ""))
}

/// A rule's right-hand side: one of these texts.
pub fn choice<S: AsRef<str>>(texts: &[S]) -> String {
    texts.iter().map(|text| literal(text.as_ref())).collect::<Vec<_>>().join(" | ")
}

/// A rule's right-hand side: exactly this text.
pub fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A rule's right-hand side: exactly this token, which may be a control token.
pub fn token(id: u32) -> String {
    format!("<[{id}]>")
}

/// A rule's right-hand side: what a whole grammar's own `start` allows.
pub fn nested(grammar: &str) -> String {
    format!("%lark {{\n{grammar}\n}}")
}

/// A grammar of one rule.
pub fn whole(rule: &str) -> String {
    format!("start: {rule}\n")
}
