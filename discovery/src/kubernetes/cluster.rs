//! What is known of the cluster, and the endpoints that follow from it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use super::{
    options::{Members, Options, Shape},
    pod::{Group, PodFacts, SliceFacts},
    watch::Told,
};
use crate::{Endpoint, Engine, KvEvents, MetricsPage, Place, Role, State};

const ROLE_LABEL: &str = "llm-d.ai/role";
const ENGINE_LABEL: &str = "llm-d.ai/engine-type";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What one of the watches said.
#[derive(Debug)]
pub(super) enum Change {
    Group(Told<Group>),
    Pods(Told<PodFacts>),
    Slices(Told<SliceFacts>),
}

/// Objects of one kind, by name.
#[derive(Debug)]
struct Table<T> {
    /// `None`: they were not listed yet.
    known: Option<BTreeMap<String, T>>,
    /// When that was last known to be true.
    at: Option<Instant>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Cluster {
    group: Table<Group>,
    pods: Table<PodFacts>,
    /// `None`: the group has ports of its own.
    slices: Option<Table<SliceFacts>>,
}

/// What a pod's slices say of it.
#[derive(Clone, Debug, Default)]
struct Sliced<'a> {
    ports: BTreeSet<u16>,
    is_unready: bool,
    is_leaving: bool,
    zone: Option<&'a Arc<str>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { known: None, at: None }
    }
}

impl<T> Table<T> {
    fn apply(&mut self, told: Told<T>, now: Instant) {
        let is_contact = match told {
            Told::Listed(objects) => {
                self.known = Some(objects.into_iter().collect());
                true
            }
            Told::Changed(name, object) => {
                self.known.get_or_insert_default().insert(name, object);
                true
            }
            Told::Removed(name) => {
                self.known.get_or_insert_default().remove(&name);
                true
            }
            Told::Confirmed => true,
            Told::Failed => false,
        };
        if is_contact {
            self.at = Some(now);
        }
    }
}

impl Cluster {
    pub(super) fn new(has_slices: bool) -> Self {
        Self { group: Table::default(), pods: Table::default(), slices: has_slices.then(Table::default) }
    }

    pub(super) fn apply(&mut self, change: Change, now: Instant) {
        match (change, &mut self.slices) {
            (Change::Group(told), _) => self.group.apply(told, now),
            (Change::Pods(told), _) => self.pods.apply(told, now),
            (Change::Slices(told), Some(slices)) => slices.apply(told, now),
            (Change::Slices(_), None) => {}
        }
    }

    /// Which pods belong to it; `None`: none, or that is not known.
    pub(super) fn selector(&self) -> Option<String> {
        self.the_group()?.selector.clone()
    }

    pub(super) fn forget_pods(&mut self) {
        self.pods = Table::default();
    }

    /// Since when at least one part was not confirmed.
    pub(super) fn confirmed(&self) -> Option<Instant> {
        if self.selector().is_none() {
            return self.group.at;
        }
        let slices = self.slices.as_ref().map(|slices| slices.at);
        [Some(self.group.at), Some(self.pods.at), slices].into_iter().flatten().min().flatten()
    }

    /// The set; `None`: not everything that it takes was listed yet.
    pub(super) fn endpoints(&self, options: &Options) -> Option<Vec<Endpoint>> {
        self.group.known.as_ref()?;
        if self.selector().is_none() {
            // Deleted, or selects nothing: that is known.
            return Some(Vec::new());
        }
        let sliced = match &self.slices {
            None => BTreeMap::new(),
            Some(slices) => sliced(slices.known.as_ref()?, &options.members),
        };
        let mut endpoints = Vec::new();
        for (name, pod) in self.pods.known.as_ref()? {
            let of_slices =
                self.slices.is_some().then(|| sliced.get(name.as_str()).cloned().unwrap_or_default());
            let ports = match &of_slices {
                Some(sliced) => sliced.ports.iter().copied().collect::<Vec<_>>(),
                None => self.the_group()?.ports.clone(),
            };
            endpoints.extend(pod_endpoints(name, pod, &ports, of_slices.as_ref(), &options.shape));
        }
        Some(endpoints)
    }

    fn the_group(&self) -> Option<&Group> {
        self.group.known.as_ref()?.values().next()
    }
}

/// By pod, what all slices say: a dual-stack Service has one for each family.
fn sliced<'a>(slices: &'a BTreeMap<String, SliceFacts>, members: &Members) -> BTreeMap<&'a str, Sliced<'a>> {
    let wanted = match members {
        Members::Service { port, .. } => port.as_deref(),
        Members::Pool(_) => None,
    };
    let mut pods: BTreeMap<&str, Sliced<'_>> = BTreeMap::new();
    for slice in slices.values() {
        let ports = slice.ports.iter().filter(|(name, _)| wanted.is_none() || name.as_deref() == wanted);
        for pod in &slice.pods {
            let entry = pods.entry(&pod.name).or_default();
            entry.ports.extend(ports.clone().map(|(_, port)| port));
            entry.is_unready |= !pod.is_ready;
            entry.is_leaving |= pod.is_leaving;
            entry.zone = entry.zone.or(pod.zone.as_ref());
        }
    }
    pods
}

fn pod_endpoints(
    name: &str,
    pod: &PodFacts,
    ports: &[u16],
    sliced: Option<&Sliced<'_>>,
    shape: &Shape,
) -> Vec<Endpoint> {
    let role = pod.labels.get(ROLE_LABEL).map_or(Some(Role::Both), |value| Role::named(value));
    let (Some(ip), Some(role)) = (pod.ip, role) else { return Vec::new() };
    let is_leaving = pod.is_leaving || sliced.is_some_and(|sliced| sliced.is_leaving);
    let is_ready = pod.is_ready && sliced.is_none_or(|sliced| !sliced.is_unready);
    let state = match (is_leaving, is_ready) {
        (true, _) => State::Draining,
        (false, true) => State::Ready,
        (false, false) => State::NotReady,
    };
    let label = |name: &str| pod.labels.get(name).map(|value| Arc::from(value.as_str()));
    let place = Place {
        zone: label(ZONE_LABEL).or_else(|| sliced?.zone.cloned()),
        rack: shape.rack_label.as_deref().and_then(label),
        node: pod.node.clone(),
    };
    let of_rank = |(rank, &port): (usize, &u16)| {
        let is_active = pod.active_ports.as_ref().is_none_or(|active| active.contains(&port));
        let at = |base: u16| Some(SocketAddr::new(ip, base.checked_add(u16::try_from(rank).ok()?)?));
        let tcp = |base: Option<u16>| Some(Arc::from(format!("tcp://{}", at(base?)?)));
        is_active.then(|| Endpoint {
            id: if ports.len() > 1 { format!("{name}-rank-{rank}").into() } else { name.into() },
            incarnation: pod.incarnation,
            address: SocketAddr::new(ip, port),
            role,
            engine: pod.labels.get(ENGINE_LABEL).map_or(shape.engine, |value| Engine::named(value)),
            state,
            labels: pod.labels.clone(),
            place: place.clone(),
            metrics: MetricsPage {
                address: shape.metrics_port.and_then(at).unwrap_or(SocketAddr::new(ip, port)),
                path: shape.metrics_path.clone(),
            },
            kv_events: tcp(shape.kv_events_port)
                .map(|events| KvEvents { events, replay: tcp(shape.kv_replay_port) }),
        })
    };
    ports.iter().enumerate().filter_map(of_rank).collect()
}
