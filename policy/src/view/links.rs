//! Which prefill worker reaches which decode worker, and over what.
//!
//! Paths between thousands of pairs fall into few classes (same host, same rack, same zone…), which follow from where the two
//! are. So workers are in groups (by their topology labels), and a class belongs to a pair of groups; pairs that are not connected
//! are the exception. That is what keeps the joint choice over all pairs cheap.

use std::collections::HashSet;

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
    unconnected: HashSet<(u32, u32)>,
}

/// There are more groups than a decision looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{groups} groups of workers, at most {MOST_GROUPS} are possible: group by rack or zone, not by host")]
pub struct TooManyGroups {
    /// How many there are.
    pub groups: usize,
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
        Ok(Self { classes, groups, class_of, unconnected: HashSet::new() })
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
        Self { classes: vec![class], groups: 1, class_of: vec![0], unconnected: HashSet::new() }
    }

    /// Says whether prefill worker `from` can hand blocks to decode worker `to` (indexes of workers).
    pub fn set_connected(&mut self, from: usize, to: usize, connected: bool) {
        let pair = (from as u32, to as u32);
        if connected {
            self.unconnected.remove(&pair);
        } else {
            self.unconnected.insert(pair);
        }
    }

    /// Whether prefill worker `from` can hand blocks to decode worker `to`.
    #[must_use]
    pub fn is_connected(&self, from: usize, to: usize) -> bool {
        self.unconnected.is_empty() || !self.unconnected.contains(&(from as u32, to as u32))
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
