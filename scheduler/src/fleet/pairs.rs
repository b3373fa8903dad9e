//! What prefill workers have reported of their pairs, and what it means for the fleet that is here.

use std::{collections::BTreeMap, fmt, sync::Arc};

use baton_proto::v1::{PairReport, pair::State};

/// A prefill worker's last report, by decode worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pairs {
    reported: Arc<BTreeMap<String, (u64, PairState)>>,
}

/// What came of a prefill worker and a decode worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PairState {
    /// Nothing is known yet.
    Trying,
    Connected,
    Refused(Difference),
    Unreachable(String),
}

/// Why two workers can never be paired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) field: String,
    pub(crate) prefill: String,
    pub(crate) decode: String,
}

/// A pair of workers that are here, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PairView {
    pub(crate) prefill: String,
    pub(crate) decode: String,
    pub(crate) state: PairState,
}

impl From<PairReport> for Pairs {
    fn from(report: PairReport) -> Self {
        let pair = |pair: baton_proto::v1::Pair| {
            let state = match pair.state? {
                State::Connected(_) => PairState::Connected,
                State::Refused(refused) => PairState::Refused(Difference {
                    field: refused.field,
                    prefill: refused.prefill_value,
                    decode: refused.decode_value,
                }),
                State::Unreachable(unreachable) => PairState::Unreachable(unreachable.reason),
            };
            Some((pair.decode_worker_id, (pair.decode_incarnation, state)))
        };
        Self { reported: Arc::new(report.pairs.into_iter().filter_map(pair).collect()) }
    }
}

impl Pairs {
    /// Whether KV blocks can be handed to this life of a decode worker.
    pub(super) fn has(&self, decode_worker_id: &str, incarnation: u64) -> bool {
        self.reported.get(decode_worker_id) == Some(&(incarnation, PairState::Connected))
    }

    /// The pair with this life of a decode worker.
    pub(super) fn state(&self, decode_worker_id: &str, incarnation: u64) -> PairState {
        match self.reported.get(decode_worker_id) {
            Some((reported, state)) if *reported == incarnation => state.clone(),
            // Of a former life; this one has not been tried.
            Some(_) | None => PairState::Trying,
        }
    }
}

impl PairState {
    /// For metrics and lists.
    pub(crate) const NAMES: [&str; 4] = ["trying", "connected", "refused", "unreachable"];

    pub(crate) fn name(&self) -> &'static str {
        let [trying, connected, refused, unreachable] = Self::NAMES;
        match self {
            Self::Trying => trying,
            Self::Connected => connected,
            Self::Refused(_) => refused,
            Self::Unreachable(_) => unreachable,
        }
    }

    /// Whether waiting changes nothing.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self, Self::Connected | Self::Refused(_))
    }
}

impl fmt::Display for PairView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefill, decode, state } = self;
        match state {
            PairState::Trying => write!(f, "{prefill} is connecting to {decode}"),
            PairState::Connected => write!(f, "{prefill} is connected to {decode}"),
            PairState::Refused(difference) => {
                let Difference { field, prefill: ours, decode: theirs } = difference;
                write!(
                    f,
                    "{prefill} and {decode} are never paired: {field} is `{ours}` at {prefill} and `{theirs}` at {decode}"
                )
            }
            PairState::Unreachable(reason) => write!(f, "{prefill} cannot reach {decode}: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_proto::v1::{
        Pair,
        pair::{Connected, Refused, Unreachable},
    };

    use super::*;

    #[test]
    fn a_report_is_read_by_worker_and_by_life() {
        let pair = |id: &str, incarnation, state| Pair {
            decode_worker_id: id.to_owned(),
            decode_incarnation: incarnation,
            state,
        };
        let refused = Refused {
            field: "model".to_owned(),
            prefill_value: "a".to_owned(),
            decode_value: "b".to_owned(),
        };
        let pairs = Pairs::from(PairReport {
            pairs: vec![
                pair("a", 1, Some(State::Connected(Connected {}))),
                pair("b", 2, Some(State::Refused(refused))),
                pair("c", 3, Some(State::Unreachable(Unreachable { reason: "cut".to_owned() }))),
                // From a newer worker.
                pair("d", 4, None),
            ],
        });
        assert!(pairs.has("a", 1) && !pairs.has("a", 2) && !pairs.has("b", 1));
        assert_eq!(pairs.state("a", 1), PairState::Connected);
        assert_eq!(pairs.state("a", 2), PairState::Trying, "another life");
        assert_eq!((pairs.state("d", 4), pairs.state("e", 5)), (PairState::Trying, PairState::Trying));
        assert!(!pairs.state("c", 3).is_settled());
        let state = pairs.state("b", 2);
        assert!(state.is_settled());
        let view = PairView { prefill: "p".to_owned(), decode: "b".to_owned(), state };
        assert_eq!(view.to_string(), "p and b are never paired: model is `a` at p and `b` at b");
    }
}
