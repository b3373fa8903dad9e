//! What counts of an object, taken from it when it comes. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use twox_hash::XxHash3_64;

use super::objects::{EndpointSlice, InferencePool, Pod, Service};

/// Ports of a pod that are in use; llm-d's name, and the one before.
const ACTIVE_PORTS: [&str; 2] = ["llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports"];

/// What selects pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// As the API wants it; `None`: it selects nothing.
    pub(super) selector: Option<String>,
    pub(super) ports: Vec<u16>,
}

/// What counts of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodFacts {
    /// `None`: it has none yet, or has come to its end.
    pub(super) ip: Option<IpAddr>,
    pub(super) is_ready: bool,
    pub(super) is_leaving: bool,
    pub(super) incarnation: u64,
    pub(super) labels: Arc<BTreeMap<String, String>>,
    pub(super) node: Option<Arc<str>>,
    /// `None`: all.
    pub(super) active_ports: Option<BTreeSet<u16>>,
}

/// What counts of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SliceFacts {
    pub(super) ports: Vec<(Option<String>, u16)>,
    pub(super) pods: Vec<SlicePod>,
}

/// A pod in a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlicePod {
    pub(super) name: String,
    pub(super) is_ready: bool,
    pub(super) is_leaving: bool,
    pub(super) zone: Option<Arc<str>>,
}

impl From<InferencePool> for Group {
    fn from(pool: InferencePool) -> Self {
        let spec = pool.spec.unwrap_or_default();
        let labels = spec.selector.unwrap_or_default().match_labels.unwrap_or_default();
        let ports = spec
            .target_ports
            .unwrap_or_default()
            .into_iter()
            .filter_map(|port| port.number.try_into().ok())
            .collect();
        Self { selector: selector(&labels), ports }
    }
}

impl From<Service> for Group {
    fn from(service: Service) -> Self {
        let labels = service.spec.unwrap_or_default().selector.unwrap_or_default();
        Self { selector: selector(&labels), ports: Vec::new() }
    }
}

/// An empty selector would be all pods of the namespace, which nobody means.
fn selector(labels: &BTreeMap<String, String>) -> Option<String> {
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}

impl From<Pod> for PodFacts {
    fn from(pod: Pod) -> Self {
        let (meta, status) = (pod.metadata, pod.status.unwrap_or_default());
        let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let ip = status.pod_ip.as_deref().filter(|_| !has_ended).and_then(|ip| ip.parse().ok());
        let conditions = status.conditions.unwrap_or_default();
        let restarts: i64 = status
            .container_statuses
            .unwrap_or_default()
            .iter()
            .map(|container| container.restart_count)
            .sum();
        let life = format!("{}/{restarts}", meta.uid.as_deref().unwrap_or_default());
        Self {
            ip,
            is_ready: conditions
                .iter()
                .any(|condition| condition.kind == "Ready" && condition.status == "True"),
            is_leaving: meta.deletion_timestamp.is_some(),
            incarnation: XxHash3_64::oneshot(life.as_bytes()),
            active_ports: active_ports(&meta.annotations.unwrap_or_default()),
            labels: Arc::new(meta.labels.unwrap_or_default()),
            node: pod.spec.unwrap_or_default().node_name.map(Arc::from),
        }
    }
}

fn active_ports(annotations: &BTreeMap<String, String>) -> Option<BTreeSet<u16>> {
    let list = ACTIVE_PORTS.iter().find_map(|name| annotations.get(*name))?;
    Some(list.split(',').filter_map(|port| port.trim().parse().ok()).collect())
}

impl From<EndpointSlice> for SliceFacts {
    fn from(slice: EndpointSlice) -> Self {
        let ports = slice.ports.unwrap_or_default().into_iter();
        let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
        let pods = slice.endpoints.unwrap_or_default().into_iter().filter_map(|endpoint| {
            let target = endpoint.target_ref.filter(|target| target.kind.as_deref() == Some("Pod"))?;
            Some(SlicePod {
                name: target.name?,
                is_ready: endpoint.conditions.ready.unwrap_or(true),
                is_leaving: endpoint.conditions.terminating.unwrap_or(false),
                zone: endpoint.zone.map(Arc::from),
            })
        });
        Self {
            ports: tcp
                .filter_map(|port| {
                    Some((port.name.filter(|name| !name.is_empty()), port.port?.try_into().ok()?))
                })
                .collect(),
            pods: pods.collect(),
        }
    }
}
