use serde::{Deserialize, Serialize};

use crate::{Origin, Record, Run, Slo, Summary, Trim, Utilisation, Validity};

/// What a document of one run calls itself, in its field `schema`.
pub const SCHEMA: &str = "baton.bench.run";

/// The version that this code writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// What the load generator hands over when a run is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was run.
    pub run: Run,
    /// Where its times come from.
    pub origin: Origin,
    /// What requests should meet.
    #[serde(default)]
    pub slo: Slo,
    /// What is left out at both ends.
    #[serde(default)]
    pub trim: Trim,
    /// How busy workers were, if the server told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub utilisation: Vec<Utilisation>,
    /// Reasons against the run that only the load generator knows; [`Document::new`] adds those that follow from `origin`.
    #[serde(default)]
    pub validity: Validity,
    /// Every request of the plan, sent or not, by index.
    pub records: Vec<Record>,
}

/// One run with all that follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What was measured.
    pub measured: Measured,
    /// What it comes to.
    pub summary: Summary,
}

impl Document {
    /// Judges what was measured, and computes all figures.
    pub fn new(mut measured: Measured) -> Self {
        measured.records.sort_by_key(|record| record.index);
        measured.validity.reasons.extend(Validity::of(&measured.origin).reasons);
        Self { summary: Summary::of(&measured), measured }
    }
}
