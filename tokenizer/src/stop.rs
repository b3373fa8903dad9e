//! Stop strings, found while the text streams.

/// Text up to the first stop string; what might be the start of one is held back until that is decided.
///
/// "First" is the stop string whose last character comes first in the text; of several that end there, the longest. So
/// the answer is a property of the text alone, not of how it was cut into tokens.
///
/// One Knuth-Morris-Pratt automaton a stop string: its state is how many bytes at the end of the text are a prefix of
/// that string, hence the largest state is exactly what must be held back, and each byte costs amortised O(1) a string.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<Automaton>,
    include_stop: bool,
    held: String,
}

/// A stop string was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopMatch {
    /// Which of the stop strings, by its place in the list.
    pub stop: usize,
}

#[derive(Debug)]
struct Automaton {
    pattern: Box<[u8]>,
    // fallback[n]: length of the longest proper prefix of pattern[..=n] that is also its suffix
    fallback: Box<[usize]>,
    matched: usize,
}

impl StopMatcher {
    /// A matcher for `stops`; empty ones never match. With `include_stop` the shown text ends with the stop string.
    pub fn new<S: AsRef<str>>(stops: &[S], include_stop: bool) -> Self {
        let stops = stops.iter().map(|stop| Automaton::new(stop.as_ref())).collect();
        Self { stops, include_stop, held: String::new() }
    }

    /// Takes the next piece of text, and appends to `out` what may be shown by now. After a match, give no more.
    pub fn push(&mut self, delta: &str, out: &mut String) -> Option<StopMatch> {
        if self.stops.is_empty() {
            out.push_str(delta);
            return None;
        }
        for (at, &byte) in delta.as_bytes().iter().enumerate() {
            if let Some(stop) = self.step(byte) {
                self.held.push_str(&delta[..=at]);
                let stop_bytes = if self.include_stop { 0 } else { self.stops[stop].pattern.len() };
                self.show_all_but(stop_bytes, out);
                self.held.clear();
                return Some(StopMatch { stop });
            }
        }
        self.held.push_str(delta);
        let undecided = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        self.show_all_but(undecided, out);
        None
    }

    /// There is no more text: what was held back is shown.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Moves all automata on by one byte; the longest stop string that this byte completes.
    fn step(&mut self, byte: u8) -> Option<usize> {
        let mut complete: Option<usize> = None;
        for index in 0..self.stops.len() {
            let is_longer =
                complete.is_none_or(|best| self.stops[index].pattern.len() > self.stops[best].pattern.len());
            if self.stops[index].step(byte) && is_longer {
                complete = Some(index);
            }
        }
        complete
    }

    /// A stop string begins at a character, so what is held back does too.
    fn show_all_but(&mut self, held_bytes: usize, out: &mut String) {
        out.extend(self.held.drain(..self.held.len() - held_bytes));
    }
}

impl Automaton {
    fn new(pattern: &str) -> Self {
        let pattern: Box<[u8]> = pattern.as_bytes().into();
        let mut fallback = vec![0; pattern.len()].into_boxed_slice();
        let mut border = 0;
        for at in 1..pattern.len() {
            while border > 0 && pattern[at] != pattern[border] {
                border = fallback[border - 1];
            }
            border += usize::from(pattern[at] == pattern[border]);
            fallback[at] = border;
        }
        Self { pattern, fallback, matched: 0 }
    }

    /// True when `byte` completes the pattern.
    fn step(&mut self, byte: u8) -> bool {
        if self.pattern.is_empty() {
            return false;
        }
        while self.matched > 0 && self.pattern[self.matched] != byte {
            self.matched = self.fallback[self.matched - 1];
        }
        self.matched += usize::from(self.pattern[self.matched] == byte);
        let is_complete = self.matched == self.pattern.len();
        if is_complete {
            self.matched = self.fallback[self.matched - 1];
        }
        is_complete
    }
}

#[cfg(test)]
mod tests;
