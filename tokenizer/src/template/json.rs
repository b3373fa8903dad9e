//! JSON as Python's `json.dumps` writes it, which is how models saw it in training.

use std::fmt::Write as _;

use serde_json::Value;

use super::python;

#[derive(Clone, Debug, Default)]
pub(super) struct Style {
    /// Spaces a level, each item on its own line; `None` = all on one line.
    pub(super) indent: Option<usize>,
    /// Everything outside ASCII as `\uXXXX`.
    pub(super) ensure_ascii: bool,
    pub(super) sort_keys: bool,
    /// Between items, and between a key and its value, instead of the usual ones.
    pub(super) separators: Option<[String; 2]>,
}

impl Style {
    fn between_items(&self) -> &str {
        match (&self.separators, self.indent) {
            (Some([items, _]), _) => items,
            (None, Some(_)) => ",",
            (None, None) => ", ",
        }
    }

    fn after_key(&self) -> &str {
        self.separators.as_ref().map_or(": ", |[_, key]| key)
    }
}

pub(super) fn dumps(value: &Value, style: &Style) -> String {
    let mut out = String::new();
    write_value(&mut out, value, style, 0);
    out
}

fn write_value(out: &mut String, value: &Value, style: &Style, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_string(out, text, style.ensure_ascii),
        Value::Array(items) => write_items(out, ['[', ']'], items.iter(), style, depth, |out, item| {
            write_value(out, item, style, depth + 1);
        }),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            if style.sort_keys {
                entries.sort_by_key(|(key, _)| *key);
            }
            write_items(out, ['{', '}'], entries.into_iter(), style, depth, |out, (key, item)| {
                write_string(out, key, style.ensure_ascii);
                out.push_str(style.after_key());
                write_value(out, item, style, depth + 1);
            });
        }
    }
}

fn write_items<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl ExactSizeIterator<Item = T>,
    style: &Style,
    depth: usize,
    mut write_item: impl FnMut(&mut String, T),
) {
    let is_empty = items.len() == 0;
    out.push(open);
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push_str(style.between_items());
        }
        new_line(out, style, depth + 1);
        write_item(out, item);
    }
    if !is_empty {
        new_line(out, style, depth);
    }
    out.push(close);
}

fn new_line(out: &mut String, style: &Style, depth: usize) {
    if let Some(indent) = style.indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent * depth));
    }
}

fn write_number(out: &mut String, number: &serde_json::Number) {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) => out.push_str(&python::float(float)),
        None => out.push_str(&number.to_string()),
    }
}

fn write_string(out: &mut String, text: &str, ensure_ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            _ if c < ' ' || (ensure_ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String does not fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}
