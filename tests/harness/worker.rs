//! A worker of a deployment, as the front's registry shows it.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Client, Metrics};

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Computes prompts.
    Prefill,
    /// Writes answers.
    Decode,
}

/// A worker's process.
#[derive(Clone)]
pub(crate) struct Worker {
    /// Its name in the fleet.
    pub(crate) id: String,
    /// What it does.
    pub(crate) role: Role,
    pid: u32,
    admin: Client,
}

impl Worker {
    /// From an entry of `GET /v1/workers`.
    pub(crate) fn from_json(entry: &Value) -> Self {
        let text = |field: &str| {
            entry[field].as_str().unwrap_or_else(|| panic!("a worker without {field}: {entry}"))
        };
        let role = match text("role") {
            "prefill" => Role::Prefill,
            "decode" => Role::Decode,
            other => panic!("unknown role {other}"),
        };
        let pid = entry["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        Self {
            id: text("worker_id").to_owned(),
            role,
            pid: pid.filter(|&pid| pid > 0).unwrap_or_else(|| panic!("a worker without pid: {entry}")),
            admin: Client::new(format!("http://{}", text("admin_endpoint"))),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Signals its process.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid.cast_signed()).expect("a pid above 0");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?} to {}: {error}", self.id));
    }

    /// Its metrics now.
    pub(crate) fn metrics(&self) -> Metrics {
        self.try_metrics().unwrap_or_else(|error| panic!("{}: {error}", self.id))
    }

    /// Its metrics now, or why there are none.
    pub(crate) fn try_metrics(&self) -> Result<Metrics, String> {
        let reply = self.admin.try_get("/metrics").map_err(|error| format!("{}: {error}", self.id))?;
        Ok(Metrics::parse(&reply.body))
    }

    /// KV blocks that are not free.
    pub(crate) fn blocks_in_use(&self) -> f64 {
        blocks_in_use(&self.metrics())
    }

    /// Requests being computed.
    pub(crate) fn running(&self) -> f64 {
        self.metrics().get("vllm:num_requests_running", &[])
    }

    /// Tokens sampled so far.
    pub(crate) fn tokens_generated(&self) -> f64 {
        self.metrics().get("vllm:generation_tokens_total", &[])
    }

    /// Writes that arrived so far, also of transfers that are not complete.
    pub(crate) fn writes_received(&self) -> f64 {
        self.transfer("writes_received_total")
    }

    /// Writes that the fabric has carried out for it.
    pub(crate) fn writes_sent(&self) -> f64 {
        self.transfer("writes_sent_total")
    }

    /// Transfers that arrived whole and passed every check.
    pub(crate) fn transfers_completed(&self) -> f64 {
        self.transfer("incoming_completed_total")
    }

    /// Transfers that were expected and did not arrive whole.
    pub(crate) fn transfers_failed(&self) -> f64 {
        self.transfer("incoming_failed_total") + self.transfer("incoming_aborted_total")
    }

    /// Bytes of the transfers that arrived whole.
    pub(crate) fn bytes_received(&self) -> f64 {
        self.transfer("bytes_received_total")
    }

    /// Bytes that it pushed.
    pub(crate) fn bytes_sent(&self) -> f64 {
        self.transfer("bytes_sent_total")
    }

    fn transfer(&self, counter: &str) -> f64 {
        self.metrics().get(&format!("baton_transfer_{counter}"), &[])
    }
}

/// KV blocks that are not free.
pub(crate) fn blocks_in_use(metrics: &Metrics) -> f64 {
    metrics.get("baton_kv_blocks_in_use", &[])
}
