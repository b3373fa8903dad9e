//! Which request is sent next, and when. No clock and no I/O: it is told what time it is and what has ended.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use baton_workload::{Pacing, Plan, Start};

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this request; its latency counts from `intended`.
    Send(Due),
    /// Ask again at this time, or when a request has ended.
    WaitUntil(Duration),
    /// Ask again when a request has ended.
    WaitForEnd,
    /// Nothing will be sent any more.
    Over,
}

/// A request whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) index: u32,
    /// Since the start of the run.
    pub(crate) intended: Duration,
    /// It had to wait because too many were in flight.
    pub(crate) was_held: bool,
}

/// The plan's requests on their way to be sent.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// With their times; the earliest first, and of those with the same time the one that is first in the plan.
    timed: BinaryHeap<Reverse<(Duration, u32)>>,
    /// Waiting for a place, in the plan's order.
    queued: VecDeque<u32>,
    /// Times at which places became free that nobody has taken yet.
    free: VecDeque<Duration>,
    /// For each request, the one that follows upon its answer.
    next_turn: Vec<Option<(u32, Duration)>>,
    /// Whether a request holds a place while it or the rest of its session lasts.
    has_places: bool,
    in_flight: u32,
    /// Of those in flight, the ones that another turn follows upon.
    awaited: u32,
    most_in_flight: u32,
    ends_at: Option<Duration>,
    is_stopped: bool,
    /// Requests that were due while too many were in flight.
    held: u32,
    /// Until when as many as may be were in flight.
    full_until: Duration,
}

impl Schedule {
    /// `most`: beyond it, requests that are due wait; a closed loop has as many as it has places.
    pub(crate) fn new(plan: &Plan, most: u32) -> Self {
        let pacing = plan.pacing();
        let mut timed = BinaryHeap::new();
        let mut queued = VecDeque::new();
        let mut next_turn = vec![None; plan.requests().len()];
        for request in plan.requests() {
            match request.start {
                Start::At(time) => timed.push(Reverse((time, request.index))),
                Start::WhenFree => queued.push_back(request.index),
                Start::After { index, think } => next_turn[index as usize] = Some((request.index, think)),
            }
        }
        let places = pacing.concurrency.unwrap_or(if queued.is_empty() { 0 } else { 1 });
        Self {
            timed,
            queued,
            free: (0..places).map(|place| opens_at(place, places)).collect(),
            next_turn,
            has_places: places > 0,
            in_flight: 0,
            awaited: 0,
            most_in_flight: most_in_flight(pacing, most).max(1),
            ends_at: pacing.duration,
            is_stopped: false,
            held: 0,
            full_until: Duration::ZERO,
        }
    }

    /// What to do at `now`.
    pub(crate) fn next(&mut self, now: Duration) -> Step {
        if self.is_stopped || self.ends_at.is_some_and(|ends_at| now > ends_at) {
            return Step::Over;
        }
        let opens = self.free.front().copied().filter(|_| !self.queued.is_empty());
        if let Some(intended) = opens.filter(|opens| *opens <= now && self.in_flight < self.most_in_flight)
            && let Some(index) = self.queued.pop_front()
        {
            self.free.pop_front();
            return self.send(index, intended, false);
        }
        match (self.next_timed(now), opens) {
            (Step::WaitUntil(time), Some(opens)) if opens > now => Step::WaitUntil(time.min(opens)),
            (Step::WaitForEnd | Step::Over, Some(opens)) if opens > now => Step::WaitUntil(opens),
            (step, _) => step,
        }
    }

    fn next_timed(&mut self, now: Duration) -> Step {
        match self.timed.peek().copied() {
            Some(Reverse((time, _))) if self.ends_at.is_some_and(|ends_at| time > ends_at) => self.or_over(),
            Some(Reverse((time, _))) if time > now => Step::WaitUntil(time),
            Some(_) if self.in_flight >= self.most_in_flight => Step::WaitForEnd,
            Some(Reverse((time, index))) => {
                self.timed.pop();
                self.send(index, time, time < self.full_until)
            }
            None => self.or_over(),
        }
    }

    /// The answer to request `index` ended at `at`. Its session goes on if it was complete.
    pub(crate) fn ended(&mut self, index: u32, at: Duration, is_complete: bool) {
        if self.in_flight >= self.most_in_flight {
            self.full_until = at;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.awaited -= u32::from(self.next_turn[index as usize].is_some());
        match self.next_turn[index as usize].filter(|_| is_complete) {
            Some((next, think)) => self.timed.push(Reverse((at + think, next))),
            None if self.has_places => {
                // Places that have not opened yet come after it.
                let place = self.free.partition_point(|free| *free <= at);
                self.free.insert(place, at);
            }
            None => {}
        }
    }

    /// Sends nothing more.
    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Requests that had to wait because too many were in flight.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// What follows upon the answer to `index`.
    pub(crate) fn next_turn(&self, index: u32) -> Option<u32> {
        self.next_turn[index as usize].map(|(next, _)| next)
    }

    fn send(&mut self, index: u32, intended: Duration, was_held: bool) -> Step {
        self.held += u32::from(was_held);
        self.in_flight += 1;
        self.awaited += u32::from(self.next_turn[index as usize].is_some());
        Step::Send(Due { index, intended, was_held })
    }

    /// An answer may still bring the next turn, or free a place that somebody waits for.
    fn or_over(&self) -> Step {
        let may_follow = self.awaited > 0 || (self.in_flight > 0 && !self.queued.is_empty());
        if may_follow { Step::WaitForEnd } else { Step::Over }
    }
}

/// Requests in flight beyond which others wait, if `most` is what the client can do.
pub(crate) fn most_in_flight(pacing: Pacing, most: u32) -> u32 {
    pacing.concurrency.unwrap_or_else(|| pacing.max_in_flight.unwrap_or(most).min(most))
}

/// When a place of a closed loop opens. All at once would be a burst that no later part of the run is like, and would have requests go
/// on in step; a millisecond apart, or all within a second.
fn opens_at(place: u32, places: u32) -> Duration {
    Duration::from_millis(1).min(Duration::from_secs(1) / places.max(1)) * place
}

#[cfg(test)]
mod tests {
    use baton_workload::{Fill, Piece, Planned, Prompt};

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn plan(starts: &[Start], pacing: Pacing) -> Plan {
        let requests = starts.iter().zip(0..).map(|(start, index)| Planned {
            index,
            start: *start,
            session: None,
            turn: 0,
            prompt: Prompt { pieces: vec![Piece { id: 0, tokens: 1, fill: Fill::Made }] },
            output_tokens: 1,
            cancel: None,
        });
        Plan::new(requests.collect(), Vec::new(), pacing, 0)
    }

    fn due(index: u32, intended: u64) -> Step {
        Step::Send(Due { index, intended: MS(intended), was_held: false })
    }

    #[test]
    fn an_open_loop_sends_at_its_times_whatever_is_in_flight() {
        let mut schedule =
            Schedule::new(&plan(&[Start::At(MS(5)), Start::At(MS(9))], Pacing::default()), 100);
        assert_eq!(schedule.next(MS(0)), Step::WaitUntil(MS(5)));
        assert_eq!(schedule.next(MS(30)), due(0, 5), "late, and counted from its time");
        assert_eq!(schedule.next(MS(30)), due(1, 9));
        assert_eq!((schedule.next(MS(30)), schedule.in_flight()), (Step::Over, 2));
    }

    #[test]
    fn a_request_waits_while_too_many_are_in_flight_and_is_counted() {
        let at = [1, 2, 3, 6].map(|ms| Start::At(MS(ms)));
        let mut schedule =
            Schedule::new(&plan(&at, Pacing { max_in_flight: Some(2), ..Pacing::default() }), 100);
        assert_eq!((schedule.next(MS(2)), schedule.next(MS(2))), (due(0, 1), due(1, 2)));
        assert_eq!(schedule.next(MS(2)), Step::WaitUntil(MS(3)));
        assert_eq!(schedule.next(MS(3)), Step::WaitForEnd);
        schedule.ended(0, MS(5), true);
        assert_eq!(schedule.next(MS(5)), Step::Send(Due { index: 2, intended: MS(3), was_held: true }));
        schedule.ended(1, MS(6), true);
        assert_eq!(schedule.next(MS(6)), due(3, 6), "it was not due before the place was free");
        assert_eq!(schedule.held(), 1);
    }

    #[test]
    fn a_closed_loop_keeps_its_places_taken() {
        let pacing = Pacing { concurrency: Some(2), ..Pacing::default() };
        let mut schedule = Schedule::new(&plan(&[Start::WhenFree; 3], pacing), 100);
        assert_eq!((schedule.next(MS(0)), schedule.next(MS(0))), (due(0, 0), Step::WaitUntil(MS(1))));
        assert_eq!((schedule.next(MS(1)), schedule.next(MS(1))), (due(1, 1), Step::WaitForEnd));
        schedule.ended(1, MS(7), false);
        assert_eq!(schedule.next(MS(8)), due(2, 7), "from the moment that the place was free");
        schedule.ended(0, MS(9), true);
        schedule.ended(2, MS(9), true);
        assert_eq!(schedule.next(MS(9)), Step::Over);
    }

    #[test]
    fn places_open_one_after_the_other() {
        let pacing = Pacing { concurrency: Some(3), ..Pacing::default() };
        let mut schedule = Schedule::new(&plan(&[Start::WhenFree; 5], pacing), 100);
        assert_eq!((schedule.next(MS(0)), schedule.next(MS(0))), (due(0, 0), Step::WaitUntil(MS(1))));
        schedule.ended(0, MS(1), true);
        assert_eq!(schedule.next(MS(1)), due(1, 1));
        assert_eq!(schedule.next(MS(1)), due(2, 1), "the place that the first one left");
        assert_eq!(schedule.next(MS(9)), due(3, 2));
        assert_eq!(opens_at(4999, 5000), MS(1000) - Duration::from_micros(200));
    }

    #[test]
    fn a_session_goes_on_after_its_answer_and_keeps_its_place() {
        let after = |index| Start::After { index, think: MS(10) };
        let pacing = Pacing { concurrency: Some(1), ..Pacing::default() };
        let starts = [Start::WhenFree, after(0), Start::WhenFree, after(2)];
        let mut schedule = Schedule::new(&plan(&starts, pacing), 100);
        assert_eq!(schedule.next(MS(0)), due(0, 0));
        schedule.ended(0, MS(5), true);
        assert_eq!(schedule.next(MS(6)), Step::WaitUntil(MS(15)), "nobody else has its place");
        assert_eq!(schedule.next(MS(15)), due(1, 15));
        schedule.ended(1, MS(20), true);
        assert_eq!(schedule.next(MS(20)), due(2, 20));
        schedule.ended(2, MS(22), false);
        assert_eq!(schedule.next(MS(22)), Step::Over, "a turn without the answer before it is not sent");
    }

    #[test]
    fn nothing_starts_after_the_end() {
        let pacing = Pacing { duration: Some(MS(10)), ..Pacing::default() };
        let mut schedule = Schedule::new(&plan(&[Start::At(MS(10)), Start::At(MS(11))], pacing), 100);
        assert_eq!(schedule.next(MS(10)), due(0, 10));
        assert_eq!(schedule.next(MS(10)), Step::Over);
        let mut stopped = Schedule::new(&plan(&[Start::At(MS(0))], Pacing::default()), 100);
        stopped.stop();
        assert_eq!(stopped.next(MS(0)), Step::Over);
    }
}
