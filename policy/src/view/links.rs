//! Which prefill worker reaches which decode worker, and over what.
//!
//! Paths between thousands of pairs fall into few classes (same host, same rack, same zone…), which follow from where the two
//! are. So workers are in groups (by their topology labels), and a class belongs to a pair of groups; pairs that are not connected
//! are the exception. That is what keeps the joint choice over all pairs cheap.

use serde::{Deserialize, Serialize};

use crate::cost::LinkCost;

/// Bound on groups: the search looks at each (prefill worker, group).
const MOST_GROUPS: usize = 128;

/// A kind of path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkClass {
    /// For people: "same-rack", "efa across zones"…
    pub name: String,
    /// What moving KV blocks over it takes.
    pub cost: LinkCost,
    /// How far apart the two are, 0 (same host) to 1: the topology scorer's points.
    pub distance: f64,
}

/// Paths between groups of workers.
#[derive(Clone, Debug, Default)]
pub struct Links {
    classes: Vec<LinkClass>,
    groups: usize,
    // [from, to]
    class_of: Vec<u8>,
    // [from]: a bit for each `to` that it cannot hand blocks to; what is not there is connected.
    unconnected: Vec<Vec<u64>>,
}

/// There are more groups than a decision looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{groups} groups of workers, at most {MOST_GROUPS} are possible: group by rack or zone, not by host")]
pub struct TooManyGroups {
    /// How many there are.
    pub groups: usize,
}

/// A bit for each of these indexes, in place of what was in `bits`.
pub(crate) fn bits_of(workers: &[usize], bits: &mut Vec<u64>) {
    bits.clear();
    for worker in workers {
        if bits.len() <= worker / 64 {
            bits.resize(worker / 64 + 1, 0);
        }
        bits[worker / 64] |= 1 << (worker % 64);
    }
}

impl Links {
    /// `class_of(from, to)` is an index into `classes`.
    ///
    /// # Errors
    /// [`TooManyGroups`].
    ///
    /// # Panics
    /// When there are no classes but groups.
    pub fn try_new(
        classes: Vec<LinkClass>,
        groups: usize,
        class_of: impl Fn(usize, usize) -> usize,
    ) -> Result<Self, TooManyGroups> {
        if groups > MOST_GROUPS || classes.len() > usize::from(u8::MAX) {
            return Err(TooManyGroups { groups });
        }
        assert!(groups == 0 || !classes.is_empty(), "groups of workers need at least one class of links");
        let last = classes.len().saturating_sub(1);
        let class_of = (0..groups * groups)
            .map(|index| class_of(index / groups, index % groups).min(last) as u8)
            .collect();
        Ok(Self { classes, groups, class_of, unconnected: Vec::new() })
    }

    /// Other classes; groups say which applies, and all are in the first until they do.
    pub fn set_classes(&mut self, classes: Vec<LinkClass>) {
        self.groups = self.groups.max(1);
        self.class_of = vec![0; self.groups * self.groups];
        self.classes = classes;
    }

    /// Other groups: `class_of(from, to)` is an index into the classes, which stay. Who is connected stays, too.
    ///
    /// # Errors
    /// [`TooManyGroups`]; nothing has changed then.
    pub fn regroup(
        &mut self,
        groups: usize,
        class_of: impl Fn(usize, usize) -> usize,
    ) -> Result<(), TooManyGroups> {
        let unconnected = std::mem::take(&mut self.unconnected);
        match Self::try_new(self.classes.clone(), groups, class_of) {
            Ok(links) => *self = links,
            Err(error) => {
                self.unconnected = unconnected;
                return Err(error);
            }
        }
        self.unconnected = unconnected;
        Ok(())
    }

    /// One class for all pairs.
    #[must_use]
    pub fn uniform(cost: LinkCost) -> Self {
        let class = LinkClass { name: "link".to_owned(), cost, distance: 0.0 };
        Self { classes: vec![class], groups: 1, class_of: vec![0], unconnected: Vec::new() }
    }

    /// Says whether prefill worker `from` can hand blocks to decode worker `to` (indexes of workers).
    pub fn set_connected(&mut self, from: usize, to: usize, connected: bool) {
        let (word, bit) = (to / 64, 1 << (to % 64));
        if connected {
            if let Some(word) = self.unconnected.get_mut(from).and_then(|row| row.get_mut(word)) {
                *word &= !bit;
            }
            return;
        }
        if self.unconnected.len() <= from {
            self.unconnected.resize(from + 1, Vec::new());
        }
        let row = &mut self.unconnected[from];
        if row.len() <= word {
            row.resize(word + 1, 0);
        }
        row[word] |= bit;
    }

    /// Whether prefill worker `from` can hand blocks to decode worker `to`.
    #[must_use]
    pub fn is_connected(&self, from: usize, to: usize) -> bool {
        let word = self.unconnected.get(from).and_then(|row| row.get(to / 64));
        word.is_none_or(|word| word >> (to % 64) & 1 == 0)
    }

    /// Whether prefill worker `from` can hand blocks to any other of `workers`: a bit each, as [`bits_of`] gives them.
    #[must_use]
    pub(crate) fn reaches_any(&self, from: usize, workers: &[u64]) -> bool {
        let row = self.unconnected.get(from).map_or(&[][..], |row| row);
        workers.iter().enumerate().any(|(at, &word)| {
            let others = if at == from / 64 { word & !(1 << (from % 64)) } else { word };
            others & !row.get(at).copied().unwrap_or(0) != 0
        })
    }

    /// The class of paths from a group to a group.
    #[must_use]
    pub fn class(&self, from_group: u16, to_group: u16) -> usize {
        let (from, to) = (usize::from(from_group), usize::from(to_group));
        self.class_of.get(from * self.groups + to).map_or(0, |&class| usize::from(class))
    }

    /// All classes.
    #[must_use]
    pub fn classes(&self) -> &[LinkClass] {
        &self.classes
    }

    /// For what was learned of a class.
    pub fn class_mut(&mut self, class: usize) -> Option<&mut LinkClass> {
        self.classes.get_mut(class)
    }

    /// How many groups there are.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dice::Dice;

    #[test]
    fn who_is_connected_is_what_was_said_last() {
        let mut dice = Dice::new(3);
        let (mut links, mut expected) = (Links::uniform(LinkCost::default()), BTreeSet::new());
        for _ in 0..20_000 {
            let (from, to) = (dice.below(5) * 40, dice.below(200));
            let connected = dice.below(3) == 0;
            links.set_connected(from, to, connected);
            if connected {
                expected.remove(&(from, to));
            } else {
                expected.insert((from, to));
            }
            let workers: Vec<usize> = (0..1 + dice.below(4)).map(|_| dice.below(220)).collect();
            let mut bits = vec![7; 9];
            bits_of(&workers, &mut bits);
            let reaches = |&to: &usize| to != from && !expected.contains(&(from, to));
            assert_eq!(links.reaches_any(from, &bits), workers.iter().any(reaches), "{from} to {workers:?}");
            assert_eq!(links.is_connected(from, to), connected);
        }
        assert!(links.is_connected(1, 0) && links.is_connected(0, 1_000), "nothing was said of them");
    }
}
