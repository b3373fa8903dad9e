//! The front's configuration: made once, from the options; everything else is handed what it needs of it.

use std::{path::Path, str::FromStr, time::Duration};

use baton_parsers::{ReasoningFormat, ToolFormat};
use serde::Serialize;

use crate::FrontArgs;

/// What holds when nobody says otherwise; written here and nowhere else.
pub(crate) mod defaults {
    pub(crate) const MAX_INFLIGHT: u32 = 1024;
    pub(crate) const MAX_BODY_BYTES: u64 = 32 << 20;
    pub(crate) const MAX_CHOICES: u32 = 128;
    pub(crate) const REQUEST_TIMEOUT_S: u64 = 600;
}

/// The front's configuration.
#[derive(Clone, Debug, Serialize)]
pub struct FrontConfig {
    /// Names that clients may ask for; the first one is shown.
    pub served_model_names: Vec<String>,
    /// How the model writes tool calls.
    pub tool_call_parser: FormatChoice<ToolFormat>,
    /// How the model marks its reasoning.
    pub reasoning_parser: FormatChoice<ReasoningFormat>,
    /// Whether clients may load and unload adapters.
    pub allow_runtime_lora_updating: bool,
    /// Limits on requests.
    pub limits: RequestLimits,
}

/// Who says what format a model writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FormatChoice<T> {
    /// Its chat template.
    Auto,
    /// It writes none that is to be taken apart.
    None,
    /// The operator.
    Is(T),
}

impl<T: FromStr> FormatChoice<T> {
    pub(crate) fn parse(text: &str) -> Result<Self, T::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            format => format.parse().map(Self::Is),
        }
    }

    /// The format, where the template says `detected`.
    pub(crate) fn or(self, detected: Option<T>) -> Option<T> {
        match self {
            Self::Auto => detected,
            Self::None => None,
            Self::Is(format) => Some(format),
        }
    }
}

/// Limits on requests.
#[derive(Clone, Debug, Serialize)]
pub struct RequestLimits {
    /// Completions in flight at once.
    pub max_inflight: u32,
    /// Largest body.
    pub max_body_bytes: u64,
    /// Completions that one request may ask for.
    pub max_choices: u32,
    /// Longest that one request may take.
    pub timeout: Duration,
    /// Longest that a body may take to arrive.
    pub body_timeout: Duration,
}

impl FrontConfig {
    /// Of the options, for the model in the folder `model`, which is called after it where nobody says otherwise; nobody may load
    /// adapters.
    pub fn new(model: Option<&Path>, args: &FrontArgs) -> Self {
        let mut served_model_names = args.served_model_name.clone();
        if served_model_names.is_empty() {
            served_model_names.extend(model.map(baton_tokenizer::served_name));
        }
        Self {
            served_model_names,
            tool_call_parser: args.tool_call_parser,
            reasoning_parser: args.reasoning_parser,
            allow_runtime_lora_updating: false,
            limits: RequestLimits {
                max_inflight: args.max_inflight,
                max_body_bytes: args.max_body_bytes,
                max_choices: args.max_choices,
                timeout: Duration::from_secs(args.request_timeout),
                body_timeout: Duration::from_secs(30),
            },
        }
    }

    /// The name that is shown.
    pub fn shown_name(&self) -> &str {
        self.served_model_names.first().map_or("", String::as_str)
    }
}
