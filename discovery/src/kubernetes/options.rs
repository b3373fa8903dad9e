//! What is looked for in Kubernetes, and how pods become endpoints.

use std::{sync::Arc, time::Duration};

use crate::Engine;

/// What to follow.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where all of it is.
    pub namespace: String,
    /// Whose pods.
    pub members: Members,
    /// How they become endpoints.
    pub shape: Shape,
    /// How patiently.
    pub limits: WatchLimits,
}

/// Whose pods are endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// Those that the InferencePool of this name selects, on its target ports.
    Pool(String),
    /// Those that the Service of this name selects, on the ports that its EndpointSlices have; both have to call them ready.
    Service {
        /// The Service's.
        name: String,
        /// Only the port of this name. Without: all, each as an endpoint of its own.
        port: Option<String>,
    },
}

/// What pods don't say themselves. Ports here are those of the first rank; the next ranks have the next ones.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Where metrics are; without: on the port for requests.
    pub metrics_port: Option<u16>,
    /// And on which path.
    pub metrics_path: Arc<str>,
    /// Where KV events are published; without: nowhere.
    pub kv_events_port: Option<u16>,
    /// Where missed ones are replayed.
    pub kv_replay_port: Option<u16>,
    /// What runs in a pod without the label.
    pub engine: Engine,
    /// The pod label that names its rack.
    pub rack_label: Option<String>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct WatchLimits {
    /// A watch is ended by the server and begun again after this, in whole seconds.
    pub watch: Duration,
    /// A watch that says nothing for so long after its end was due is dead.
    pub grace: Duration,
    /// A list, or the beginning of a watch.
    pub answer: Duration,
    /// Wait after a first failure; it doubles with each.
    pub first_retry: Duration,
    /// And goes up to this.
    pub most_retry: Duration,
}

impl Options {
    /// For these members, with what is usual.
    #[must_use]
    pub fn new(namespace: impl Into<String>, members: Members) -> Self {
        Self { namespace: namespace.into(), members, shape: Shape::default(), limits: WatchLimits::default() }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            metrics_port: None,
            metrics_path: "/metrics".into(),
            kv_events_port: None,
            kv_replay_port: None,
            engine: Engine::Vllm,
            rack_label: None,
        }
    }
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(45),
            grace: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            first_retry: Duration::from_millis(100),
            most_retry: Duration::from_secs(10),
        }
    }
}
