use serde::{Deserialize, Serialize};

use crate::Micros;

/// How busy a worker was around an instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Utilisation {
    /// When, since the start of the run.
    pub at_us: Micros,
    /// The worker's name.
    pub worker: String,
    /// What it does.
    pub role: Role,
    /// The share of the time since its last sample in which it computed, 0 to 1.
    pub busy: f64,
    /// Requests that it was computing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u32>,
    /// Requests that waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
    /// The share of its KV blocks in use, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_used: Option<f64>,
}

/// What a worker computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Prompts.
    Prefill,
    /// Answers.
    Decode,
    /// Both.
    Both,
}
