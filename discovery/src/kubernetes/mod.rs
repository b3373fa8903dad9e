//! Endpoints from Kubernetes: the pods of an InferencePool, or those behind a Service.
//!
//! ```text
//!  InferencePool ─ or ─ Service ──► selector ──► Pods ─────────────┐
//!        └─ targetPorts                └─► EndpointSlices (Service) ─┴─► Cluster (pure) ──► Snapshot
//! ```
//! Each kind of object is followed by itself: listed in pages, then watched from there on. A pod that is being deleted is
//! draining at once, whatever its readiness says; one that is gone is gone. While the API server is away the last set stays, and
//! [`Source::age`](crate::Source::age) grows; ordinarily it is below a minute, as the API server sends bookmarks and watches are short.
//!
//! What a pod is, its labels say, as llm-d's router reads them: `llm-d.ai/role` (prefill, decode, prefill-decode, both; without: both),
//! `llm-d.ai/engine-type` (vllm, sglang, baton), and the annotation `llm-d.ai/active-ports` (`8000,8001`) for which target ports are in use.
//!
//! # Rights that the service account needs
//! In the pods' namespace, by a Role, `get`, `list`, `watch` on:
//!
//! | API group | resource | for |
//! |---|---|---|
//! | (core) | `pods` | always |
//! | `inference.networking.k8s.io` | `inferencepools` | [`Members::Pool`]; may be limited to the pool's name |
//! | (core) | `services` | [`Members::Service`]; may be limited to the service's name |
//! | `discovery.k8s.io` | `endpointslices` | [`Members::Service`] |
//!
//! Nothing is written, and nothing outside of the namespace is read. Nodes are not read: the zone comes from the pod's label
//! `topology.kubernetes.io/zone` (Kubernetes 1.35 and newer copy it from the node) or from the EndpointSlice.

mod cluster;
mod objects;
mod options;
mod pod;
mod watch;

use std::time::Instant;

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
pub use kube::Client;
use kube::{Api, Config};
use tokio::select;
use tokio_util::sync::CancellationToken;

use crate::{Publisher, Source, metrics::WatchMetrics, source};
use cluster::{Change, Cluster};
use objects::{EndpointSlice, InferencePool, Pod, Service};
pub use options::{Members, Options, Shape, WatchLimits};
use watch::{Follow, Select};

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
#[error("no way to a Kubernetes API server: in a pod its service account is needed, elsewhere a kubeconfig")]
pub struct ConnectError(#[source] kube::Error);

/// Feeds a [`Source`] from the Kubernetes API.
pub struct Kubernetes {
    client: Client,
    options: Options,
    publisher: Publisher,
    metrics: WatchMetrics,
}

/// A client with the pod's service account, or else the user's kubeconfig.
///
/// # Errors
/// [`ConnectError`]: there is neither. Whether the API server answers is not tried.
pub async fn connect() -> Result<Client, ConnectError> {
    let mut config = Config::infer().await.map_err(|error| ConnectError(kube::Error::InferConfig(error)))?;
    // Retries in there would hide failures from what counts and spaces them.
    config.default_retry = false;
    Client::try_from(config).map_err(ConnectError)
}

type Changes = BoxStream<'static, Change>;

impl Kubernetes {
    /// For these members. Nothing is known until [`Self::run`] has listed them.
    #[must_use]
    pub fn new(client: Client, options: Options, metrics: &baton_process::Metrics) -> (Self, Source) {
        let (publisher, source) = source("kubernetes");
        (Self { client, options, publisher, metrics: WatchMetrics::register(metrics) }, source)
    }

    /// Follows the cluster until cancelled.
    ///
    /// # Cancel safety
    /// Dropping it leaves the last set.
    pub async fn run(self, until: CancellationToken) {
        let mut cluster = Cluster::new(matches!(self.options.members, Members::Service { .. }));
        let (mut group, mut slices) = (self.group(), self.slices());
        let mut pods: Changes = stream::pending().boxed();
        let mut selector = None;
        loop {
            let change = select! {
                () = until.cancelled() => return,
                Some(change) = group.next() => change,
                Some(change) = slices.next() => change,
                Some(change) = pods.next() => change,
            };
            cluster.apply(change, Instant::now());
            if cluster.selector() != selector {
                selector = cluster.selector();
                // Whatever is known of the pods was said of others; the published set stays until these are listed.
                cluster.forget_pods();
                pods = selector
                    .as_deref()
                    .map_or_else(|| stream::pending().boxed(), |selector| self.pods(selector));
            }
            self.publish(&cluster);
        }
    }

    fn publish(&self, cluster: &Cluster) {
        let Some(true_at) = cluster.confirmed() else { return };
        match cluster.endpoints(&self.options) {
            Some(endpoints) => {
                let count = endpoints.len();
                if self.publisher.publish(endpoints, true_at) {
                    tracing::debug!(endpoints = count, "another set of endpoints");
                }
            }
            None => tracing::trace!("not everything is listed yet: the set stays"),
        }
    }

    fn group(&self) -> Changes {
        match &self.options.members {
            Members::Pool(name) => self
                .follow::<InferencePool>("inferencepools")
                .stream(Select::Name(name.clone()))
                .map(Change::Group)
                .boxed(),
            Members::Service { name, .. } => self
                .follow::<Service>("services")
                .stream(Select::Name(name.clone()))
                .map(Change::Group)
                .boxed(),
        }
    }

    fn slices(&self) -> Changes {
        match &self.options.members {
            Members::Pool(_) => stream::pending().boxed(),
            Members::Service { name, .. } => {
                let select = Select::Labels(format!("kubernetes.io/service-name={name}"));
                self.follow::<EndpointSlice>("endpointslices").stream(select).map(Change::Slices).boxed()
            }
        }
    }

    fn pods(&self, selector: &str) -> Changes {
        self.follow::<Pod>("pods").stream(Select::Labels(selector.to_owned())).map(Change::Pods).boxed()
    }

    fn follow<K>(&self, resource: &'static str) -> Follow<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let api = Api::namespaced(self.client.clone(), &self.options.namespace);
        Follow::new(api, resource, self.options.limits, self.metrics.clone())
    }
}
