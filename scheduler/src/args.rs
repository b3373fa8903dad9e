//! Command-line options of the scheduler.

use std::{net::SocketAddr, path::PathBuf};

use baton_parsers::{ReasoningFormat, ToolFormat};
use baton_tls::{FrontTlsArgs, TlsArgs};
use clap::Args;

use crate::config::{FormatChoice, defaults};

/// Options of `baton scheduler`: OpenAI HTTP front, worker registry and placement.
#[derive(Args, Clone, Debug)]
pub struct SchedulerArgs {
    /// Model folder in Hugging Face's format; the front needs its tokenizer and configuration, not its weights
    #[arg(long, env = "BATON_MODEL", value_name = "DIR")]
    pub model: PathBuf,

    /// Name that clients ask for; several are aliases. Default: the model folder's name, or its hub id
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub served_model_name: Vec<String>,

    /// Address of the OpenAI HTTP front; it answers /health, /ready and /metrics too
    #[arg(long, default_value_t = defaults::LISTEN, value_name = "ADDR:PORT")]
    pub listen: SocketAddr,

    /// Address of the worker registry (gRPC). Whoever reaches it can join the fleet
    #[arg(long, default_value_t = defaults::REGISTRY_LISTEN, value_name = "ADDR:PORT")]
    pub registry_listen: SocketAddr,

    /// How the model writes tool calls: hermes, qwen3_coder, llama3_json, mistral or harmony; auto: by its chat template; none: not at all
    #[arg(long, default_value = "auto", value_name = "FORMAT", value_parser = FormatChoice::<ToolFormat>::parse)]
    pub tool_call_parser: FormatChoice<ToolFormat>,

    /// How the model marks its reasoning: think or harmony; auto: by its chat template; none: all is content
    #[arg(long, default_value = "auto", value_name = "FORMAT", value_parser = FormatChoice::<ReasoningFormat>::parse)]
    pub reasoning_parser: FormatChoice<ReasoningFormat>,

    /// Let clients load and unload LoRA adapters: POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them. Workers
    /// read any folder that a client names
    #[arg(long, env = "BATON_ALLOW_RUNTIME_LORA_UPDATING")]
    pub allow_runtime_lora_updating: bool,

    /// Expect no prefill workers: decode workers prefill for themselves
    #[arg(long)]
    pub aggregated: bool,

    /// Context that every worker must have been started with. Default: as the workers say
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_context: Option<u32>,

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

    /// Other decode workers that are tried when one fails before its first token
    #[arg(long, default_value_t = defaults::RETRIES, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=8))]
    pub retries: u32,

    /// Longest that requests in flight may take to end once the scheduler is told to stop
    #[arg(long, default_value_t = defaults::DRAIN_TIMEOUT_S, value_name = "SECONDS")]
    pub drain_timeout: u64,

    /// Silence after which a worker is taken for gone; workers report five times a second
    #[arg(long, default_value_t = defaults::WORKER_TTL_MS, value_name = "MS", value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub worker_ttl_ms: u64,

    /// How long requests on a worker that has gone wait for it to come back before they fail
    #[arg(long, default_value_t = defaults::WORKER_GRACE_MS, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub worker_grace_ms: u64,

    /// Workers in the fleet at most
    #[arg(long, default_value_t = defaults::MAX_WORKERS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_workers: u32,

    /// Print the configuration in force as JSON, and exit
    #[arg(long)]
    pub print_config: bool,

    /// TLS of listeners and calls.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// TLS of the front, where it differs.
    #[command(flatten)]
    pub front_tls: FrontTlsArgs,
}
