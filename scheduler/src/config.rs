//! The scheduler's configuration: made once, from the options; everything else is handed what it needs of it.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use baton_front::FrontConfig;
use baton_policy::{
    admission::Limits,
    profile::{self, Disaggregate, Profile},
    view::Objective,
};
use baton_tenancy::TenancyArgs;
use baton_tls::{FrontTlsArgs, TlsArgs};
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
    pub(crate) const MAX_QUEUED: u32 = 1024;
    pub(crate) const MAX_QUEUE_WAIT_S: u64 = 30;
    pub(crate) const KV_INDEX_MIB: u64 = 1024;
    pub(crate) const DECISIONS: u32 = 4096;
    pub(crate) const TRAFFIC_MIB: u64 = 32;
    pub(crate) const SCRAPE_MS: u64 = 100;
    pub(crate) const PICKER_ENCODED_KIB: u32 = 32;
}

/// The scheduler's configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// Model folder; without it, it only picks for gateways.
    pub model: Option<PathBuf>,
    /// The HTTP front.
    #[serde(flatten)]
    pub front: FrontConfig,
    /// Address of the HTTP front.
    pub listen: SocketAddr,
    /// Address of the registry.
    pub registry_listen: SocketAddr,
    /// The endpoint picker.
    pub picker: PickerConfig,
    /// Address of a listener for metrics and health alone.
    pub admin_listen: Option<SocketAddr>,
    /// Whether no prefill workers are expected.
    pub aggregated: bool,
    /// Context that workers must have been started with.
    pub max_context_tokens: Option<u32>,
    /// Further decode workers tried.
    pub retries: u32,
    /// Limits on the fleet.
    pub fleet: FleetLimits,
    /// How requests are routed.
    pub routing: RoutingConfig,
    /// Longest drain.
    pub drain_timeout: Duration,
    /// File with other servers that serve what the pool can't.
    pub upstream: Option<PathBuf>,
    /// Who may ask, and how much.
    pub tenancy: TenancyArgs,
    /// TLS of all listeners and calls.
    pub tls: TlsArgs,
    /// TLS of the front, where it differs.
    pub front_tls: FrontTlsArgs,
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

/// The endpoint picker.
#[derive(Clone, Debug, Serialize)]
pub struct PickerConfig {
    /// Where gateways ask.
    pub listen: Option<SocketAddr>,
    /// Whether gateways are spoken to over TLS without a certificate of theirs.
    pub tls: bool,
    /// Where its health is asked for.
    pub health_listen: Option<SocketAddr>,
    /// File with servers that do not register themselves.
    pub servers: Option<PathBuf>,
    /// InferencePool with such servers.
    pub inference_pool: Option<String>,
    /// Where the pool's servers publish KV events.
    pub pool_kv_events_port: Option<u16>,
    /// Where they replay them.
    pub pool_kv_replay_port: Option<u16>,
    /// Between two readings of a metrics page.
    pub scrape_every: Duration,
    /// Bytes of text of a prompt that is looked at token by token.
    pub encoded_bytes: u64,
    /// Whether conformance tests are obeyed.
    pub conformance: bool,
}

impl PickerConfig {
    /// The pool's name in metrics, `NAMESPACE/NAME` or `NAME`.
    pub(crate) fn pool_name(&self) -> &str {
        self.inference_pool.as_deref().unwrap_or("baton")
    }
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
    /// Priorities of named objectives.
    pub priorities: Priorities,
    /// Most memory of the index of cached prefixes.
    pub kv_index_bytes: u64,
    /// Decisions kept.
    pub decisions: u32,
    /// Where they are written, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_log: Option<PathBuf>,
    /// Most memory of the record of traffic; 0: none is kept.
    pub traffic_bytes: u64,
}

/// What named objectives count: the higher, the sooner; 0 for those that are not named.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Priorities(BTreeMap<String, i32>);

impl<'a> FromIterator<(&'a str, i32)> for Priorities {
    fn from_iter<I: IntoIterator<Item = (&'a str, i32)>>(named: I) -> Self {
        Self(named.into_iter().map(|(name, priority)| (name.to_owned(), priority)).collect())
    }
}

impl Priorities {
    pub(crate) fn of(&self, objective: &str) -> i32 {
        self.0.get(objective).copied().unwrap_or(0)
    }
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
        let front = FrontConfig::new(args.model.as_deref(), &args.front);
        let allow_runtime_lora_updating = args.allow_runtime_lora_updating;
        Self {
            model: args.model.clone(),
            front: FrontConfig { allow_runtime_lora_updating, ..front },
            listen: args.listen,
            registry_listen: args.registry_listen,
            picker: PickerConfig {
                listen: args.picker_listen,
                tls: args.picker_tls,
                health_listen: args.picker_health_listen,
                servers: args.servers.clone(),
                inference_pool: args.inference_pool.clone(),
                pool_kv_events_port: args.pool_kv_events_port,
                pool_kv_replay_port: args.pool_kv_replay_port,
                scrape_every: Duration::from_millis(args.scrape_ms),
                encoded_bytes: u64::from(args.picker_encoded_kib) << 10,
                conformance: args.picker_conformance,
            },
            admin_listen: args.admin_listen,
            aggregated: args.aggregated,
            max_context_tokens: args.max_context,
            retries: args.retries,
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
                priorities: args
                    .objective
                    .iter()
                    .map(|(name, priority)| (name.as_str(), *priority))
                    .collect(),
                kv_index_bytes: args.kv_index_mib << 20,
                decisions: args.decisions,
                decision_log: args.decision_log.clone(),
                traffic_bytes: args.traffic_mib << 20,
            },
            drain_timeout: Duration::from_secs(args.drain_timeout),
            upstream: args.upstream.clone(),
            tenancy: args.tenancy.clone(),
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

#[cfg(test)]
mod tests {
    /// Blocks of YAML in a page, without their indentation.
    fn yaml_blocks(page: &str) -> Vec<String> {
        let mut blocks = Vec::new();
        let mut lines = page.lines();
        while let Some(opening) = lines.find(|line| line.trim() == "```yaml") {
            let indent = opening.len() - opening.trim_start().len();
            let block = lines.by_ref().take_while(|line| line.trim() != "```");
            blocks.push(block.map(|line| format!("{}\n", &line[indent.min(line.len())..])).collect());
        }
        blocks
    }

    #[test]
    fn what_the_page_on_routing_shows_is_understood() {
        let blocks = yaml_blocks(include_str!("../../docs/routing.md"));
        let [profile, servers] = &blocks[..] else { panic!("{blocks:?}") };
        let profile = baton_policy::profile::parse(profile).unwrap();
        assert_eq!(baton_policy::profile::warnings(&profile), [""; 0]);
        assert_eq!(baton_discovery::file::parse(servers).unwrap().len(), 1);
    }
}
