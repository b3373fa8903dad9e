//! What is known of each pair: pure, no I/O and no clock.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use baton_kv_transfer::OpenError;
use baton_proto::v1::{
    Pair, PairReport,
    pair::{Connected, Refused, State, Unreachable},
    registry_reply::{DecodeWorker, DecodeWorkers},
};

/// Before a peer is tried again: doubled from one failure to the next, up to `MAX_PAUSE`.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Of a text that is passed on.
const MOST_CHARS: usize = 256;

/// A prefill worker's pairs, by decode worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pairs: BTreeMap<Target, PairState>,
    /// The registry has said who is there.
    is_told: bool,
    /// Every decode worker that was there at one time has been tried.
    was_settled: bool,
}

/// A decode worker's transfer node, in one of its lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) worker_id: String,
    incarnation: u64,
    pub(crate) control_endpoint: String,
    pub(crate) node_id: Vec<u8>,
}

/// What came of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PairState {
    /// Not tried to the end yet.
    Trying,
    Connected,
    /// It can never work.
    Refused {
        field: String,
        ours: String,
        theirs: String,
    },
    /// It is tried again.
    Unreachable {
        reason: String,
    },
}

/// What a new list means.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) added: Vec<Target>,
    pub(crate) gone: Vec<Target>,
}

impl Table {
    /// The registry says who is there; pairs that stay keep their state.
    pub(crate) fn want(&mut self, list: DecodeWorkers) -> Changes {
        self.is_told = true;
        let mut former = std::mem::take(&mut self.pairs);
        let mut changes = Changes::default();
        for target in list.workers.into_iter().map(Target::from) {
            // Named twice, it is one.
            let Entry::Vacant(place) = self.pairs.entry(target) else { continue };
            let state = former.remove(place.key()).unwrap_or_else(|| {
                changes.added.push(place.key().clone());
                PairState::Trying
            });
            place.insert(state);
        }
        changes.gone = former.into_keys().collect();
        self.note_settled();
        changes
    }

    /// Notes what came of a try; returns the former state, unless nobody wants the pair any more.
    pub(crate) fn set(&mut self, target: &Target, state: PairState) -> Option<PairState> {
        let former = self.pairs.get_mut(target).map(|present| std::mem::replace(present, state));
        self.note_settled();
        former
    }

    /// Whether there was a moment at which every decode worker that was there had been tried. Those that join later do not
    /// change it.
    pub(crate) fn was_settled(&self) -> bool {
        self.was_settled
    }

    fn note_settled(&mut self) {
        self.was_settled |= self.is_told && !self.pairs.values().any(|state| *state == PairState::Trying);
    }

    /// What the registry is told.
    pub(crate) fn report(&self) -> PairReport {
        let pair = |(target, state): (&Target, &PairState)| {
            let state = match state {
                PairState::Trying => return None,
                PairState::Connected => State::Connected(Connected {}),
                PairState::Refused { field, ours, theirs } => State::Refused(Refused {
                    field: clipped(field),
                    prefill_value: clipped(ours),
                    decode_value: clipped(theirs),
                }),
                PairState::Unreachable { reason } => {
                    State::Unreachable(Unreachable { reason: clipped(reason) })
                }
            };
            let (decode_worker_id, decode_incarnation) = (target.worker_id.clone(), target.incarnation);
            Some(Pair { decode_worker_id, decode_incarnation, state: Some(state) })
        };
        PairReport { pairs: self.pairs.iter().filter_map(pair).collect() }
    }

    /// How many pairs are in each state; of refused ones for each field.
    pub(crate) fn counts(&self) -> BTreeMap<(&'static str, &str), usize> {
        // States that no pair is in are shown too: zero says more than nothing.
        let mut counts: BTreeMap<_, _> =
            ["trying", "connected", "unreachable"].map(|state| ((state, ""), 0)).into();
        for state in self.pairs.values() {
            let field = if let PairState::Refused { field, .. } = state { field.as_str() } else { "" };
            *counts.entry((state.name(), field)).or_insert(0) += 1;
        }
        counts
    }
}

impl PairState {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Trying => "trying",
            Self::Connected => "connected",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
        }
    }

    /// A pair that did not come about.
    pub(crate) fn failed(error: OpenError) -> Self {
        match error {
            OpenError::Incompatible { field, ours, theirs, .. } => Self::Refused { field, ours, theirs },
            error => Self::Unreachable { reason: error.to_string() },
        }
    }
}

impl From<DecodeWorker> for Target {
    fn from(worker: DecodeWorker) -> Self {
        let DecodeWorker { worker_id, incarnation, control_endpoint, node_id } = worker;
        Self { worker_id, incarnation, control_endpoint, node_id: node_id.into() }
    }
}

/// The pause after so many failures in a row; `random`, from 0 to 1, spreads those who failed together.
pub(crate) fn pause(failures: u32, random: f64) -> Duration {
    let whole = MIN_PAUSE.saturating_mul(1 << failures.min(16)).min(MAX_PAUSE);
    whole.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

fn clipped(text: &str) -> String {
    text.chars().take(MOST_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str, incarnation: u64) -> DecodeWorker {
        let node_id = vec![incarnation as u8; 16].into();
        DecodeWorker { worker_id: id.to_owned(), incarnation, control_endpoint: format!("tcp:{id}"), node_id }
    }

    fn target(id: &str, incarnation: u64) -> Target {
        worker(id, incarnation).into()
    }

    fn list<const N: usize>(workers: [DecodeWorker; N]) -> DecodeWorkers {
        DecodeWorkers { workers: workers.into() }
    }

    fn refused() -> PairState {
        PairState::failed(OpenError::Incompatible {
            endpoint: "tcp:a".to_owned(),
            field: "layers".to_owned(),
            ours: "1".to_owned(),
            theirs: "2".repeat(9999),
        })
    }

    #[test]
    fn a_new_list_adds_forgets_and_keeps() {
        let mut table = Table::default();
        let changes = table.want(list([worker("a", 1), worker("b", 1), worker("a", 1)]));
        assert_eq!(changes, Changes { added: vec![target("a", 1), target("b", 1)], gone: vec![] });
        table.set(&target("a", 1), PairState::Connected).unwrap();

        // `b` was started again, `a` stays as it is.
        let changes = table.want(list([worker("a", 1), worker("b", 2)]));
        assert_eq!(changes, Changes { added: vec![target("b", 2)], gone: vec![target("b", 1)] });
        assert_eq!(table.pairs[&target("a", 1)], PairState::Connected);
        assert_eq!(table.set(&target("b", 1), PairState::Connected), None, "it is not wanted any more");
        assert_eq!(table.pairs[&target("b", 2)], PairState::Trying);

        assert_eq!(table.want(list([])).gone, [target("a", 1), target("b", 2)]);
    }

    #[test]
    fn it_is_settled_once_the_list_is_there_and_all_of_it_was_tried() {
        let mut table = Table::default();
        assert!(!table.was_settled(), "nobody has said who is there");
        table.want(list([worker("a", 1), worker("b", 1), worker("c", 1)]));
        assert!(!table.was_settled());
        table.set(&target("a", 1), PairState::Unreachable { reason: String::new() });
        table.set(&target("b", 1), refused());
        assert!(!table.was_settled(), "one is not tried yet");
        let mut one_left = table.clone();
        one_left.want(list([worker("a", 1), worker("b", 1)]));
        assert!(one_left.was_settled(), "and need not be");
        table.set(&target("c", 1), PairState::Connected);
        assert!(table.was_settled(), "whatever came of it");
        table.want(list([worker("d", 1)]));
        assert!(table.was_settled(), "who joins later changes nothing");

        let mut nobody = Table::default();
        nobody.want(list([]));
        assert!(nobody.was_settled(), "nobody is there");
    }

    #[test]
    fn the_report_has_what_was_tried_and_no_long_texts() {
        let mut table = Table::default();
        table.want(list([worker("a", 1), worker("b", 1), worker("c", 3)]));
        table.set(&target("a", 1), refused());
        table.set(&target("c", 3), PairState::Connected);
        let PairReport { pairs } = table.report();
        let named: Vec<_> =
            pairs.iter().map(|p| (p.decode_worker_id.as_str(), p.decode_incarnation)).collect();
        assert_eq!(named, [("a", 1), ("c", 3)]);
        let Some(State::Refused(refused)) = &pairs[0].state else { panic!("{pairs:?}") };
        assert_eq!((refused.field.as_str(), refused.prefill_value.as_str()), ("layers", "1"));
        assert_eq!(refused.decode_value.len(), MOST_CHARS);
        assert_eq!(
            table.counts().into_iter().collect::<Vec<_>>(),
            [
                (("connected", ""), 1),
                (("refused", "layers"), 1),
                (("trying", ""), 1),
                (("unreachable", ""), 0)
            ]
        );
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_spread() {
        assert_eq!((pause(0, 1.0), pause(0, 0.0)), (MIN_PAUSE, MIN_PAUSE / 2));
        assert_eq!((pause(1, 1.0), pause(3, 1.0)), (2 * MIN_PAUSE, 8 * MIN_PAUSE));
        for failures in [7, 100, u32::MAX] {
            assert_eq!((pause(failures, 1.0), pause(failures, 0.0)), (MAX_PAUSE, MAX_PAUSE / 2));
        }
    }
}
