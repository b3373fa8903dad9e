use serde::{Deserialize, Serialize};

use crate::{Micros, Record};

/// What is left out at both ends of a run, so that figures are of its steady state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trim {
    /// After the first request's intended send time.
    pub warm_up_us: Micros,
    /// Before the last event of the run.
    pub cool_down_us: Micros,
}

/// The part of a run that figures are of: requests are those intended to be sent in it, tokens those that came in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Where it begins, since the start of the run.
    pub start_us: Micros,
    /// Where it ends; never before `start_us`.
    pub end_us: Micros,
}

impl Window {
    /// From the first intended send time to the last event, less `trim`.
    pub fn of(records: &[Record], trim: Trim) -> Self {
        let first = records.iter().map(|record| record.intended_us).min().unwrap_or_default();
        let last = records.iter().map(last_event).max().unwrap_or_default();
        let start_us = Micros(first.0.saturating_add(trim.warm_up_us.0));
        Self { start_us, end_us: last.since(trim.cool_down_us).max(start_us) }
    }

    /// Its length.
    pub fn seconds(self) -> f64 {
        self.end_us.since(self.start_us).seconds()
    }

    /// Whether it has `at`.
    pub fn has(self, at: Micros) -> bool {
        self.start_us <= at && at <= self.end_us
    }
}

fn last_event(record: &Record) -> Micros {
    let chunk = record.chunks.last().map(|chunk| chunk.at);
    [record.end_us, chunk, record.sent_us].into_iter().flatten().fold(record.intended_us, Micros::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::steady;

    #[test]
    fn the_window_is_the_run_less_its_ends() {
        let records = steady(11);
        let whole = Window::of(&records, Trim::default());
        // The last of eleven requests is sent at 1.0 s and takes 20 + 127 × 5 ms.
        assert_eq!(whole, Window { start_us: Micros(0), end_us: Micros(1_655_000) });
        let trim = Trim { warm_up_us: Micros(250_000), cool_down_us: Micros(655_000) };
        let steady = Window::of(&records, trim);
        assert_eq!(steady, Window { start_us: Micros(250_000), end_us: Micros(1_000_000) });
        assert!((steady.seconds() - 0.75).abs() < 1e-9);
        assert!(steady.has(Micros(1_000_000)) && !steady.has(Micros(249_999)));
    }

    #[test]
    fn trimming_more_than_there_is_leaves_nothing() {
        let trim = Trim { warm_up_us: Micros(9_000_000), cool_down_us: Micros(9_000_000) };
        assert_eq!(Window::of(&steady(3), trim).seconds(), 0.0);
        assert_eq!(Window::of(&[], Trim::default()).seconds(), 0.0);
    }
}
