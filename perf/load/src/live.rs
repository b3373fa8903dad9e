//! How a run is going, for whoever looks while it does.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use baton_results::Sorted;

use crate::{
    call::{Ended, How},
    clock::Stamp,
};

/// Written by the dispatcher, read by the progress display.
#[derive(Debug, Default)]
pub struct Live(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    start: Option<Stamp>,
    sent: u32,
    in_flight: u32,
    complete: u32,
    failed: u32,
    ttfts: Recent,
    gaps: Recent,
}

/// The newest measurements.
#[derive(Debug, Default)]
struct Recent(VecDeque<Duration>);

const MOST_RECENT: usize = 4096;
/// Of one answer: so that the gaps of many are among the newest.
const MOST_GAPS: usize = 64;

/// A look at a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Glance {
    /// Since its start.
    pub elapsed: Duration,
    /// Requests sent.
    pub sent: u32,
    /// Of them, those without an end yet.
    pub in_flight: u32,
    /// With a whole answer.
    pub complete: u32,
    /// With an error.
    pub failed: u32,
    /// Time to first token from the intended send time, of the newest answers: median and 99th percentile.
    pub ttft: Option<[Duration; 2]>,
    /// From an event to the next, of the newest answers: median and 99th percentile.
    pub itl: Option<[Duration; 2]>,
}

impl Live {
    pub(crate) fn begin(&self, start: Stamp) {
        self.state().start = Some(start);
    }

    pub(crate) fn sent(&self, in_flight: u32) {
        let mut state = self.state();
        state.sent += 1;
        state.in_flight = in_flight;
    }

    pub(crate) fn ended(&self, ended: &Ended, in_flight: u32) {
        let mut state = self.state();
        state.in_flight = in_flight;
        match ended.how {
            How::Complete => state.complete += 1,
            How::Failed(_) => state.failed += 1,
            How::Cancelled | How::Unfinished => {}
        }
        let pieces = &ended.answer.pieces;
        if let (Some(start), Some(first)) = (state.start, pieces.first()) {
            state.ttfts.push(first.at.since(start + ended.due.intended));
        }
        for pair in pieces.windows(2).rev().take(MOST_GAPS) {
            state.gaps.push(pair[1].at.since(pair[0].at));
        }
    }

    /// How it is going at `now`.
    #[must_use]
    pub fn glance(&self, now: Stamp) -> Glance {
        let state = self.state();
        Glance {
            elapsed: state.start.map(|start| now.since(start)).unwrap_or_default(),
            sent: state.sent,
            in_flight: state.in_flight,
            complete: state.complete,
            failed: state.failed,
            ttft: state.ttfts.percentiles(),
            itl: state.gaps.percentiles(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn push(&mut self, time: Duration) {
        if self.0.len() == MOST_RECENT {
            self.0.pop_front();
        }
        self.0.push_back(time);
    }

    fn percentiles(&self) -> Option<[Duration; 2]> {
        let sorted = Sorted::new(self.0.iter().map(Duration::as_secs_f64).collect());
        let at = |share| sorted.percentile(share).map(Duration::from_secs_f64);
        Some([at(0.5)?, at(0.99)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        answer::{Answer, Piece, StopAfter},
        schedule::Due,
    };

    #[test]
    fn a_glance_tells_of_what_ended() {
        let live = Live::default();
        live.begin(Stamp(1_000_000));
        live.sent(1);
        live.sent(2);
        let ms = Duration::from_millis;
        let mut answer = Answer::new(false, false, StopAfter::default());
        answer.pieces =
            [9, 14].map(|at| Piece { at: Stamp(1_000_000) + ms(at), tokens: 1, output_end: 0 }).to_vec();
        let due = Due { index: 0, intended: ms(2), was_held: false };
        live.ended(&Ended { due, how: How::Complete, answer, at: Stamp(0) }, 1);
        let glance = live.glance(Stamp(1_000_000) + ms(20));
        let expected = Glance {
            elapsed: ms(20),
            sent: 2,
            in_flight: 1,
            complete: 1,
            failed: 0,
            ttft: Some([ms(7); 2]),
            itl: Some([ms(5); 2]),
        };
        assert_eq!(glance, expected);
    }
}
