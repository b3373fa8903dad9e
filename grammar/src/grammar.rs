//! A compiled grammar, and how far one sequence has come in it.

use std::{fmt, sync::Arc};

use llguidance::{Matcher, toktrie::SimpleVob};

use crate::GrammarBroken;

/// A compiled grammar; clones share it. Equal when made from the same text.
#[derive(Clone)]
pub struct Grammar {
    source: Arc<str>,
    // Never moved on: each sequence gets a copy of its own, with a lexer of its own, so what one sequence made the lexer
    // remember neither counts against another's limit nor outlives it.
    fresh: Arc<Matcher>,
}

/// How far one sequence has come in a grammar.
pub struct GrammarState {
    matcher: Matcher,
    broken: Option<GrammarBroken>,
}

impl Grammar {
    pub(crate) fn new(source: Arc<str>, fresh: Matcher) -> Self {
        Self { source, fresh: Arc::new(fresh) }
    }

    /// For a sequence that begins.
    pub fn start(&self) -> GrammarState {
        GrammarState { matcher: self.fresh.deep_clone(), broken: None }
    }

    /// The text that it was made from.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl GrammarState {
    /// Sets the logits of all tokens that may not come next to negative infinity. When the grammar is complete, the tokens
    /// that end a text may come too; when nothing may be added to it, they alone.
    ///
    /// Its time is bounded by llguidance's limits on one step (milliseconds); what is usual takes much less.
    ///
    /// # Errors
    /// The grammar can't be followed further.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarBroken> {
        self.check()?;
        match self.matcher.compute_mask_or_eos() {
            Ok(allowed) => {
                forbid_others(&allowed, logits);
                Ok(())
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Whether `id` may come next; much cheaper than a whole mask.
    ///
    /// # Errors
    /// The grammar can't be followed further.
    pub fn allows(&mut self, id: u32) -> Result<bool, GrammarBroken> {
        self.check()?;
        let is_end = self.is_end(id);
        if self.matcher.is_stopped() {
            return Ok(is_end);
        }
        let outcome = if is_end {
            self.matcher.is_accepting()
        } else {
            self.matcher.validate_tokens(&[id]).map(|valid| valid == 1)
        };
        outcome.map_err(|error| self.fail(&error))
    }

    /// How many of `ids`, from the first, may come next, one after the other. The state stays where it is.
    pub fn count_allowed(&mut self, ids: &[u32]) -> usize {
        if self.broken.is_some() || self.matcher.is_stopped() || ids.is_empty() {
            return 0;
        }
        self.matcher.validate_tokens(ids).unwrap_or_else(|error| {
            // Whoever asks next is told.
            let _ = self.fail(&error);
            0
        })
    }

    /// Goes on after `id`. A token that is not allowed breaks it: whoever asks next is told.
    pub fn accept(&mut self, id: u32) {
        if self.broken.is_some() || (self.matcher.is_stopped() && self.is_end(id)) {
            return;
        }
        if let Err(error) = self.matcher.consume_token(id) {
            let _ = self.fail(&error);
        }
    }

    fn is_end(&self, id: u32) -> bool {
        self.matcher.tok_env().is_ok_and(|env| env.tok_trie().eos_tokens().contains(&id))
    }

    fn check(&self) -> Result<(), GrammarBroken> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: &dyn fmt::Display) -> GrammarBroken {
        self.broken.get_or_insert_with(|| GrammarBroken(crate::compiler::plain(error))).clone()
    }
}

fn forbid_others(allowed: &SimpleVob, logits: &mut [f32]) {
    const BITS: usize = u32::BITS as usize;
    for (word, logits) in allowed.as_slice().iter().zip(logits.chunks_mut(BITS)) {
        for (bit, logit) in logits.iter_mut().enumerate() {
            if word >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    let known = logits.len().min(allowed.len());
    logits[known..].fill(f32::NEG_INFINITY);
}

impl PartialEq for Grammar {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grammar").field(&self.source).finish()
    }
}
