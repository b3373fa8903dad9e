//! A JSON object taken apart field by field. Each refusal names the field, what it must be, and what it is.

use std::ops::RangeInclusive;

use baton_grammar::Refusal;
use serde_json::{Map, Value};

/// A field that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {problem}")]
pub(crate) struct InvalidField {
    pub(crate) param: String,
    pub(crate) problem: String,
}

impl InvalidField {
    pub(crate) fn new(param: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { param: param.into(), problem: problem.into() }
    }

    /// What is wrong with a part of `param`.
    pub(crate) fn within(param: &str, Refusal { path, problem }: Refusal) -> Self {
        let dot = if path.is_empty() { "" } else { "." };
        Self::new(format!("{param}{dot}{path}"), problem)
    }

    /// `expected` names a type or a range.
    pub(crate) fn expected(param: impl Into<String>, expected: &str, found: &Value) -> Self {
        Self::new(param, format!("expected {expected}, got {}", describe(found)))
    }
}

/// The fields that are left; those nobody takes are ignored, as clients expect. `null` counts as absent.
pub(crate) struct Fields(pub(crate) Map<String, Value>);

impl Fields {
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, InvalidField> {
        self.typed(name, "true or false", |value| value.as_bool())
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, InvalidField> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(InvalidField::expected(name, "a string", &other)),
        }
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, InvalidField> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(InvalidField::expected(name, "an object", &other)),
        }
    }

    pub(crate) fn array(&mut self, name: &str) -> Result<Option<Vec<Value>>, InvalidField> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(InvalidField::expected(name, "an array", &other)),
        }
    }

    pub(crate) fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, InvalidField> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.typed(name, &expected, |value| value.as_f64().filter(|number| range.contains(number)))
    }

    /// `10.0` is an integer too: some clients know no other numbers.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<i128>,
    ) -> Result<Option<i128>, InvalidField> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.typed(name, &expected, |value| as_integer(value).filter(|number| range.contains(number)))
    }

    pub(crate) fn uint(
        &mut self,
        name: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, InvalidField> {
        let range = i128::from(*range.start())..=i128::from(*range.end());
        Ok(self.integer(name, range)?.and_then(|number| u32::try_from(number).ok()))
    }

    fn typed<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, InvalidField> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| InvalidField::expected(name, expected, &value))
    }
}

/// The value as an integer, if it is one.
pub(crate) fn as_integer(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    if let Some(integer) = number.as_i128() {
        return Some(integer);
    }
    let float = number.as_f64()?;
    // Beyond 2^53 a float does not say which integer is meant.
    let is_exact = float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be a whole number below 2^53")]
    is_exact.then_some(float as i128)
}

/// A list of token ids below `vocab_size`; `param` names it in a refusal.
pub(crate) fn token_ids(items: &[Value], param: &str, vocab_size: u32) -> Result<Vec<u32>, InvalidField> {
    let expected = format!("a token id from 0 to {}", vocab_size.saturating_sub(1));
    let id =
        |value: &Value| as_integer(value).and_then(|id| u32::try_from(id).ok()).filter(|&id| id < vocab_size);
    let items = items.iter().enumerate();
    items
        .map(|(at, value)| {
            id(value).ok_or_else(|| InvalidField::expected(format!("{param}[{at}]"), &expected, value))
        })
        .collect()
}

/// What a value is, short enough for an error message.
pub(crate) fn describe(value: &Value) -> String {
    const MOST_CHARS: usize = 40;
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() <= MOST_CHARS => format!("the string {text:?}"),
        Value::String(_) => "a long string".to_owned(),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        let Value::Object(map) = value else { panic!("an object") };
        Fields(map)
    }

    #[test]
    fn integers_may_be_written_as_floats_and_must_be_in_range() {
        let check = |value: Value, expected: Result<Option<u32>, &str>| {
            let found = fields(json!({"n": value})).uint("n", 1..=9).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        check(json!(3), Ok(Some(3)));
        check(json!(3.0), Ok(Some(3)));
        check(json!(null), Ok(None));
        check(json!(3.5), Err("n: expected an integer from 1 to 9, got 3.5"));
        check(json!(0), Err("n: expected an integer from 1 to 9, got 0"));
        check(json!(-1), Err("n: expected an integer from 1 to 9, got -1"));
        check(json!(1e300), Err("n: expected an integer from 1 to 9, got 1e+300"));
        check(json!("3"), Err("n: expected an integer from 1 to 9, got the string \"3\""));
        check(json!([1]), Err("n: expected an integer from 1 to 9, got an array of 1"));
    }

    #[test]
    fn a_token_id_outside_the_vocabulary_is_named_by_its_place() {
        assert_eq!(token_ids(&[json!(0), json!(9)], "prompt", 10), Ok(vec![0, 9]));
        let error = token_ids(&[json!(0), json!(10)], "prompt", 10).unwrap_err().to_string();
        assert_eq!(error, "prompt[1]: expected a token id from 0 to 9, got 10");
    }
}
