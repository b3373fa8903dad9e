//! Who served a session last.

use std::collections::HashMap;

/// Sessions of one generation; twice as many are remembered at most.
const MOST: usize = 50_000;

/// Workers by session. Those that have not been seen for long are forgotten, a generation at a time.
#[derive(Default)]
pub(super) struct Sessions {
    young: HashMap<String, (usize, u64)>,
    old: HashMap<String, (usize, u64)>,
}

impl Sessions {
    /// The worker's slot, and which life of it.
    pub(super) fn get(&self, session: &str) -> Option<(usize, u64)> {
        self.young.get(session).or_else(|| self.old.get(session)).copied()
    }

    pub(super) fn set(&mut self, session: &str, worker: (usize, u64)) {
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
        sessions.set("a", (1, 0));
        sessions.set("a", (2, 5));
        assert_eq!(sessions.get("a"), Some((2, 5)));
        for number in 0..2 * MOST {
            sessions.set(&format!("{number}"), (0, 0));
        }
        assert_eq!(sessions.get("a"), None);
        assert_eq!(sessions.get(&format!("{}", 2 * MOST - 1)), Some((0, 0)));
        assert!(sessions.young.len() + sessions.old.len() <= 2 * MOST);
    }
}
