//! Command-line options of the scheduler.

use std::{net::SocketAddr, path::PathBuf};

use baton_front::FrontArgs;
use baton_policy::profile::Disaggregate;
use baton_tenancy::TenancyArgs;
use baton_tls::{FrontTlsArgs, TlsArgs};
use clap::Args;

use crate::config::defaults;

/// Options of `baton scheduler`: OpenAI HTTP front, worker registry and placement.
#[derive(Args, Clone, Debug)]
pub struct SchedulerArgs {
    /// Model folder in Hugging Face's format; the front needs its tokenizer and configuration, not its weights. A scheduler that only
    /// picks for gateways does without: --picker-listen and --served-model-name
    #[arg(long, env = "BATON_MODEL", value_name = "DIR", required_unless_present = "picker_listen")]
    pub model: Option<PathBuf>,

    /// Address of the OpenAI HTTP front; it answers /health, /ready and /metrics too
    #[arg(long, default_value_t = defaults::LISTEN, value_name = "ADDR:PORT")]
    pub listen: SocketAddr,

    /// Address of the worker registry (gRPC). Whoever reaches it can join the fleet
    #[arg(long, default_value_t = defaults::REGISTRY_LISTEN, value_name = "ADDR:PORT")]
    pub registry_listen: SocketAddr,

    /// Let clients load and unload LoRA adapters: POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them. Workers
    /// read any folder that a client names
    #[arg(long, env = "BATON_ALLOW_RUNTIME_LORA_UPDATING", requires = "model")]
    pub allow_runtime_lora_updating: bool,

    /// Address of the endpoint picker (gRPC, Envoy's ext_proc) that gateways ask; 0.0.0.0:9002 by convention. Default: none
    #[arg(long, env = "BATON_PICKER_LISTEN", value_name = "ADDR:PORT")]
    pub picker_listen: Option<SocketAddr>,

    /// Speak TLS with gateways, by --tls-cert, and want no certificate of theirs, as gateways expect of a picker. Default: as between
    /// components, mutual TLS with --tls-ca and plain text without
    #[arg(long, env = "BATON_PICKER_TLS", requires_all = ["picker_listen", "tls_cert"])]
    pub picker_tls: bool,

    /// Address of the endpoint picker's gRPC health service; port 9003 by convention. Default: none
    #[arg(long, env = "BATON_PICKER_HEALTH_LISTEN", value_name = "ADDR:PORT", requires = "picker_listen")]
    pub picker_health_listen: Option<SocketAddr>,

    /// Address of another listener for /metrics, /health and /ready, as for a picker whose front nobody else may reach; port 9090 by
    /// convention. Default: only the front answers them
    #[arg(long, env = "BATON_ADMIN_LISTEN", value_name = "ADDR:PORT")]
    pub admin_listen: Option<SocketAddr>,

    /// Model servers that do not register themselves (vLLM, SGLang), from a YAML file that is read again when it changes: gateways get
    /// them, too
    #[arg(long, env = "BATON_SERVERS", value_name = "FILE", requires = "picker_listen")]
    pub servers: Option<PathBuf>,

    /// The same, from the pods of an InferencePool: NAME, or NAMESPACE/NAME. Uses the pod's service account, else the kubeconfig
    #[arg(
        long,
        env = "BATON_INFERENCE_POOL",
        value_name = "[NAMESPACE/]NAME",
        requires = "picker_listen",
        conflicts_with = "servers"
    )]
    pub inference_pool: Option<String>,

    /// Port on which the pool's servers publish KV events; 5557 by convention. Default: they do not
    #[arg(long, value_name = "PORT", requires = "inference_pool")]
    pub pool_kv_events_port: Option<u16>,

    /// Port on which the pool's servers replay KV events that were missed. Default: they do not
    #[arg(long, value_name = "PORT", requires = "pool_kv_events_port")]
    pub pool_kv_replay_port: Option<u16>,

    /// Between two readings of a server's metrics page
    #[arg(long, default_value_t = defaults::SCRAPE_MS, value_name = "MS", value_parser = clap::value_parser!(u64).range(20..=10_000))]
    pub scrape_ms: u64,

    /// Prompts of gateways of up to so much text are looked at token by token; longer ones are compared by their text, which is much
    /// quicker
    #[arg(long, default_value_t = defaults::PICKER_ENCODED_KIB, value_name = "KIB")]
    pub picker_encoded_kib: u32,

    /// Obey the header by which the conformance tests of the Gateway API Inference Extension choose endpoints, and show them who
    /// served. Any client could choose endpoints so: for tests alone
    #[arg(long, hide_short_help = true, requires = "picker_listen")]
    pub picker_conformance: bool,

    /// Expect no prefill workers: decode workers prefill for themselves
    #[arg(long)]
    pub aggregated: bool,

    /// How requests are routed: a YAML file with filters, scorers, picker and when to disaggregate. Default: to where it costs least
    /// time, by an estimate that is learned
    #[arg(long, env = "BATON_ROUTING_PROFILE", value_name = "FILE")]
    pub routing_profile: Option<PathBuf>,

    /// Who computes prompts, whatever the profile says: estimate (whatever costs less), always or never a prefill worker, or a number:
    /// a prefill worker from so many uncached tokens on
    #[arg(long, env = "BATON_DISAGGREGATE", value_name = "MODE", value_parser = parse_disaggregate, conflicts_with = "aggregated")]
    pub disaggregate: Option<Disaggregate>,

    /// Requests that wait to be let in, at most; beyond it the least urgent are answered 429
    #[arg(long, default_value_t = defaults::MAX_QUEUED, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub max_queued: u32,

    /// Longest that a request waits to be let in
    #[arg(long, default_value_t = defaults::MAX_QUEUE_WAIT_S, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_queue_wait: u64,

    /// Time to first token that requests are promised which do not say (x-llm-d-slo-ttft-ms): what can't keep it is answered 429 at
    /// once. Default: none
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub slo_ttft_ms: Option<u32>,

    /// Time per output token that requests are promised which do not say (x-llm-d-slo-tpot-ms). Default: none
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub slo_tpot_ms: Option<u32>,

    /// Priority of requests that name this objective (x-llm-d-inference-objective), such as batch=-10; the higher, the sooner, and the
    /// lowest are refused first. Several may follow; others have 0
    #[arg(long, value_name = "NAME=PRIORITY", value_delimiter = ',', value_parser = parse_objective)]
    pub objective: Vec<(String, i32)>,

    /// Memory for the index of cached prefixes at most; beyond it the oldest are forgotten
    #[arg(long, default_value_t = defaults::KV_INDEX_MIB, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub kv_index_mib: u64,

    /// Decisions that are kept for `baton explain`
    #[arg(long, default_value_t = defaults::DECISIONS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub decisions: u32,

    /// Append each decision to this file, too, as a JSON line, with what then happened. It may be moved away: a new one is begun
    #[arg(long, env = "BATON_DECISION_LOG", value_name = "FILE")]
    pub decision_log: Option<PathBuf>,

    /// Memory for the record of the last requests' times, lengths and shared beginnings (no text), which GET /v1/traffic gives to `baton tune`;
    /// a request takes about 100 bytes and 8 more for each 64 to 512 tokens of its prompt. 0: none is kept
    #[arg(long, default_value_t = defaults::TRAFFIC_MIB, value_name = "MIB", value_parser = clap::value_parser!(u64).range(0..=65_536))]
    pub traffic_mib: u64,

    /// Context that every worker must have been started with. Default: as the workers say
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_context: Option<u32>,

    /// Of the HTTP front.
    #[command(flatten)]
    pub front: FrontArgs,

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

    /// Other servers with OpenAI's API that serve what the pool can't, by model: a YAML file with their URLs and where their keys are
    #[arg(long, env = "BATON_UPSTREAM", value_name = "FILE", requires = "model")]
    pub upstream: Option<PathBuf>,

    /// Who may ask, and how much.
    #[command(flatten)]
    pub tenancy: TenancyArgs,

    /// TLS of listeners and calls.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// TLS of the front, where it differs.
    #[command(flatten)]
    pub front_tls: FrontTlsArgs,
}

fn parse_disaggregate(text: &str) -> Result<Disaggregate, String> {
    match text {
        "estimate" => Ok(Disaggregate::Estimate),
        "always" => Ok(Disaggregate::Always),
        "never" => Ok(Disaggregate::Never),
        number => match number.parse() {
            Ok(uncached_tokens) => Ok(Disaggregate::Threshold { uncached_tokens }),
            Err(_) => Err("use estimate, always, never, or a number of tokens".to_owned()),
        },
    }
}

fn parse_objective(text: &str) -> Result<(String, i32), String> {
    let parsed = text.split_once('=').and_then(|(name, priority)| Some((name, priority.parse().ok()?)));
    match parsed {
        Some((name, priority)) if !name.is_empty() => Ok((name.to_owned(), priority)),
        _ => Err("use NAME=PRIORITY with a whole number, such as batch=-10".to_owned()),
    }
}
