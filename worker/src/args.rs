//! Command line of both workers; every limit has its default here.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use baton_engine::{Dtype, WeightFormat};
use baton_kv_events::{Endpoint, Format};
use baton_kv_transfer::FabricSpec;
use baton_membership::Schedulers;
use baton_profile::{Profile, ProfileError};
use baton_tls::TlsArgs;

use crate::{ByteSize, LoraModule, SpeculativeConfig};

/// Options of `baton prefill-worker` and `baton decode-worker`.
#[derive(clap::Args, Clone, Debug)]
pub struct WorkerArgs {
    /// Model folder in Hugging Face's format
    #[arg(long, env = "BATON_MODEL", value_name = "DIR")]
    pub model: PathBuf,

    /// Name that the model is served under; the scheduler's must be the same [default: the folder's name, or its hub id]
    #[arg(long, env = "BATON_SERVED_MODEL_NAME", value_name = "NAME")]
    pub served_model_name: Option<String>,

    /// Type of weights and KV cache in memory: bf16 or f32
    #[arg(long, env = "BATON_DTYPE", default_value = "bf16", value_parser = parse_dtype, value_name = "DTYPE")]
    pub dtype: Dtype,

    /// What weight matrices become when they are loaded: none (they stay as --dtype says) or int8 (half the memory, with a scale
    /// for each 128 neighbours; the KV cache keeps its type). Workers that exchange KV blocks must agree in it
    #[arg(long, env = "BATON_QUANTIZATION", default_value = "none", value_name = "FORMAT")]
    pub quantization: WeightFormat,

    /// Longest prompt plus answer in tokens [default: the model's]
    #[arg(long, env = "BATON_MAX_CONTEXT", value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_context: Option<u32>,

    /// Tokens in one KV block; workers may differ in it
    #[arg(long, default_value_t = 16, value_name = "TOKENS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub block_tokens: u16,

    /// Memory for the KV cache, such as 512MiB [default: what 8 full contexts need, at most 4GiB and a quarter of the free memory]
    #[arg(long, env = "BATON_KV_MEMORY", value_name = "SIZE")]
    pub kv_memory: Option<ByteSize>,

    /// Blocks of the KV cache, instead of a size
    #[arg(long, value_name = "N", conflicts_with = "kv_memory", value_parser = clap::value_parser!(u32).range(1..))]
    pub kv_blocks: Option<u32>,

    /// Threads that compute [default: the physical cores]
    #[arg(long, env = "BATON_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// What carries KV blocks: shm, libfabric, ucx or nixl (libfabric:PROVIDER, ucx:TRANSPORTS, nixl:BACKEND to choose)
    #[arg(long, env = "BATON_FABRIC", default_value = "shm", value_name = "FABRIC")]
    pub fabric: FabricSpec,

    /// Where libfabric.so.1 is [default: where the system's loader finds it]
    #[arg(long, env = "BATON_LIBFABRIC", value_name = "PATH")]
    pub libfabric: Option<PathBuf>,

    /// NICs (by libfabric's name) or IP addresses that carry KV blocks over libfabric, such as rdmap79s0-rdm,rdmap80s0-rdm
    /// [default: EFA's near this process's memory; else one endpoint on the address that is listened on]
    #[arg(long, env = "BATON_RAILS", value_name = "NAME", value_delimiter = ',')]
    pub rails: Vec<String>,

    /// Where NIXL's libnixl_capi.so is: the file, its folder, or the site-packages with NIXL [default: where the loader finds it]
    #[arg(long, env = "BATON_NIXL", value_name = "PATH")]
    pub nixl: Option<PathBuf>,

    /// Bytes of computed layers that are pushed together, such as 1MiB [default: by the link's measured speed]
    #[arg(long, value_name = "SIZE")]
    pub push_group: Option<ByteSize>,

    /// Mean size of a write below which KV blocks travel together in chunks, such as 64KiB; 0: never [default: as measured for
    /// the fabric]
    #[arg(long, value_name = "SIZE")]
    pub stage_below: Option<ByteSize>,

    /// Where libucp.so.0 is [default: where the system's loader finds it]
    #[arg(long, env = "BATON_UCX", value_name = "PATH")]
    pub ucx: Option<PathBuf>,

    /// Requests computed at a time; others wait
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_running: u32,

    /// Requests waiting at a time; more are refused as overloaded
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_waiting: u32,

    /// Tokens computed in one step: running requests take one each, prompts share the rest
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_step_tokens: u32,

    /// Prompt tokens computed in a step in which requests generate, who wait for it: what long prompts are cut to beside
    /// them [default: as many as keep such a step under twice as long as without, as measured]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub prefill_chunk_tokens: Option<u32>,

    /// Compute for this part of the time only, as on processors that are so much slower: for comparing splits of many workers on a
    /// small machine
    #[arg(long, default_value_t = 100, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub compute_percent: u8,

    /// Take as long for each step as this profile says, from `baton tune profile` or an estimate by `baton tune recommend
    /// --write-profile`, computing all the same: a fleet as on hardware that one does not have. Steps take longer where
    /// computing does; hand-overs take what they take
    #[arg(long, value_name = "FILE", value_parser = read_profile, conflicts_with_all = ["compute_percent", "speculative_config"])]
    pub pace: Option<Arc<Profile>>,

    /// Compute every prompt in full, rather than keep KV blocks for requests that begin the same
    #[arg(long)]
    pub no_prefix_cache: bool,

    /// Decode several tokens a step from drafts, the same tokens in less time: JSON as vLLM takes it, such as
    /// {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2, "prompt_lookup_max": 5} or
    /// {"method": "draft_model", "model": DIR, "num_speculative_tokens": 4}. Of no use to a worker that only prefills
    #[arg(long, env = "BATON_SPECULATIVE_CONFIG", value_name = "JSON")]
    pub speculative_config: Option<SpeculativeConfig>,

    /// Where each change of the prefix cache is published over ZeroMQ, as vLLM does: tcp://*:5557 to listen, tcp://HOST:5557 to call
    /// a router, @tcp://127.0.0.1:5557 to listen on one address. Says what is in prompts and answers [default: nowhere]
    #[arg(
        long,
        env = "BATON_KV_EVENTS_ENDPOINT",
        value_name = "ENDPOINT",
        conflicts_with = "no_prefix_cache"
    )]
    pub kv_events_endpoint: Option<Endpoint>,

    /// Where routers ask for KV events that they missed, such as tcp://*:5558
    #[arg(
        long,
        env = "BATON_KV_EVENTS_REPLAY_ENDPOINT",
        value_name = "ENDPOINT",
        requires = "kv_events_endpoint"
    )]
    pub kv_events_replay_endpoint: Option<Endpoint>,

    /// What KV events are published under; many routers expect kv@ADDRESS@MODEL
    #[arg(long, env = "BATON_KV_EVENTS_TOPIC", default_value = "", value_name = "TOPIC")]
    pub kv_events_topic: String,

    /// Form of KV events: array, which most routers read, or map, which vLLM writes since its pull request 42892
    #[arg(long, env = "BATON_KV_EVENTS_FORMAT", default_value = "array", value_name = "FORMAT")]
    pub kv_events_format: Format,

    /// Steps whose KV events are kept for those who missed them
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub kv_events_buffer_steps: u32,

    /// Adapters (LoRA, as PEFT saves them) that requests may select by name instead of the model's; several may follow
    #[arg(long, value_name = "NAME=DIR", num_args = 1..)]
    pub lora_modules: Vec<LoraModule>,

    /// Adapters loaded at a time; more are refused. Any number of them can be in a step
    #[arg(long, env = "BATON_MAX_LORAS", default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_loras: u16,

    /// Where sidecars call (gRPC; port 0: any)
    #[arg(long, env = "BATON_WORKER_LISTEN", default_value = "127.0.0.1:8200", value_name = "IP:PORT")]
    pub listen: SocketAddr,

    /// Address that sidecars reach this worker at [default: the one it listens on]
    #[arg(long, env = "BATON_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Where /metrics, /health and /ready are served (port 0: any)
    #[arg(long, env = "BATON_ADMIN_LISTEN", default_value = "127.0.0.1:9090", value_name = "IP:PORT")]
    pub admin_listen: SocketAddr,

    /// Where to register: a prefill worker with the scheduler, or with several (commas between; dns:HOST:PORT for every address
    /// of a name), a decode worker with its sidecar
    #[arg(long, env = "BATON_REGISTRY", value_name = "HOST:PORT,…")]
    pub registry: Schedulers,

    /// Name of this worker, unique in the fleet [default: the role and the host's name]
    #[arg(long, env = "BATON_WORKER_ID", value_name = "NAME")]
    pub worker_id: Option<String>,

    /// What rules and distances go by: topology.kubernetes.io/zone=a, topology.kubernetes.io/rack=r7, kubernetes.io/hostname=n1, or
    /// anything of yours; several may follow
    #[arg(long = "label", env = "BATON_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    pub labels: Vec<(String, String)>,

    /// Longest that requests under way may take to end once the worker is told to stop, in seconds
    #[arg(long, env = "BATON_DRAIN_TIMEOUT", default_value_t = 30, value_name = "SECONDS")]
    pub drain_timeout: u64,

    /// TLS of listeners and calls.
    #[command(flatten)]
    pub tls: TlsArgs,
}

impl WorkerArgs {
    pub(crate) fn served_model_name(&self) -> String {
        self.served_model_name.clone().unwrap_or_else(|| baton_tokenizer::served_name(&self.model))
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout)
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("use KEY=VALUE, such as topology.kubernetes.io/zone=eu-1a".to_owned()),
    }
}

fn read_profile(path: &str) -> Result<Arc<Profile>, ProfileError> {
    Profile::read(Path::new(path)).map(Arc::new)
}

fn parse_dtype(text: &str) -> Result<Dtype, String> {
    match text {
        "bf16" => Ok(Dtype::Bf16),
        "f32" => Ok(Dtype::F32),
        _ => Err("use bf16 or f32".to_owned()),
    }
}
