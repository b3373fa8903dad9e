//! Options of `baton up`; their defaults are written here and nowhere else.

use std::{net::IpAddr, path::PathBuf};

use baton_hub::HubArgs;
use baton_kv_transfer::FabricSpec;
use baton_tenancy::TenancyArgs;
use baton_worker::{SpeculativeConfig, SpeculativeConfigError};
use clap::{Args, value_parser};

use super::{kv_events::KvEventOptions, tls::UpTlsOptions, worker_args::WorkerOptions};

/// Options of `baton up`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  baton up                                          the bundled model, one prefill and one decode worker
  baton up --model Qwen/Qwen3-0.6B                  a model from the hub, downloaded once
  baton up --model ./my-model --prefill 2           a local folder, two prefill workers
  baton up --prefill 0                              aggregated: decode workers prefill for themselves
  baton up --fabric libfabric:tcp                   KV cache over libfabric's tcp provider
  baton up --api-keys-file keys.yaml                for who has a key (`baton key new`)
  baton up --tls                                    HTTPS and mutual TLS with a development CA
  baton up --print-config                           show what would be started

Once `ready http://…` is printed, ask it something:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d \\
    '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'

Ctrl-C lets running requests end, then stops everything; a second Ctrl-C stops at once.")]
pub(crate) struct UpArgs {
    /// Model folder, or hub id `org/name[@revision]` [default: the bundled model]
    #[arg(long, env = "BATON_MODEL", value_name = "DIR|HUB_ID")]
    pub(crate) model: Option<String>,

    /// Name that clients ask for [default: the folder's name or the hub id]
    #[arg(long, env = "BATON_SERVED_MODEL_NAME", value_name = "NAME")]
    pub(crate) served_model_name: Option<String>,

    /// Prefill workers; 0: decode workers prefill for themselves (aggregated serving)
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = value_parser!(u16).range(0..=64))]
    pub(crate) prefill: u16,

    /// Decode workers, each with a sidecar
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = value_parser!(u16).range(1..=64))]
    pub(crate) decode: u16,

    /// Schedulers, each with a front of its own that serves all workers: the first on --port, the others on the ports after it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = value_parser!(u16).range(1..=16))]
    pub(crate) schedulers: u16,

    /// What carries the KV cache from prefill to decode: shm, libfabric, ucx or nixl (libfabric:PROVIDER, ucx:TRANSPORTS, nixl:BACKEND to choose)
    #[arg(long, env = "BATON_FABRIC", default_value = "shm", value_name = "FABRIC")]
    pub(crate) fabric: FabricSpec,

    /// Where libfabric.so.1 is [default: where the system's loader finds it]
    #[arg(long, env = "BATON_LIBFABRIC", value_name = "PATH")]
    pub(crate) libfabric: Option<PathBuf>,

    /// NICs (by libfabric's name) or IP addresses that carry KV blocks over libfabric, such as 127.0.0.2,127.0.0.3
    /// [default: EFA's near this process's memory; else one endpoint on the address that is listened on]
    #[arg(long, env = "BATON_RAILS", value_name = "NAME", value_delimiter = ',')]
    pub(crate) rails: Vec<String>,

    /// Where NIXL's libnixl_capi.so is: the file, its folder, or the site-packages with NIXL [default: where the loader finds it]
    #[arg(long, env = "BATON_NIXL", value_name = "PATH")]
    pub(crate) nixl: Option<PathBuf>,

    /// Where libucp.so.0 is [default: where the system's loader finds it]
    #[arg(long, env = "BATON_UCX", value_name = "PATH")]
    pub(crate) ucx: Option<PathBuf>,

    /// Address that the front listens on
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub(crate) host: IpAddr,

    /// Port that the front listens on; 0: any free one
    #[arg(long, default_value_t = 8000, value_name = "PORT")]
    pub(crate) port: u16,

    /// Compute threads of each worker [default: the machine's cores shared by the workers]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// LoRA adapters, folders as PEFT saves them, that requests may select by name; several may follow
    #[arg(long, value_name = "NAME=DIR", num_args = 1..)]
    pub(crate) lora_modules: Vec<String>,

    /// Adapters loaded at a time [default: 64]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    pub(crate) max_loras: Option<u16>,

    /// Let clients load and unload adapters: POST /v1/load_lora_adapter, /v1/unload_lora_adapter. Workers read any folder they name
    #[arg(long)]
    pub(crate) allow_runtime_lora_updating: bool,

    /// Decode several tokens a step from drafts, the same tokens in less time: JSON as vLLM takes it, such as
    /// {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2, "prompt_lookup_max": 5} or
    /// {"method": "draft_model", "model": DIR, "num_speculative_tokens": 4}
    #[arg(long, value_name = "JSON", value_parser = checked_speculative_config)]
    pub(crate) speculative_config: Option<String>,

    /// Longest prompt plus answer in tokens [default: the model's]
    #[arg(long, value_name = "TOKENS", value_parser = value_parser!(u32).range(1..))]
    pub(crate) max_context: Option<u32>,

    /// Who computes prompts: estimate (whatever takes less time), always or never a prefill worker, or a number: a prefill worker from
    /// so many uncached tokens on [default: estimate]
    #[arg(long, env = "BATON_DISAGGREGATE", value_name = "MODE")]
    pub(crate) disaggregate: Option<String>,

    /// Time to first token that requests are promised which do not say (x-llm-d-slo-ttft-ms): they go where it is kept, and what can't keep
    /// it is answered 429 at once [default: none]
    #[arg(long, value_name = "MS", value_parser = value_parser!(u32).range(1..))]
    pub(crate) slo_ttft_ms: Option<u32>,

    /// Time per output token that requests are promised which do not say (x-llm-d-slo-tpot-ms) [default: none]
    #[arg(long, value_name = "MS", value_parser = value_parser!(u32).range(1..))]
    pub(crate) slo_tpot_ms: Option<u32>,

    /// How requests are routed: a YAML file with filters, scorers and picker [default: to where it takes least time]
    #[arg(long, env = "BATON_ROUTING_PROFILE", value_name = "FILE")]
    pub(crate) routing_profile: Option<PathBuf>,

    /// How the model writes tool calls: hermes, qwen3_coder, llama3_json, mistral, harmony or none [default: by its chat template]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) tool_call_parser: Option<String>,

    /// How the model marks its reasoning: think, harmony or none [default: by its chat template]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) reasoning_parser: Option<String>,

    /// Longest that running requests may take to end after Ctrl-C, in seconds; then they are cut off
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = value_parser!(u64).range(0..=3600))]
    pub(crate) drain_timeout: u64,

    /// Longest that it may take until the first request would be served, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..))]
    pub(crate) start_timeout: u64,

    /// Leave a process that died dead: for tests and for debugging
    #[arg(long, hide = true)]
    pub(crate) no_restart: bool,

    /// Print the configuration in force and every process's command line as TOML, and exit
    #[arg(long)]
    pub(crate) print_config: bool,

    #[command(flatten)]
    pub(crate) worker: WorkerOptions,

    #[command(flatten)]
    pub(crate) kv_events: KvEventOptions,

    /// Other servers with OpenAI's API that serve what the workers can't, by model: a YAML file
    #[arg(long, env = "BATON_UPSTREAM", value_name = "FILE")]
    pub(crate) upstream: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) tenancy: TenancyArgs,

    #[command(flatten)]
    pub(crate) tls: UpTlsOptions,

    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

/// The workers read it; whoever types it should be told here what is wrong with it.
fn checked_speculative_config(text: &str) -> Result<String, SpeculativeConfigError> {
    text.parse::<SpeculativeConfig>().map(|_| text.to_owned())
}
