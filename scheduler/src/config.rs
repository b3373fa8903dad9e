//! The scheduler's configuration: made once, from the options; everything else is handed what it needs of it.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use baton_parsers::{ReasoningFormat, ToolFormat};
use baton_tls::{FrontTlsArgs, TlsArgs};
use serde::Serialize;

use crate::SchedulerArgs;

/// What holds when nobody says otherwise; written here and nowhere else.
pub(crate) mod defaults {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    pub(crate) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
    pub(crate) const REGISTRY_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8100);
    pub(crate) const MAX_INFLIGHT: u32 = 1024;
    pub(crate) const MAX_BODY_BYTES: u64 = 32 << 20;
    pub(crate) const MAX_CHOICES: u32 = 128;
    pub(crate) const REQUEST_TIMEOUT_S: u64 = 600;
    pub(crate) const RETRIES: u32 = 1;
    pub(crate) const DRAIN_TIMEOUT_S: u64 = 30;
    pub(crate) const WORKER_TTL_MS: u64 = 800;
    pub(crate) const WORKER_GRACE_MS: u64 = 600;
    pub(crate) const MAX_WORKERS: u32 = 4096;
}

/// The scheduler's configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// Model folder.
    pub model: PathBuf,
    /// Names that clients may ask for; the first one is shown. Never empty.
    pub served_model_names: Vec<String>,
    /// Address of the HTTP front.
    pub listen: SocketAddr,
    /// Address of the registry.
    pub registry_listen: SocketAddr,
    /// How the model writes tool calls.
    pub tool_call_parser: FormatChoice<ToolFormat>,
    /// How the model marks its reasoning.
    pub reasoning_parser: FormatChoice<ReasoningFormat>,
    /// Whether clients may load and unload adapters.
    pub allow_runtime_lora_updating: bool,
    /// Whether no prefill workers are expected.
    pub aggregated: bool,
    /// Context that workers must have been started with.
    pub max_context_tokens: Option<u32>,
    /// Limits on requests.
    pub limits: RequestLimits,
    /// Limits on the fleet.
    pub fleet: FleetLimits,
    /// Longest drain.
    pub drain_timeout: Duration,
    /// TLS of all listeners and calls.
    pub tls: TlsArgs,
    /// TLS of the front, where it differs.
    pub front_tls: FrontTlsArgs,
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
    /// Further decode workers tried.
    pub retries: u32,
}

/// Limits on the fleet.
#[derive(Clone, Debug, Serialize)]
pub struct FleetLimits {
    /// Silence after which a worker is gone.
    pub ttl: Duration,
    /// Time that a gone worker's requests wait for it.
    pub grace: Duration,
    /// Workers at most.
    pub max_workers: usize,
}

impl From<&SchedulerArgs> for Config {
    fn from(args: &SchedulerArgs) -> Self {
        let mut served_model_names = args.served_model_name.clone();
        if served_model_names.is_empty() {
            served_model_names.push(baton_tokenizer::served_name(&args.model));
        }
        Self {
            model: args.model.clone(),
            served_model_names,
            listen: args.listen,
            registry_listen: args.registry_listen,
            tool_call_parser: args.tool_call_parser,
            reasoning_parser: args.reasoning_parser,
            allow_runtime_lora_updating: args.allow_runtime_lora_updating,
            aggregated: args.aggregated,
            max_context_tokens: args.max_context,
            limits: RequestLimits {
                max_inflight: args.max_inflight,
                max_body_bytes: args.max_body_bytes,
                max_choices: args.max_choices,
                timeout: Duration::from_secs(args.request_timeout),
                body_timeout: Duration::from_secs(30),
                retries: args.retries,
            },
            fleet: FleetLimits {
                ttl: Duration::from_millis(args.worker_ttl_ms),
                grace: Duration::from_millis(args.worker_grace_ms),
                max_workers: usize::try_from(args.max_workers).unwrap_or(usize::MAX),
            },
            drain_timeout: Duration::from_secs(args.drain_timeout),
            tls: args.tls.clone(),
            front_tls: args.front_tls.clone(),
        }
    }
}

impl Config {
    /// The configuration as JSON text, for `--print-config`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
