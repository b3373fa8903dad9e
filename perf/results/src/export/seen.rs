//! A run as clients see it that count from the actual send time.

use crate::{Document, Micros, Outcome, Record};

/// A complete request.
pub(super) struct Seen<'a> {
    pub(super) record: &'a Record,
    /// When it was sent.
    pub(super) sent: Micros,
    /// When its first chunk with tokens came.
    pub(super) first: Micros,
    /// When its last one did.
    pub(super) last: Micros,
}

impl<'a> Seen<'a> {
    /// None if `record` is not complete, or brought no token.
    pub(super) fn of(record: &'a Record) -> Option<Self> {
        let Outcome::Complete { .. } = record.outcome else { return None };
        let first = record.first_chunk()?.at;
        let last = record.token_chunks().next_back()?.at;
        Some(Self { record, sent: record.sent_us?, first, last })
    }

    pub(super) fn ttft_ms(&self) -> f64 {
        self.first.since(self.sent).millis()
    }

    pub(super) fn latency_ms(&self) -> f64 {
        self.last.since(self.sent).millis()
    }

    /// `latency − TTFT` ÷ (output tokens − `in_first`), if that is defined.
    pub(super) fn per_token_ms(&self, in_first: f64) -> Option<f64> {
        let later = self.record.output_tokens() - in_first;
        (later >= 1.0).then(|| (self.latency_ms() - self.ttft_ms()) / later)
    }

    pub(super) fn gaps_ms(&self) -> impl Iterator<Item = f64> {
        self.record.gaps().map(|gap| gap.millis)
    }

    pub(super) fn input_tokens(&self) -> u32 {
        self.record.input.map_or(0, |count| count.tokens)
    }
}

/// The complete requests of the whole run.
pub(super) fn all(document: &Document) -> Vec<Seen<'_>> {
    document.measured.records.iter().filter_map(Seen::of).collect()
}

/// From the first send to the last event, in seconds.
pub(super) fn duration_s(document: &Document) -> f64 {
    let records = &document.measured.records;
    let start = records.iter().filter_map(|record| record.sent_us).min().unwrap_or_default();
    let end = records.iter().filter_map(|record| record.end_us).max().unwrap_or_default();
    end.since(start).seconds()
}

/// What is told of a request that did not complete; such tools know only failure.
pub(super) fn failure(record: &Record) -> Option<(Option<u16>, &str)> {
    match &record.outcome {
        Outcome::Complete { .. } => None,
        Outcome::Failed { status, message } => Some((*status, message)),
        Outcome::Cancelled => Some((Some(499), "cancelled by the client, as planned")),
        Outcome::Unfinished => Some((None, "not finished when the run ended")),
    }
}

/// `total` per second, 0 if no time passed.
pub(super) fn per_second(total: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { total / seconds } else { 0.0 }
}
