use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Client, Micros, Origin};

/// A run whose 99th percentile of the send lag is above this measured its client.
pub const INVALID_ABOVE_SEND_LAG: Micros = Micros(1_000);

/// A run whose client used more than this share of its cores measured its client.
pub const INVALID_ABOVE_CPU_SHARE: f64 = 0.70;

/// Whether a run's figures may be believed: they may if there is no reason against it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Validity {
    /// Why not.
    pub reasons: Vec<Invalid>,
}

/// A reason not to believe a run's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Invalid {
    /// Requests were sent too late.
    SendLag {
        /// The 99th percentile.
        p99_us: Micros,
        /// What is allowed.
        limit_us: Micros,
    },
    /// The client was short of CPU.
    ClientCpu {
        /// What it used of its cores, 0 to 1.
        share: f64,
        /// What is allowed.
        limit: f64,
    },
    /// Nobody knows how far the client was off.
    NotCalibrated,
    /// Something else.
    Other {
        /// A sentence about it.
        text: String,
    },
}

impl Validity {
    /// Judges by what the client cost. A simulation has no client, so nothing speaks against it here.
    pub fn of(origin: &Origin) -> Self {
        match origin {
            Origin::Simulated { .. } => Self::default(),
            Origin::Measured { client, calibration } => {
                let mut judged = Self::of_client(client);
                if calibration.is_none() {
                    judged.reasons.push(Invalid::NotCalibrated);
                }
                judged
            }
        }
    }

    /// Judges a client, be it of a run or of its calibration.
    pub fn of_client(client: &Client) -> Self {
        let mut reasons = Vec::new();
        if client.send_lag_p99_us > INVALID_ABOVE_SEND_LAG {
            reasons
                .push(Invalid::SendLag { p99_us: client.send_lag_p99_us, limit_us: INVALID_ABOVE_SEND_LAG });
        }
        if client.cpu_share > INVALID_ABOVE_CPU_SHARE {
            reasons.push(Invalid::ClientCpu { share: client.cpu_share, limit: INVALID_ABOVE_CPU_SHARE });
        }
        Self { reasons }
    }

    /// Whether nothing speaks against the figures.
    pub fn is_valid(&self) -> bool {
        self.reasons.is_empty()
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_valid() {
            return out.write_str("valid");
        }
        out.write_str("INVALID: ")?;
        for (n, reason) in self.reasons.iter().enumerate() {
            if n > 0 {
                out.write_str("; ")?;
            }
            reason.fmt(out)?;
        }
        Ok(())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SendLag { p99_us, limit_us } => write!(
                out,
                "the client sent late (lag p99 {:.1} ms, limit {:.1} ms)",
                p99_us.millis(),
                limit_us.millis()
            ),
            Self::ClientCpu { share, limit } => {
                write!(
                    out,
                    "the client was short of CPU ({:.0} % of its cores, limit {:.0} %)",
                    share * 100.0,
                    limit * 100.0
                )
            }
            Self::NotCalibrated => out.write_str("the client was not calibrated"),
            Self::Other { text } => out.write_str(text),
        }
    }
}
