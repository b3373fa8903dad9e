//! Grammars that were compiled before: clients send the same one with each request.

use std::{collections::HashMap, sync::Arc};

use crate::Grammar;

/// Compiled grammars by their text; the least recently used make room.
#[derive(Default)]
pub(crate) struct Cache {
    entries: HashMap<Arc<str>, Entry>,
    uses: u64,
    bytes: usize,
}

struct Entry {
    grammar: Grammar,
    last_use: u64,
}

/// Most grammars kept: a compiled one takes some hundred kB.
const MAX_ENTRIES: usize = 64;
/// Most text kept, a measure for how large compiled grammars are.
const MAX_BYTES: usize = 2 << 20;

impl Cache {
    pub(crate) fn get(&mut self, source: &str) -> Option<Grammar> {
        self.uses += 1;
        let entry = self.entries.get_mut(source)?;
        entry.last_use = self.uses;
        Some(entry.grammar.clone())
    }

    pub(crate) fn insert(&mut self, source: &Arc<str>, grammar: Grammar) {
        self.uses += 1;
        let entry = Entry { grammar, last_use: self.uses };
        if self.entries.insert(source.clone(), entry).is_none() {
            self.bytes += source.len();
        }
        while self.entries.len() > MAX_ENTRIES || (self.bytes > MAX_BYTES && self.entries.len() > 1) {
            self.evict();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn evict(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_use);
        if let Some(source) = oldest.map(|(source, _)| source.clone()) {
            self.bytes -= source.len();
            self.entries.remove(&source);
        }
    }
}
