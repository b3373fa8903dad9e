//! A model server that does not register itself, as a source describes it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

/// A model server, or one rank of it that has a port of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's name (with `-rank-N` where a pod has several ports), or the name in the file. Unique within a source.
    pub id: Arc<str>,
    /// Which of its lives: differs once the process behind the name is another one, as then its cache is empty. Only to be compared.
    pub incarnation: u64,
    /// Where requests go: HTTP.
    pub address: SocketAddr,
    /// What it does.
    pub role: Role,
    /// What runs there.
    pub engine: Engine,
    /// Whether it takes requests.
    pub state: State,
    /// The pod's labels, or those in the file.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Where it is.
    pub place: Place,
    /// Where its load is read.
    pub metrics: MetricsPage,
    /// Where it says what its cache holds.
    pub kv_events: Option<KvEvents>,
}

/// What a model server does with requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// Computes prompts for others.
    Prefill,
    /// Generates.
    Decode,
    /// Both.
    #[default]
    Both,
}

/// What runs there. Which figures its page has is seen on the page; this says how to speak to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// vLLM.
    #[default]
    Vllm,
    /// SGLang.
    Sglang,
    /// A Baton worker that somebody listed.
    Baton,
    /// Something that speaks OpenAI's API.
    Other,
}

/// Whether an endpoint takes requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// It does.
    #[default]
    Ready,
    /// Not now: it is starting, or fails its probe.
    NotReady,
    /// It is being deleted, or was marked so: what it has it ends, and there is no more.
    Draining,
}

/// Where an endpoint is; what is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Availability zone.
    pub zone: Option<Arc<str>>,
    /// Rack, or what else stands for "near".
    pub rack: Option<Arc<str>>,
    /// Machine.
    pub node: Option<Arc<str>>,
}

/// Where metrics are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsPage {
    /// Of the listener, which need not be the one for requests.
    pub address: SocketAddr,
    /// On it.
    pub path: Arc<str>,
}

/// Where KV events are published, over ZeroMQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEvents {
    /// `tcp://IP:PORT`.
    pub events: Arc<str>,
    /// For what was missed; without, it is lost.
    pub replay: Option<Arc<str>>,
}

impl Endpoint {
    /// Whether new requests may be sent there.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.state == State::Ready
    }
}

impl Role {
    /// For a name in a file, or the value of the label `llm-d.ai/role` (llm-d/llm-d-router, `scheduling/filter/bylabel/roles.go`).
    /// `None`: neither computes prompts nor generates, or is unknown.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "prefill" | "encode-prefill" => Self::Prefill,
            "decode" => Self::Decode,
            "both" | "prefill-decode" | "encode-prefill-decode" => Self::Both,
            _ => return None,
        })
    }
}

impl Engine {
    /// For a name in a file, or the value of the label `llm-d.ai/engine-type`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "vllm" => Self::Vllm,
            "sglang" => Self::Sglang,
            "baton" => Self::Baton,
            _ => Self::Other,
        }
    }
}
