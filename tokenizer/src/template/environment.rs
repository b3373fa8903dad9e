//! Jinja as transformers sets it up, where minijinja's own differs: blocks are trimmed, some filters and tests are Python's.

use minijinja::{
    Environment, Error, ErrorKind, Output, State, Value, filters,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind},
};

use super::{json, methods, python};

pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    env.set_syntax(syntax.build().unwrap_or_default());
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(methods::call);
    env.set_formatter(write);
    env.add_function("raise_exception", raise_exception);
    env.add_filter("tojson", tojson);
    env.add_filter("string", python::text);
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("replace", replace);
    env.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    env.add_test("sequence", is_sequence);
    env
}

fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match python::has_own_text(value) {
        true => out.write_str(&python::text(value)).map_err(Error::from),
        false => minijinja::escape_formatter(out, state, value),
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn tojson(value: &Value, ensure_ascii: Option<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let named = kwargs.get::<Option<bool>>("ensure_ascii")?;
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let style = json::Style {
        indent: kwargs.get::<Option<usize>>("indent")?,
        ensure_ascii: named.unwrap_or_else(|| ensure_ascii.is_some_and(|value| value.is_true())),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        separators: separators.and_then(|pair| pair.try_into().ok()),
    };
    kwargs.assert_all_used()?;
    let value = serde_json::to_value(value).map_err(|error| {
        Error::new(ErrorKind::InvalidOperation, "not serializable to JSON").with_source(error)
    })?;
    Ok(json::dumps(&value, &style))
}

/// What is not defined is empty.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() { Ok(0) } else { filters::length(value) }
}

/// Text that is no number is 0, or what the template says instead.
fn int(
    state: &State,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = or_zero(default, &kwargs, Value::from(0))?;
    filters::int(state, value, Some(default), base, kwargs)
}

fn float(state: &State, value: &Value, default: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let default = or_zero(default, &kwargs, Value::from(0.0))?;
    filters::float(state, value, Some(default), kwargs)
}

fn or_zero(default: Option<Value>, kwargs: &Kwargs, zero: Value) -> Result<Value, Error> {
    let named = kwargs.get::<Option<Value>>("default")?;
    Ok(default.or(named).unwrap_or(zero))
}

/// All places, or the first `count`.
fn replace(text: &str, from: &str, to: &str, count: Option<usize>) -> String {
    count.map_or_else(|| text.replace(from, to), |count| text.replacen(from, to, count))
}

/// Text and objects are sequences, too: they have a length and can be indexed.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Bytes)
}

/// The source, with the blocks that transformers adds to Jinja as blocks that there are: `{% generation %}` marks what the model wrote,
/// for training, and renders as what is in it.
pub(super) fn without_training_marks(source: String) -> String {
    const MARKS: [(&str, &str); 2] = [("endgeneration", "endwith"), ("generation", "with")];
    if !source.contains("generation") {
        return source;
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = &*source;
    while let Some(open) = rest.find("{%") {
        let Some(len) = rest[open..].find("%}") else { break };
        let (before, tag) = (&rest[..open + 2], &rest[open + 2..open + len]);
        let word = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let mark = MARKS.iter().find(|(mark, _)| *mark == word);
        out.push_str(before);
        out.push_str(&mark.map_or_else(|| tag.to_owned(), |(mark, block)| tag.replacen(mark, block, 1)));
        rest = &rest[open + len..];
    }
    out + rest
}
