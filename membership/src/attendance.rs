//! What is done for each scheduler, for as long as it is on the list.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use tokio_util::sync::CancellationToken;

/// A token for each scheduler that is attended to; cancelled when it leaves the list, or when the parent token is.
#[derive(Debug)]
pub struct Attendance {
    until: CancellationToken,
    tokens: BTreeMap<String, CancellationToken>,
}

impl Attendance {
    /// Of nobody yet; all of it ends with `until`.
    pub fn new(until: CancellationToken) -> Self {
        Self { until, tokens: BTreeMap::new() }
    }

    /// `names` are the schedulers from now on: ends what is done for others, and has `begin` begin with those that are new. Whom it
    /// says `false` of counts as new again the next time.
    pub fn follow(
        &mut self,
        names: &BTreeSet<String>,
        mut begin: impl FnMut(&str, CancellationToken) -> bool,
    ) {
        self.tokens.retain(|name, token| {
            let stays = names.contains(name);
            if !stays {
                token.cancel();
            }
            stays
        });
        for name in names {
            let Entry::Vacant(place) = self.tokens.entry(name.clone()) else { continue };
            let token = self.until.child_token();
            if begin(name, token.clone()) {
                place.insert(token);
            }
        }
    }

    /// The token of one that is attended to.
    pub fn token(&self, name: &str) -> Option<&CancellationToken> {
        self.tokens.get(name)
    }

    /// Who is attended to.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.tokens.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_is_begun_once_and_ended_when_it_leaves() {
        let until = CancellationToken::new();
        let mut attendance = Attendance::new(until.clone());
        let mut begun: Vec<(String, CancellationToken)> = Vec::new();
        let mut follow = |list: &[&str]| {
            attendance.follow(&names(list), |name, token| {
                begun.push((name.to_owned(), token));
                name != "bad"
            });
            begun.iter().map(|(name, token)| (name.clone(), token.is_cancelled())).collect::<Vec<_>>()
        };
        let state = |list: &[(&str, bool)]| {
            list.iter().map(|(name, ended)| ((*name).to_owned(), *ended)).collect::<Vec<_>>()
        };
        assert_eq!(follow(&["a", "b"]), state(&[("a", false), ("b", false)]));
        assert_eq!(follow(&["b", "bad"]), state(&[("a", true), ("b", false), ("bad", false)]));
        // One that could not be begun is tried again, one that came back is begun anew.
        assert_eq!(
            follow(&["a", "b", "bad"]),
            state(&[("a", true), ("b", false), ("bad", false), ("a", false), ("bad", false)])
        );
        assert_eq!(attendance.names().collect::<Vec<_>>(), ["a", "b"]);
        until.cancel();
        assert!(attendance.token("a").is_some_and(CancellationToken::is_cancelled));
    }
}
