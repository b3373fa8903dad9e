use serde::{Deserialize, Serialize};

use crate::Micros;

/// Where a run's times come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// A client's clock.
    Measured {
        /// What the client cost during the run.
        client: Client,
        /// The client's floor. A run without it is invalid.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        calibration: Option<Calibration>,
    },
    /// The simulator: predictions, not measurements.
    Simulated {
        /// The workers' profile that was simulated.
        profile: String,
    },
}

/// What the client itself cost while it measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Cores that it was allowed to use.
    pub cores: f64,
    /// CPU time used ÷ (wall time × `cores`), 0 to 1.
    pub cpu_share: f64,
    /// From the intended send time to the actual one: half of the requests were later.
    pub send_lag_p50_us: Micros,
    /// The same, of which one request in a hundred was later.
    pub send_lag_p99_us: Micros,
    /// The machine's time that the hypervisor gave to others, 0 to 1; absent if the machine does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stolen_share: Option<f64>,
}

/// The client's floor: how far it was off before the run, against a built-in server that answers at known times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// What the null server did.
    pub truth: Truth,
    /// Measured TTFT − true TTFT.
    pub ttft_error: Error,
    /// Measured gap − true gap.
    pub itl_error: Error,
    /// What the client cost while calibrating.
    pub client: Client,
}

/// What the null server does, by its own clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Streams at once.
    pub streams: u32,
    /// Until the first token.
    pub ttft_us: Micros,
    /// Between two tokens.
    pub itl_us: Micros,
    /// Tokens of an event.
    pub tokens_per_chunk: u32,
}

/// How far measured times are from true ones, in microseconds; negative is too short.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Error {
    /// Half of the measurements are off by less.
    pub p50_us: f64,
    /// 99 in 100 are off by less.
    pub p99_us: f64,
}
