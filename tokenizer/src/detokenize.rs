//! Tokens into text, one at a time.

use std::sync::Arc;

use crate::{Tokenizer, utf8::Utf8Assembler};

/// Text of a growing list of tokens. Each token costs amortised O(1), however long the text has become.
///
/// Special tokens have no text when `skip_special` is set. Bytes of an unfinished character are held back until it is
/// whole, or until [`finish`](DetokenizeStream::finish) says that it never will be.
#[derive(Debug)]
pub struct DetokenizeStream {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    // Special tokens that have a text all the same.
    shown: Arc<[u32]>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Byte-level vocabularies: a token's bytes do not depend on its neighbours.
    Bytes(Utf8Assembler),
    /// All others: the text of a token is what it adds to the text of the few tokens before it.
    Window(Window),
}

/// The method of vLLM's `detokenize_incrementally`: `ids[..read]` have been shown, and `ids[prefix..read]` are decoded
/// again as left neighbours, which decides about a leading space.
#[derive(Debug, Default)]
struct Window {
    ids: Vec<u32>,
    read: usize,
}

/// Prompt tokens given as left neighbours of the first generated token, as vLLM does.
const NEIGHBOURS: usize = 5;

/// A character has at most 4 bytes, each of which may be a token of its own: text that still ends in U+FFFD after more
/// unread tokens than that ends in an invalid byte, not in an unfinished character.
const MOST_UNREAD: usize = 4;

impl DetokenizeStream {
    /// Text of what follows `prompt`.
    pub fn new(tokenizer: Arc<Tokenizer>, prompt: &[u32], skip_special: bool) -> Self {
        let state = if tokenizer.bytes_of(0).is_some() {
            State::Bytes(Utf8Assembler::default())
        } else {
            let ids = prompt[prompt.len().saturating_sub(NEIGHBOURS)..].to_vec();
            State::Window(Window { read: ids.len(), ids })
        };
        Self { tokenizer, skip_special, shown: Arc::default(), state }
    }

    /// With these special tokens shown, whatever becomes of the others.
    #[must_use]
    pub fn showing(self, shown: Arc<[u32]>) -> Self {
        Self { shown, ..self }
    }

    /// Takes the next token, and appends to `out` the text that is whole by now.
    pub fn push(&mut self, id: u32, out: &mut String) {
        if self.skip_special && self.tokenizer.is_special(id) && !self.shown.contains(&id) {
            return;
        }
        let skip_special = self.skip_special && self.shown.is_empty();
        match &mut self.state {
            State::Bytes(assembler) => assembler.push(self.tokenizer.bytes_of(id).unwrap_or_default(), out),
            State::Window(window) => {
                window.ids.push(id);
                window.show(&self.tokenizer, skip_special, false, out);
            }
        }
    }

    /// There are no more tokens: what was held back is shown, with U+FFFD for an unfinished character.
    pub fn finish(&mut self, out: &mut String) {
        let skip_special = self.skip_special && self.shown.is_empty();
        match &mut self.state {
            State::Bytes(assembler) => assembler.finish(out),
            State::Window(window) => window.show(&self.tokenizer, skip_special, true, out),
        }
    }
}

impl Window {
    fn show(&mut self, tokenizer: &Tokenizer, skip_special: bool, is_last: bool, out: &mut String) {
        let shown = tokenizer.decode(&self.ids[..self.read], skip_special);
        let text = tokenizer.decode(&self.ids, skip_special);
        let is_unfinished = text.ends_with(char::REPLACEMENT_CHARACTER)
            && self.ids.len() - self.read <= MOST_UNREAD
            && !is_last;
        if is_unfinished || text.len() <= shown.len() {
            return;
        }
        // After invalid bytes the neighbours may read differently; then there is no telling the new text from the old.
        out.push_str(text.strip_prefix(&shown).unwrap_or_default());
        self.ids.drain(..self.read);
        self.read = self.ids.len();
    }
}
