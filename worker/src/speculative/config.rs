//! `--speculative-config`: JSON with vLLM's keys.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use baton_engine::MAX_DRAFT_TOKENS;
use serde::Deserialize;

const EXAMPLE: &str = r#"{"method": "ngram", "num_speculative_tokens": 4}"#;
/// n-grams when nobody says how long, as in vLLM.
const LOOKUP_TOKENS: usize = 5;
/// Longest n-gram: each length takes an index of its own.
const MOST_LOOKUP_TOKENS: usize = 16;

/// What to decode with, beside the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeculativeConfig {
    /// Who proposes.
    pub(crate) method: Method,
    /// Most tokens drafted in a step.
    pub(crate) draft_tokens: usize,
    /// Whether fewer are drafted where it does not pay.
    pub(crate) is_adaptive: bool,
}

/// Who proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// The sequence's own tokens.
    Ngram { least: usize, most: usize },
    /// The model in this folder.
    DraftModel(PathBuf),
}

/// The value of `--speculative-config` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpeculativeConfigError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    method: Option<String>,
    model: Option<PathBuf>,
    num_speculative_tokens: Option<usize>,
    prompt_lookup_min: Option<usize>,
    prompt_lookup_max: Option<usize>,
    adaptive: Option<bool>,
}

impl FromStr for SpeculativeConfig {
    type Err = SpeculativeConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let json: Json = serde_json::from_str(text).map_err(|error| {
            let is_no_json = error.is_syntax() || error.is_eof();
            refused(if is_no_json {
                format!("it is no JSON ({error}); write for example {EXAMPLE}")
            } else {
                error.to_string()
            })
        })?;
        let method = match (json.method.as_deref(), &json.model) {
            (Some("ngram"), None) => json.ngram()?,
            (Some("draft_model") | None, Some(folder)) => json.draft_model(folder)?,
            (Some("ngram"), Some(_)) => return Err(refused("method ngram takes no model")),
            (Some("draft_model"), None) => {
                return Err(refused("method draft_model needs \"model\", the folder of the draft model"));
            }
            (Some(other), _) => {
                return Err(refused(format!("method {other:?} is not supported; use ngram or draft_model")));
            }
            (None, None) => return Err(refused("there is neither a method nor a model")),
        };
        let draft_tokens =
            json.num_speculative_tokens.ok_or_else(|| refused("num_speculative_tokens is missing"))?;
        check_range("num_speculative_tokens", draft_tokens, MAX_DRAFT_TOKENS)?;
        Ok(Self { method, draft_tokens, is_adaptive: json.adaptive.unwrap_or(true) })
    }
}

impl Json {
    fn ngram(&self) -> Result<Method, SpeculativeConfigError> {
        let (least, most) = match (self.prompt_lookup_min, self.prompt_lookup_max) {
            (None, None) => (LOOKUP_TOKENS, LOOKUP_TOKENS),
            (Some(one), None) | (None, Some(one)) => (one, one),
            (Some(least), Some(most)) => (least, most),
        };
        check_range("prompt_lookup_max", most, MOST_LOOKUP_TOKENS)?;
        check_range("prompt_lookup_min", least, most)?;
        Ok(Method::Ngram { least, most })
    }

    fn draft_model(&self, folder: &Path) -> Result<Method, SpeculativeConfigError> {
        if self.prompt_lookup_min.is_some() || self.prompt_lookup_max.is_some() {
            return Err(refused("prompt_lookup_min and prompt_lookup_max are for method ngram"));
        }
        Ok(Method::DraftModel(folder.to_owned()))
    }
}

fn check_range(key: &str, value: usize, most: usize) -> Result<(), SpeculativeConfigError> {
    if (1..=most).contains(&value) {
        Ok(())
    } else {
        Err(refused(format!("{key} is {value}, it must be between 1 and {most}")))
    }
}

fn refused(why: impl Into<String>) -> SpeculativeConfigError {
    SpeculativeConfigError(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, method: Method, draft_tokens: usize, is_adaptive: bool) {
        assert_eq!(text.parse(), Ok(SpeculativeConfig { method, draft_tokens, is_adaptive }));
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let error = text.parse::<SpeculativeConfig>().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn it_is_spelled_as_in_vllm() {
        let ngram = |least, most| Method::Ngram { least, most };
        check(
            r#"{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_min":2,"prompt_lookup_max":5}"#,
            ngram(2, 5),
            4,
            true,
        );
        check(r#"{"method":"ngram","num_speculative_tokens":1}"#, ngram(5, 5), 1, true);
        check(r#"{"method":"ngram","num_speculative_tokens":3,"prompt_lookup_max":3}"#, ngram(3, 3), 3, true);
        let model = || Method::DraftModel("/models/small".into());
        check(
            r#"{"method":"draft_model","model":"/models/small","num_speculative_tokens":4}"#,
            model(),
            4,
            true,
        );
        check(
            r#"{"model":"/models/small","num_speculative_tokens":16,"adaptive":false}"#,
            model(),
            16,
            false,
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        check_refused("ngram", r#"write for example {"method": "#);
        check_refused(r#"{"method":"ngram""#, "it is no JSON");
        check_refused(
            r#"{"method":"ngram","num_speculative_tokens":4,"prompt_lookup":3}"#,
            "`prompt_lookup`",
        );
        check_refused(r#"{"method":"ngram"}"#, "num_speculative_tokens is missing");
        check_refused(
            r#"{"method":"ngram","num_speculative_tokens":17}"#,
            "num_speculative_tokens is 17, it must be between 1 and 16",
        );
        check_refused(
            r#"{"method":"ngram","num_speculative_tokens":0}"#,
            "num_speculative_tokens is 0, it must be between 1 and 16",
        );
        check_refused(
            r#"{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_min":4,"prompt_lookup_max":3}"#,
            "prompt_lookup_min is 4, it must be between 1 and 3",
        );
        check_refused(r#"{"method":"eagle","num_speculative_tokens":4}"#, "use ngram or draft_model");
        check_refused(r#"{"method":"draft_model","num_speculative_tokens":4}"#, "needs \"model\"");
        check_refused(r#"{"num_speculative_tokens":4}"#, "neither a method nor a model");
        check_refused(
            r#"{"model":"m","num_speculative_tokens":4,"prompt_lookup_max":3}"#,
            "are for method ngram",
        );
    }
}
