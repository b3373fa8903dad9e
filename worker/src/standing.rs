//! How a worker stands with each scheduler, and whether it is ready by that.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use baton_process::Readiness;

/// How it stands with all of them; clones share it. It is ready when one scheduler would send it requests.
#[derive(Clone)]
pub(crate) struct Standing {
    readiness: Readiness,
    by_name: Arc<Mutex<BTreeMap<String, State>>>,
}

/// How it stands with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Rejected(String),
    /// Not ready yet, or not any more, and why.
    Waiting(String),
}

impl Standing {
    pub(crate) fn new(readiness: Readiness) -> Self {
        Self { readiness, by_name: Arc::default() }
    }

    pub(crate) fn set(&self, name: &str, state: State) {
        self.change(|by_name| drop(by_name.insert(name.to_owned(), state)));
    }

    pub(crate) fn forget(&self, name: &str) {
        self.change(|by_name| drop(by_name.remove(name)));
    }

    /// Whether each of `names` has rejected it.
    pub(crate) fn is_rejected_by_all<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> bool {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        names.into_iter().all(|name| matches!(by_name.get(name), Some(State::Rejected(_))))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, State>)) {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut by_name);
        // Under the lock, so that the last change has the last word.
        match reason(&by_name) {
            None => self.readiness.set_ready(),
            Some(reason) => self.readiness.set_not_ready(reason),
        }
    }
}

/// Why it is not ready; `None`: it is.
fn reason(by_name: &BTreeMap<String, State>) -> Option<String> {
    if by_name.values().any(|state| *state == State::Ready) {
        return None;
    }
    let mut reasons: Vec<String> = Vec::new();
    for state in by_name.values() {
        let reason = match state {
            State::Ready => continue,
            State::Rejected(reason) => format!("rejected by the scheduler: {reason}"),
            State::Waiting(reason) => reason.clone(),
        };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    Some(if reasons.is_empty() { "no scheduler is known".to_owned() } else { reasons.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(reason: &str) -> State {
        State::Waiting(reason.to_owned())
    }

    #[test]
    fn one_scheduler_is_enough_to_be_ready_and_all_say_why_it_is_not() {
        let readiness = Readiness::not_yet("starting");
        let standing = Standing::new(readiness.clone());
        standing.set("a", waiting("nobody is there"));
        standing.set("b", State::Ready);
        assert_eq!(readiness.check(), Ok(()));
        standing.set("b", waiting("cut off"));
        assert_eq!(readiness.check(), Err("nobody is there; cut off".to_owned()));
        standing.set("a", waiting("cut off"));
        assert_eq!(readiness.check(), Err("cut off".to_owned()));
        standing.set("a", State::Rejected("other weights".to_owned()));
        assert_eq!(readiness.check(), Err("rejected by the scheduler: other weights; cut off".to_owned()));
        let names = ["a".to_owned(), "b".to_owned()];
        assert!(standing.is_rejected_by_all(&names[..1]) && !standing.is_rejected_by_all(&names));
        standing.forget("a");
        standing.forget("b");
        assert_eq!(readiness.check(), Err("no scheduler is known".to_owned()));
    }
}
