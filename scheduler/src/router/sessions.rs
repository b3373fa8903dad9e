//! Who served a session last.

use std::collections::HashMap;

use baton_policy::view::Seat;

/// Sessions of one generation; twice as many are remembered at most.
const MOST: usize = 50_000;

/// Workers by session. Those that have not been seen for long are forgotten, a generation at a time.
#[derive(Default)]
pub(super) struct Sessions {
    young: HashMap<String, Seat>,
    old: HashMap<String, Seat>,
}

impl Sessions {
    /// The worker.
    pub(super) fn get(&self, session: &str) -> Option<Seat> {
        self.young.get(session).or_else(|| self.old.get(session)).copied()
    }

    pub(super) fn set(&mut self, session: &str, worker: Seat) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(session.to_owned(), worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_worker_is_remembered_and_old_sessions_are_forgotten() {
        let mut sessions = Sessions::default();
        sessions.set("a", Seat { index: 1, life: 0 });
        sessions.set("a", Seat { index: 2, life: 5 });
        assert_eq!(sessions.get("a"), Some(Seat { index: 2, life: 5 }));
        for number in 0..2 * MOST {
            sessions.set(&format!("{number}"), Seat::default());
        }
        assert_eq!(sessions.get("a"), None);
        assert_eq!(sessions.get(&format!("{}", 2 * MOST - 1)), Some(Seat::default()));
        assert!(sessions.young.len() + sessions.old.len() <= 2 * MOST);
    }
}
