//! Reading `config.json`: each setting checked once, with an error that names it.

use serde_json::Value;

use super::LoadError;

/// The settings of a model folder.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'a>(pub(super) &'a Value);

impl Settings<'_> {
    /// The value of `field`, null if it is not there.
    pub(super) fn value(&self, field: &str) -> &Value {
        &self.0[field]
    }

    /// Whether `field` is there, null or not.
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.get(field).is_some()
    }

    /// A size that must be there. Bounded, so that products of a few of them cannot overflow.
    pub(super) fn size(&self, field: &'static str) -> Result<usize, LoadError> {
        let value = self.value(field);
        if value.is_null() {
            return Err(missing(field));
        }
        match value.as_u64() {
            Some(n @ 1..=0xff_ffff) => Ok(n as usize),
            _ => Err(config(field, format!("is {value}, not a number from 1 to {}", 0xff_ffff))),
        }
    }

    pub(super) fn size_or(&self, field: &'static str, default: usize) -> Result<usize, LoadError> {
        if self.value(field).is_null() { Ok(default) } else { self.size(field) }
    }

    /// A size that matrices of `multiple` elements at a time can have.
    pub(super) fn width(&self, field: &'static str, multiple: usize) -> Result<usize, LoadError> {
        let width = self.size(field)?;
        if width.is_multiple_of(multiple) {
            return Ok(width);
        }
        let problem = match multiple {
            2 => format!("{width} is odd; the bf16 kernels take elements in pairs"),
            _ => format!("{width} is not a multiple of {multiple}"),
        };
        Err(config(field, problem))
    }

    pub(super) fn number_or(&self, field: &'static str, default: f64) -> Result<f64, LoadError> {
        positive(self.value(field), field, default)
    }

    pub(super) fn flag_or(&self, field: &str, default: bool) -> bool {
        self.value(field).as_bool().unwrap_or(default)
    }

    /// Refuses settings that are true and would change the arithmetic in a way that the family has no code for.
    pub(super) fn refuse_true(&self, fields: &[&'static str]) -> Result<(), LoadError> {
        match fields.iter().find(|field| self.flag_or(field, false)) {
            Some(field) => Err(unsupported(field, "true".to_owned(), "false")),
            None => Ok(()),
        }
    }

    /// Refuses a model some of whose layers do not see the whole context.
    pub(super) fn only_full_attention(&self) -> Result<(), LoadError> {
        let types = self.value("layer_types").as_array().map_or(&[][..], Vec::as_slice);
        match types.iter().find(|t| t.as_str() != Some("full_attention")) {
            Some(other) => Err(unsupported("layer_types", other.to_string(), "full_attention")),
            None => Ok(()),
        }
    }
}

fn missing(field: &'static str) -> LoadError {
    config(field, "is missing".to_owned())
}

pub(super) fn config(field: &'static str, problem: String) -> LoadError {
    LoadError::Config { field, problem }
}

pub(super) fn unsupported(field: &'static str, found: String, supported: &'static str) -> LoadError {
    LoadError::UnsupportedSetting { field, found, supported }
}

/// `value` as a positive number, `default` if it is not there.
pub(super) fn positive(value: &Value, field: &'static str, default: f64) -> Result<f64, LoadError> {
    if value.is_null() {
        return Ok(default);
    }
    match value.as_f64() {
        Some(x) if x > 0.0 && x.is_finite() => Ok(x),
        _ => Err(config(field, format!("is {value}, not a positive number"))),
    }
}
