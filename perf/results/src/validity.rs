use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Client, Micros, Origin};

/// A run whose 99th percentile of the send lag is above this measured its client.
pub const INVALID_ABOVE_SEND_LAG: Micros = Micros(1_000);

/// A run whose client used more than this share of its cores measured its client.
pub const INVALID_ABOVE_CPU_SHARE: f64 = 0.70;

/// Whether a run's figures may be believed: they may if there is no reason against it.
///
/// In JSON, `{"valid": …, "reasons": [{"reason": …, "message": a sentence, …}]}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
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

#[derive(Serialize, Deserialize)]
struct Wire {
    valid: bool,
    reasons: Vec<WireReason>,
}

#[derive(Serialize, Deserialize)]
struct WireReason {
    #[serde(flatten)]
    reason: Invalid,
    /// For readers; not read back.
    #[serde(default)]
    message: String,
}

impl From<Wire> for Validity {
    fn from(wire: Wire) -> Self {
        Self { reasons: wire.reasons.into_iter().map(|wire| wire.reason).collect() }
    }
}

impl From<Validity> for Wire {
    fn from(validity: Validity) -> Self {
        let told = |reason: Invalid| WireReason { message: reason.to_string(), reason };
        Self { valid: validity.is_valid(), reasons: validity.reasons.into_iter().map(told).collect() }
    }
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

    /// Judges several runs as one: a reason of any is a reason of all. `name` says whose it was.
    pub fn of_all<'a>(runs: impl IntoIterator<Item = (String, &'a Self)>) -> Self {
        let named = |(name, validity): (String, &'a Self)| {
            let reasons = validity.reasons.iter();
            reasons.map(move |reason| Invalid::Other { text: format!("{name}: {reason}") })
        };
        Self { reasons: runs.into_iter().flat_map(named).collect() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{client, measured};

    #[test]
    fn a_busy_or_late_client_makes_a_run_invalid_and_says_why() {
        let calm = Validity::of_client(&client());
        assert_eq!(calm.to_string(), "valid");
        let late = Client { send_lag_p99_us: Micros(1_001), cpu_share: 0.71, ..client() };
        assert_eq!(
            Validity::of_client(&late).to_string(),
            "INVALID: the client sent late (lag p99 1.0 ms, limit 1.0 ms); \
             the client was short of CPU (71 % of its cores, limit 70 %)"
        );
        let at_the_limits = Client { send_lag_p99_us: Micros(1_000), cpu_share: 0.70, ..client() };
        assert!(Validity::of_client(&at_the_limits).is_valid());
    }

    #[test]
    fn a_run_that_was_not_calibrated_is_invalid_and_a_simulation_has_no_client() {
        let Origin::Measured { client, .. } = measured(Vec::new()).origin else { unreachable!() };
        let origin = Origin::Measured { client, calibration: None };
        assert_eq!(Validity::of(&origin).reasons, [Invalid::NotCalibrated]);
        assert!(Validity::of(&Origin::Simulated { profile: "p5".into() }).is_valid());
    }

    #[test]
    fn json_says_it_in_a_word_and_in_sentences() {
        let validity = Validity { reasons: vec![Invalid::ClientCpu { share: 0.75, limit: 0.7 }] };
        let json = serde_json::to_string(&validity).expect("it is JSON");
        assert_eq!(
            json,
            concat!(
                r#"{"valid":false,"reasons":[{"reason":"client_cpu","share":0.75,"limit":0.7,"#,
                r#""message":"the client was short of CPU (75 % of its cores, limit 70 %)"}]}"#
            )
        );
        assert_eq!(serde_json::from_str::<Validity>(&json).expect("it is read back"), validity);
    }
}
