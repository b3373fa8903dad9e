//! Values as Python writes them, where minijinja writes them differently: floats that are very large or very small.

use std::fmt::Write as _;

use minijinja::{Value, value::ValueKind};

/// Whether Python's text of the value is not minijinja's.
pub(super) fn has_own_text(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Number => is_scientific(value).is_some(),
        ValueKind::Seq => value.try_iter().is_ok_and(|mut items| items.any(|item| has_own_text(&item))),
        ValueKind::Map => value
            .try_iter()
            .is_ok_and(|mut keys| keys.any(|key| value.get_item(&key).is_ok_and(|item| has_own_text(&item)))),
        _ => false,
    }
}

/// Python's `str`.
pub(super) fn text(value: &Value) -> String {
    if !has_own_text(value) {
        return value.to_string();
    }
    let mut out = String::new();
    write_repr(&mut out, value);
    out
}

fn write_repr(out: &mut String, value: &Value) {
    if !has_own_text(value) {
        let _ = write!(out, "{value:?}");
        return;
    }
    match (value.kind(), value.try_iter()) {
        (ValueKind::Seq, Ok(items)) => {
            out.push('[');
            for (at, item) in items.enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_repr(out, &item);
            }
            out.push(']');
        }
        (ValueKind::Map, Ok(keys)) => {
            out.push('{');
            for (at, key) in keys.enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_repr(out, &key);
                out.push_str(": ");
                write_repr(out, &value.get_item(&key).unwrap_or_default());
            }
            out.push('}');
        }
        _ => out.push_str(&is_scientific(value).map(float).unwrap_or_default()),
    }
}

fn is_scientific(value: &Value) -> Option<f64> {
    let float = f64::try_from(value.clone()).ok().filter(|_| !value.is_integer())?;
    (float.is_finite() && float != 0.0 && !(1e-4..1e16).contains(&float.abs())).then_some(float)
}

/// Python's `repr` of a float: scientific below 1e-4 and from 1e16, with two digits of exponent at least.
pub(super) fn float(float: f64) -> String {
    if float == 0.0 || (1e-4..1e16).contains(&float.abs()) {
        return format!("{float:?}");
    }
    let text = format!("{float:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}
