use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What was run: enough to run it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What tables and legends call it, such as `baton 2P:1D`. Runs of one name and different loads are one curve.
    pub name: String,
    /// What measured, such as `baton 0.1.0`.
    pub tool: String,
    /// The command line, word for word. No secrets: the load generator leaves keys out.
    pub command: Vec<String>,
    /// The server's base URL.
    pub target: String,
    /// The API's path, such as `/v1/chat/completions`.
    pub endpoint: String,
    /// The model that was asked for.
    pub model: String,
    /// Whether answers were streamed. If not, nothing is known of first tokens and gaps.
    pub streaming: bool,
    /// The root seed of the plan.
    pub seed: u64,
    /// The plan's SHA-256 in hexadecimal: the same for the same requests at the same times.
    pub plan_sha256: String,
    /// When it began.
    #[serde(with = "rfc3339")]
    pub started_at: SystemTime,
    /// The load that was offered.
    pub load: Load,
    /// What else a reader should know: machine, cores, workers, commit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
}

/// The load that was offered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Load {
    /// A number of clients, each of which sends as soon as it has its answer.
    Closed {
        /// How many.
        concurrency: u32,
    },
    /// Requests at times that do not depend on answers.
    Open {
        /// How they come, such as `poisson`, `constant`, `gamma(0.5)`, `trace conversation.jsonl x2`.
        arrivals: String,
        /// Requests per second on average.
        requests_per_second: f64,
    },
}

impl Load {
    /// Clients at once, or requests per second: what curves are drawn over.
    pub fn size(&self) -> f64 {
        match self {
            Self::Closed { concurrency } => f64::from(*concurrency),
            Self::Open { requests_per_second, .. } => *requests_per_second,
        }
    }
}

/// An instant as RFC 3339 in UTC.
pub(crate) mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&humantime::format_rfc3339_millis(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(text: D) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339_weak(&String::deserialize(text)?).map_err(D::Error::custom)
    }
}
