use serde::{Deserialize, Serialize};

use crate::Micros;

/// What is left out at both ends of a run, so that figures are of its steady state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trim {
    /// After the first request's intended send time.
    pub warm_up_us: Micros,
    /// Before the last event of the run.
    pub cool_down_us: Micros,
}
