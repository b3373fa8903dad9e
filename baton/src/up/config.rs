//! What `baton up` was told, with all defaults filled in.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use baton_hub::{HubConfig, HubId, Located, ModelFolder, Progress};
use baton_tenancy::TenancyArgs;
use baton_tls::Dial;
use serde::Serialize;

use super::{
    UpArgs, backoff::RestartPolicy, bundled, kv_events::KvEventOptions, supervisor::Supervision, tls::UpTls,
    worker_args::WorkerOptions,
};

/// For processes to put themselves away once their requests have ended.
const EXIT_PATIENCE: Duration = Duration::from_secs(3);

/// The configuration in force.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Config {
    pub(crate) model: Model,
    pub(crate) served_model_name: String,
    pub(crate) host: IpAddr,
    pub(crate) port: u16,
    pub(crate) prefill: u16,
    pub(crate) decode: u16,
    pub(crate) schedulers: u16,
    pub(crate) fabric: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) libfabric: Option<PathBuf>,
    pub(crate) rails: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nixl: Option<PathBuf>,
    pub(crate) ucx: Option<PathBuf>,
    pub(crate) threads: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) lora_modules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_loras: Option<u16>,
    pub(crate) allow_runtime_lora_updating: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) speculative_config: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_context: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disaggregate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slo_ttft_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slo_tpot_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) routing_profile: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_call_parser: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_parser: Option<String>,
    #[serde(rename = "drain_timeout_s")]
    pub(crate) drain_timeout: u64,
    #[serde(rename = "start_timeout_s")]
    pub(crate) start_timeout: u64,
    pub(crate) restart: bool,
    #[serde(flatten)]
    pub(crate) worker: WorkerOptions,
    #[serde(flatten)]
    pub(crate) kv_events: KvEventOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream: Option<PathBuf>,
    #[serde(flatten)]
    pub(crate) tenancy: TenancyArgs,
    #[serde(skip)]
    pub(crate) tls: UpTls,
    #[serde(skip)]
    hub: HubConfig,
}

/// The model: on disk, or still to be downloaded.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Model {
    Folder(PathBuf),
    OnHub(#[serde(serialize_with = "serialize_id")] HubId),
}

impl Config {
    /// Fills in the defaults; finds the model, but downloads nothing.
    pub(crate) fn try_new(args: UpArgs) -> anyhow::Result<Self> {
        args.kv_events.check(args.prefill + args.decode)?;
        anyhow::ensure!(
            args.port.checked_add(args.schedulers - 1).is_some(),
            "--port {} --schedulers {}: there are no ports above {}",
            args.port,
            args.schedulers,
            u16::MAX
        );
        let hub = args.hub.into_config();
        let located = match args.model {
            Some(model) => baton_hub::locate(&model, &hub)?,
            None => baton_hub::locate(&bundled::find()?.to_string_lossy(), &hub)?,
        };
        let (model, name) = match located {
            Located::Here(folder) => (Model::Folder(folder.path), folder.name),
            Located::OnHub(id) => (Model::OnHub(id.clone()), id.repository()),
        };
        Ok(Self {
            model,
            served_model_name: args.served_model_name.unwrap_or(name),
            host: args.host,
            port: args.port,
            prefill: args.prefill,
            decode: args.decode,
            schedulers: args.schedulers,
            fabric: args.fabric.to_string(),
            libfabric: args.libfabric,
            rails: args.rails,
            nixl: args.nixl,
            ucx: args.ucx,
            threads: args.threads.unwrap_or_else(|| share_of_cores(args.prefill + args.decode)),
            lora_modules: args.lora_modules,
            max_loras: args.max_loras,
            allow_runtime_lora_updating: args.allow_runtime_lora_updating,
            speculative_config: args.speculative_config,
            max_context: args.max_context,
            disaggregate: args.disaggregate,
            slo_ttft_ms: args.slo_ttft_ms,
            slo_tpot_ms: args.slo_tpot_ms,
            routing_profile: args.routing_profile,
            tool_call_parser: args.tool_call_parser,
            reasoning_parser: args.reasoning_parser,
            drain_timeout: args.drain_timeout,
            start_timeout: args.start_timeout,
            restart: !args.no_restart,
            worker: args.worker,
            kv_events: args.kv_events,
            upstream: args.upstream,
            tenancy: args.tenancy,
            tls: UpTls::try_new(args.tls)?,
            hub,
        })
    }

    /// Where a front listens.
    pub(crate) fn listen(&self, index: u16) -> SocketAddr {
        let port = if self.port == 0 { 0 } else { self.port + index };
        SocketAddr::new(self.host, port)
    }

    /// Downloads the model if it is not on disk yet.
    pub(crate) async fn download(&mut self) -> anyhow::Result<()> {
        if let Model::OnHub(id) = &self.model {
            let ModelFolder { path, .. } = baton_hub::pull(id, &self.hub, &mut Progress::to_stderr()).await?;
            self.model = Model::Folder(path);
        }
        Ok(())
    }

    /// What the supervisor needs to know.
    pub(crate) fn supervision(&self, dial: Dial) -> Supervision {
        Supervision {
            // Not its path: the file may be replaced while this process runs, and children must be of the same build.
            program: PathBuf::from("/proc/self/exe"),
            common_args: ["--supervisor".to_owned(), std::process::id().to_string()]
                .map(OsString::from)
                .to_vec(),
            drain_timeout: Duration::from_secs(self.drain_timeout),
            exit_patience: EXIT_PATIENCE,
            start_timeout: Duration::from_secs(self.start_timeout),
            restart: self.restart.then(RestartPolicy::default),
            dial,
        }
    }
}

/// Each worker computes with its own threads; more threads than cores would take turns and be slower together.
fn share_of_cores(workers: u16) -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores).unwrap_or(u16::MAX).div_euclid(workers.max(1)).max(1)
}

fn serialize_id<S: serde::Serializer>(id: &HubId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}
