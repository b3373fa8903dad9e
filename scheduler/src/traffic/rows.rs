//! Requests as rows of a trace, in the project's own format (`docs/workloads.md`).

use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use serde::Serialize;

use super::{Traffic, ring::Entry};

/// Rows that are written at once: half a millisecond's work.
const AT_ONCE: usize = 128;

/// Names pieces. The names are the same as long as the scheduler lives, and tell nothing of prompts: without the secret in here, nobody can tell whether
/// a prompt that he guesses was among them.
#[derive(Default)]
pub(super) struct Ids(RandomState);

/// Requests as lines, some at a time.
pub(crate) struct Lines {
    traffic: Arc<Traffic>,
    numbers: Range<u64>,
    /// When the first came, ms.
    begin_ms: Option<f64>,
}

#[derive(Serialize)]
struct Row {
    arrival_ms: f64,
    pieces: Vec<(u64, u32)>,
    output_tokens: u32,
}

#[derive(Hash)]
enum Piece {
    /// Prompts with this key begin alike.
    Shared(u64),
    /// The end of this request's prompt.
    Tail(u64),
}

impl Ids {
    /// Below 2⁵³, which every reader of JSON takes.
    fn of(&self, piece: &Piece) -> u64 {
        self.0.hash_one(piece) >> 11
    }

    fn row(&self, number: u64, entry: &Entry, begin_ms: f64) -> Row {
        let mut end = 0;
        let mut pieces: Vec<(u64, u32)> = Vec::with_capacity(entry.keys.len() + 1);
        for (next, key) in entry.pieces() {
            pieces.push((self.of(&Piece::Shared(key)), next - end));
            end = next;
        }
        if end < entry.prompt_tokens {
            pieces.push((self.of(&Piece::Tail(number)), entry.prompt_tokens - end));
        }
        let arrival_ms = ((entry.at_ms - begin_ms) * 1e3).round() / 1e3;
        Row { arrival_ms, pieces, output_tokens: entry.output_tokens }
    }
}

impl Lines {
    pub(super) fn new(traffic: Arc<Traffic>, numbers: Range<u64>) -> Self {
        Self { traffic, numbers, begin_ms: None }
    }
}

impl Iterator for Lines {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let entries = self.traffic.lock().take(&mut self.numbers, AT_ONCE);
        let begin_ms = *self.begin_ms.get_or_insert(entries.first()?.at_ms);
        let numbers = self.numbers.start - entries.len() as u64..;
        let mut lines = Vec::with_capacity(entries.len() * 256);
        for (number, entry) in numbers.zip(&entries) {
            // Numbers and lists of them: nothing that could fail.
            let _ = serde_json::to_writer(&mut lines, &self.traffic.ids.row(number, entry, begin_ms));
            lines.push(b'\n');
        }
        Some(lines.into())
    }
}
