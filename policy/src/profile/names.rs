//! Names of plugins, and those by which users of llm-d's router know them
//! (llm-d/llm-d-router, `pkg/epp/framework/plugins`), where they mean the same.

use crate::estimate::Term;

/// Scorers, with the terms that they add; the estimate has several.
pub(super) const SCORERS: [(&str, &[Term]); 7] = [
    ("estimate", &Term::ESTIMATE),
    ("prefix", &[Term::Prefix]),
    ("load", &[Term::Load]),
    ("kv-usage", &[Term::KvUsage]),
    ("session", &[Term::Session]),
    ("adapter", &[Term::Adapter]),
    ("topology", &[Term::Topology]),
];

/// Filters, with what they need.
pub(super) const FILTERS: [(&str, &[&str]); 8] = [
    ("drain", &[]),
    ("failed", &["avoid-ms"]),
    ("subset", &[]),
    ("capacity", &[]),
    ("adapter", &[]),
    ("request-labels", &[]),
    ("label", &["key", "value"]),
    ("prefix", &["min-share"]),
];

/// Pickers, with what they need.
pub(super) const PICKERS: [(&str, &[&str]); 3] =
    [("best", &[]), ("near-best", &["within-ms"]), ("power-of-two", &[])];

const SCORER_ALIASES: [(&str, &str); 10] = [
    ("latency-scorer", "estimate"),
    ("prefix-cache-scorer", "prefix"),
    ("precise-prefix-cache-scorer", "prefix"),
    ("queue-scorer", "load"),
    ("load-aware-scorer", "load"),
    ("active-request-scorer", "load"),
    ("running-requests-size-scorer", "load"),
    ("kv-cache-utilization-scorer", "kv-usage"),
    ("session-affinity-scorer", "session"),
    ("lora-affinity-scorer", "adapter"),
];
const FILTER_ALIASES: [(&str, &str); 2] = [("by-label", "label"), ("by-label-selector", "label")];
const PICKER_ALIASES: [(&str, &str); 2] =
    [("max-score-picker", "best"), ("weighted-random-picker", "near-best")];

/// Which kind of plugin a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Filter,
    Scorer,
    Picker,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Scorer => "scorer",
            Self::Picker => "picker",
        }
    }

    /// Our name for what a file says; `None`: there is no such plugin.
    pub(super) fn resolve(self, name: &str) -> Option<&'static str> {
        let (own, aliases): (Vec<&'static str>, &[(&str, &'static str)]) = match self {
            Self::Filter => (FILTERS.iter().map(|filter| filter.0).collect(), &FILTER_ALIASES),
            Self::Scorer => (SCORERS.iter().map(|scorer| scorer.0).collect(), &SCORER_ALIASES),
            Self::Picker => (PICKERS.iter().map(|picker| picker.0).collect(), &PICKER_ALIASES),
        };
        let alias = aliases.iter().find(|alias| alias.0 == name).map(|alias| alias.1);
        alias.or_else(|| own.into_iter().find(|own| *own == name))
    }

    /// All names, for a message.
    pub(super) fn allowed(self) -> String {
        let names: Vec<&str> = match self {
            Self::Filter => FILTERS.iter().map(|filter| filter.0).collect(),
            Self::Scorer => SCORERS.iter().map(|scorer| scorer.0).collect(),
            Self::Picker => PICKERS.iter().map(|picker| picker.0).collect(),
        };
        names.join(", ")
    }
}
