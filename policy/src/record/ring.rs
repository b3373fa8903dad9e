//! The last decisions.

use std::collections::{HashMap, VecDeque};

use super::{Outcome, Record};

/// Holds a bounded number of records; the oldest leaves first.
#[derive(Clone, Debug)]
pub struct Ring {
    most: usize,
    records: VecDeque<Record>,
    // Of a request that was placed again, the last one counts.
    numbers: HashMap<String, u64>,
    first: u64,
}

impl Ring {
    /// For at most `most` records.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), records: VecDeque::new(), numbers: HashMap::new(), first: 0 }
    }

    /// Adds a record; returns the one that had to leave, for a file.
    pub fn push(&mut self, record: Record) -> Option<Record> {
        let leaving = (self.records.len() >= self.most).then(|| self.records.pop_front()).flatten();
        if let Some(leaving) = &leaving {
            if self.numbers.get(&leaving.request_id) == Some(&self.first) {
                self.numbers.remove(&leaving.request_id);
            }
            self.first += 1;
        }
        self.numbers.insert(record.request_id.clone(), self.first + self.records.len() as u64);
        self.records.push_back(record);
        leaving
    }

    /// The last decision on `request_id`.
    #[must_use]
    pub fn get(&self, request_id: &str) -> Option<&Record> {
        let number = self.numbers.get(request_id)?;
        self.records.get((number - self.first) as usize)
    }

    /// Says what happened to a request; what is not here any more is ignored.
    pub fn settle(&mut self, request_id: &str, outcome: Outcome) {
        let Some(number) = self.numbers.get(request_id) else { return };
        if let Some(record) = self.records.get_mut((number - self.first) as usize) {
            record.outcome = Some(outcome);
        }
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}
