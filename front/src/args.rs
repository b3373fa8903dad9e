//! Options of the front, for the commands that have one.

use baton_parsers::{ReasoningFormat, ToolFormat};
use clap::Args;

use crate::config::{FormatChoice, defaults};

/// Options of the OpenAI HTTP front.
#[derive(Args, Clone, Debug)]
pub struct FrontArgs {
    /// Name that clients ask for; several are aliases. Default: the model folder's name, or its hub id
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub served_model_name: Vec<String>,

    /// How the model writes tool calls: hermes, qwen3_coder, llama3_json, mistral or harmony; auto: by its chat template; none: not at all
    #[arg(long, default_value = "auto", value_name = "FORMAT", value_parser = FormatChoice::<ToolFormat>::parse)]
    pub tool_call_parser: FormatChoice<ToolFormat>,

    /// How the model marks its reasoning: think or harmony; auto: by its chat template; none: all is content
    #[arg(long, default_value = "auto", value_name = "FORMAT", value_parser = FormatChoice::<ReasoningFormat>::parse)]
    pub reasoning_parser: FormatChoice<ReasoningFormat>,

    /// Completions in flight at once, over all requests; more are answered 429
    #[arg(long, default_value_t = defaults::MAX_INFLIGHT, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_inflight: u32,

    /// Largest request body; larger ones are answered 413
    #[arg(long, default_value_t = defaults::MAX_BODY_BYTES, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_body_bytes: u64,

    /// Completions that one request may ask for: `n` times its prompts
    #[arg(long, default_value_t = defaults::MAX_CHOICES, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_choices: u32,

    /// Longest that one request may take, queueing included
    #[arg(long, default_value_t = defaults::REQUEST_TIMEOUT_S, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub request_timeout: u64,
}
