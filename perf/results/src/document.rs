use crate::{Origin, Record, Run, Slo, Summary, Trim, Utilisation, Validity};

/// What the load generator hands over when a run is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What was run.
    pub run: Run,
    /// Where its times come from.
    pub origin: Origin,
    /// What requests should meet.
    pub slo: Slo,
    /// What is left out at both ends.
    pub trim: Trim,
    /// How busy workers were, if the server told.
    pub utilisation: Vec<Utilisation>,
    /// Reasons against the run that only the load generator knows; [`Document::new`] adds those that follow from `origin`.
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
        for reason in Validity::of(&measured.origin).reasons {
            if !measured.validity.reasons.contains(&reason) {
                measured.validity.reasons.push(reason);
            }
        }
        Self { summary: Summary::of(&measured), measured }
    }
}
