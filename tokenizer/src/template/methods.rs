//! Methods of Python's strings, dicts and lists that templates call, beside those of `minijinja_contrib`.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{ValueKind, from_args},
};
use minijinja_contrib::pycompat;

pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let own = match (value.kind(), value.as_str()) {
        (_, Some(text)) => of_text(text, method, args)?,
        (ValueKind::Map, _) if method == "copy" => Some(value.clone()),
        (ValueKind::Seq, _) if method == "index" => Some(index_of(value, args)?),
        _ => None,
    };
    own.map_or_else(|| pycompat::unknown_method_callback(state, value, method, args), Ok)
}

/// `None`: no method of ours.
fn of_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "rsplit" => rsplit(text, args)?,
        "partition" | "rpartition" => {
            let (mark,): (&str,) = from_args(args)?;
            let is_first = method == "partition";
            let found = if is_first { text.split_once(mark) } else { text.rsplit_once(mark) };
            let parts = match found {
                Some((before, after)) => [before, mark, after],
                None if is_first => [text, "", ""],
                None => ["", "", text],
            };
            parts.into_iter().map(Value::from).collect()
        }
        "removeprefix" => {
            let (part,): (&str,) = from_args(args)?;
            text.strip_prefix(part).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            text.strip_suffix(part).unwrap_or(text).into()
        }
        "index" => {
            let (part,): (&str,) = from_args(args)?;
            let at = text.find(part).ok_or_else(|| not_found("substring"))?;
            text[..at].chars().count().into()
        }
        "swapcase" => text.chars().map(swap_case).collect::<String>().into(),
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            padded(text, method, width, fill.unwrap_or(' ')).into()
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            format!("{sign}{}", padded(digits, "rjust", width.saturating_sub(sign.len()), '0')).into()
        }
        _ => return Ok(None),
    }))
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (mark, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX - 1);
    let mut parts: Vec<&str> = match mark {
        Some(mark) => text.rsplitn(most + 1, mark).collect(),
        None => text.trim().rsplitn(most.saturating_add(1), char::is_whitespace).collect(),
    };
    if mark.is_none() {
        parts.iter_mut().for_each(|part| *part = part.trim());
        parts.retain(|part| !part.is_empty());
    }
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

fn index_of(list: &Value, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (&Value,) = from_args(args)?;
    let at = list.try_iter()?.position(|item| item == *wanted);
    at.map(Value::from).ok_or_else(|| not_found("value"))
}

fn not_found(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what} not found"))
}

fn swap_case(c: char) -> char {
    let swapped = if c.is_uppercase() { c.to_lowercase().next() } else { c.to_uppercase().next() };
    swapped.unwrap_or(c)
}

/// Python puts the odd place of `center` on the left of a text of odd length, and on the right of others.
fn padded(text: &str, method: &str, width: usize, fill: char) -> String {
    /// Templates write tables, no pages.
    const MOST: usize = 4_096;
    let missing = width.min(MOST).saturating_sub(text.chars().count());
    let before = match method {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    let space = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    space(before) + text + &space(missing - before)
}
