//! A router's view of an engine's prefix cache, kept by its events alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use baton_engine::{CacheEvent, CacheObserver};

use crate::support::BLOCK_TOKENS;

/// Its parent and its tokens.
type Block = (Option<u64>, Vec<u32>);

/// What the events say is cached: the parent and the tokens of each block. Every event must make sense after those before it.
#[derive(Clone, Default)]
pub(crate) struct Mirror {
    blocks: Arc<Mutex<BTreeMap<u64, Block>>>,
    log: Arc<Mutex<Vec<CacheEvent>>>,
    tellings: Arc<Mutex<usize>>,
}

impl Mirror {
    pub(crate) fn len(&self) -> usize {
        self.blocks.lock().unwrap().len()
    }

    /// All events so far.
    pub(crate) fn log(&self) -> Vec<CacheEvent> {
        self.log.lock().unwrap().clone()
    }

    /// How often it was told all at once.
    pub(crate) fn tellings(&self) -> usize {
        *self.tellings.lock().unwrap()
    }

    /// How many tokens of `prompt` a router would say are cached.
    pub(crate) fn cached_tokens(&self, prompt: &[u32]) -> usize {
        let blocks = self.blocks.lock().unwrap();
        let mut parent = None;
        let found = prompt.chunks_exact(BLOCK_TOKENS).take_while(|tokens| {
            let child = blocks.iter().find(|(_, (after, held))| *after == parent && held == tokens);
            parent = child.map(|(hash, _)| *hash);
            parent.is_some()
        });
        found.count() * BLOCK_TOKENS
    }

    fn apply(&self, event: &CacheEvent) {
        let mut blocks = self.blocks.lock().unwrap();
        match event {
            CacheEvent::Stored { hashes, parent, tokens, .. } => {
                assert_eq!(tokens.len(), hashes.len() * BLOCK_TOKENS);
                let mut parent = *parent;
                for (hash, tokens) in hashes.iter().zip(tokens.chunks_exact(BLOCK_TOKENS)) {
                    assert!(parent.is_none_or(|parent| blocks.contains_key(&parent)), "an orphan: {event:?}");
                    let before = blocks.insert(*hash, (parent, tokens.to_vec()));
                    assert_eq!(before, None, "stored twice: {event:?}");
                    parent = Some(*hash);
                }
            }
            CacheEvent::Removed { hashes } => {
                for hash in hashes {
                    assert!(blocks.remove(hash).is_some(), "removed and never stored: {event:?}");
                    assert!(
                        !blocks.values().any(|(parent, _)| *parent == Some(*hash)),
                        "removed before its children: {event:?}"
                    );
                }
            }
            CacheEvent::Cleared => blocks.clear(),
        }
    }
}

impl CacheObserver for Mirror {
    fn changed(&mut self, events: Vec<CacheEvent>) {
        assert!(!events.is_empty());
        events.iter().for_each(|event| self.apply(event));
        self.log.lock().unwrap().extend(events);
    }

    fn all(&mut self, stored: Vec<CacheEvent>) {
        let told = Self::default();
        stored.iter().for_each(|event| told.apply(event));
        assert_eq!(
            *told.blocks.lock().unwrap(),
            *self.blocks.lock().unwrap(),
            "all that was told event by event"
        );
        *self.tellings.lock().unwrap() += 1;
    }
}
