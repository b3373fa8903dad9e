//! The scheduler's configuration: made once, from the options; everything else is handed what it needs of it.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use baton_parsers::{ReasoningFormat, ToolFormat};
use baton_policy::{
    admission::Limits,
    profile::{self, Disaggregate, Profile},
    view::Objective,
};
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
    pub(crate) const MAX_QUEUED: u32 = 1024;
    pub(crate) const MAX_QUEUE_WAIT_S: u64 = 30;
    pub(crate) const KV_INDEX_MIB: u64 = 1024;
    pub(crate) const DECISIONS: u32 = 4096;
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
    /// How requests are routed.
    pub routing: RoutingConfig,
    /// Longest drain.
    pub drain_timeout: Duration,
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

/// How requests are routed.
#[derive(Clone, Debug, Serialize)]
pub struct RoutingConfig {
    /// File with filters, scorers, picker.
    pub profile: Option<PathBuf>,
    /// Who computes prompts, whatever the profile says.
    pub disaggregate: Option<Disaggregate>,
    /// Requests that wait to be let in.
    pub max_queued: u32,
    /// Longest that one waits.
    pub max_queue_wait: Duration,
    /// Time to first token of requests that do not say, in milliseconds.
    pub slo_ttft_ms: Option<u32>,
    /// Time per output token of requests that do not say, in milliseconds.
    pub slo_tpot_ms: Option<u32>,
    /// Most memory of the index of cached prefixes.
    pub kv_index_bytes: u64,
    /// Decisions kept.
    pub decisions: u32,
}

/// The routing profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It can't be read.
    #[error("cannot read the routing profile {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// It says what is not understood.
    #[error("the routing profile {} is not valid: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
}

impl RoutingConfig {
    /// Reads the profile, and says in the log what in it has no effect.
    pub(crate) fn load(&self) -> Result<Profile, ProfileError> {
        let mut profile = match &self.profile {
            None => Profile::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ProfileError::Unreadable { path: path.clone(), source })?;
                profile::parse(&text).map_err(|error| ProfileError::Invalid {
                    path: path.clone(),
                    reason: error.to_string(),
                })?
            }
        };
        if let Some(disaggregate) = self.disaggregate {
            profile.disaggregate = disaggregate;
        }
        for warning in profile::warnings(&profile) {
            tracing::warn!(warning, "routing profile");
        }
        Ok(profile)
    }

    /// Bounds of admission.
    pub(crate) fn admission(&self) -> Limits {
        Limits {
            queue_requests: self.max_queued as usize,
            max_wait_ms: self.max_queue_wait.as_secs_f64() * 1e3,
            objective: Objective {
                ttft_ms: self.slo_ttft_ms.map(f64::from),
                tpot_ms: self.slo_tpot_ms.map(f64::from),
            },
            ..Limits::default()
        }
    }
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
            routing: RoutingConfig {
                profile: args.routing_profile.clone(),
                disaggregate: if args.aggregated { Some(Disaggregate::Never) } else { args.disaggregate },
                max_queued: args.max_queued,
                max_queue_wait: Duration::from_secs(args.max_queue_wait),
                slo_ttft_ms: args.slo_ttft_ms,
                slo_tpot_ms: args.slo_tpot_ms,
                kv_index_bytes: args.kv_index_mib << 20,
                decisions: args.decisions,
            },
            drain_timeout: Duration::from_secs(args.drain_timeout),
        }
    }
}

impl Config {
    /// The configuration as JSON text, for `--print-config`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
