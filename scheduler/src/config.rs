//! The scheduler's configuration: made once, from the options; everything else is handed what it needs of it.

use std::{net::SocketAddr, time::Duration};

use baton_front::FrontConfig;
use serde::Serialize;

use crate::SchedulerArgs;

/// What holds when nobody says otherwise; written here and nowhere else.
pub(crate) mod defaults {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    pub(crate) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
    pub(crate) const REGISTRY_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8100);
    pub(crate) const RETRIES: u32 = 1;
    pub(crate) const DRAIN_TIMEOUT_S: u64 = 30;
    pub(crate) const WORKER_TTL_MS: u64 = 800;
    pub(crate) const WORKER_GRACE_MS: u64 = 600;
    pub(crate) const MAX_WORKERS: u32 = 4096;
}

/// The scheduler's configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// The HTTP front.
    #[serde(flatten)]
    pub front: FrontConfig,
    /// Address of the HTTP front.
    pub listen: SocketAddr,
    /// Address of the registry.
    pub registry_listen: SocketAddr,
    /// Whether no prefill workers are expected.
    pub aggregated: bool,
    /// Context that workers must have been started with.
    pub max_context_tokens: Option<u32>,
    /// Further decode workers tried.
    pub retries: u32,
    /// Limits on the fleet.
    pub fleet: FleetLimits,
    /// Longest drain.
    pub drain_timeout: Duration,
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
        let front = FrontConfig::new(args.model.clone(), &args.front);
        let allow_runtime_lora_updating = args.allow_runtime_lora_updating;
        Self {
            front: FrontConfig { allow_runtime_lora_updating, ..front },
            listen: args.listen,
            registry_listen: args.registry_listen,
            aggregated: args.aggregated,
            max_context_tokens: args.max_context,
            retries: args.retries,
            fleet: FleetLimits {
                ttl: Duration::from_millis(args.worker_ttl_ms),
                grace: Duration::from_millis(args.worker_grace_ms),
                max_workers: usize::try_from(args.max_workers).unwrap_or(usize::MAX),
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
