//! The thread that knows what time it is.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, SystemTime},
};

use baton_workload::{Plan, Start};
use rustix::thread::set_current_timer_slack;
use tokio_util::sync::CancellationToken;

use super::{Event, Job, Preparer, Threads, report::Report};
use crate::{
    call::{Call, Ended, How, perform},
    clock::Stamp,
    live::Live,
    schedule::{Due, Schedule, Step},
};

/// Requests that are written ahead of their time at most, in number and in tokens of their prompts.
const AHEAD_REQUESTS: usize = 1024;
const AHEAD_TOKENS: u64 = 16 << 20;
/// What a wake-up may be late by, for the kernel's comfort.
const TIMER_SLACK_NS: u64 = 1_000;
/// So that the first requests are not late either.
const LEAD: Duration = Duration::from_millis(20);

pub(super) struct Dispatcher<'a> {
    job: &'a Job,
    threads: &'a Threads,
    preparer: &'a Preparer,
    events: Sender<Event>,
    live: &'a Live,
    schedule: Schedule,
    /// Requests whose bytes do not depend on answers, in the order in which they are needed; not ordered yet.
    later: Box<dyn Iterator<Item = u32> + 'a>,
    /// Ordered, not here yet.
    ordered: usize,
    /// `None`: of those that could not be made.
    ready: HashMap<u32, Option<Vec<u8>>>,
    ahead_tokens: u64,
    stop: CancellationToken,
    ended: Vec<Ended>,
    start: Stamp,
    was_interrupted: bool,
}

impl<'a> Dispatcher<'a> {
    pub(super) fn new(
        job: &'a Job,
        threads: &'a Threads,
        preparer: &'a Preparer,
        events: Sender<Event>,
        live: &'a Live,
    ) -> Self {
        let mut this = Self {
            job,
            threads,
            preparer,
            events,
            live,
            schedule: Schedule::new(&job.plan, job.limits.most_in_flight),
            later: Box::new(in_order(&job.plan).into_iter()),
            ordered: 0,
            ready: HashMap::new(),
            ahead_tokens: 0,
            stop: CancellationToken::new(),
            ended: Vec::new(),
            start: Stamp::now(),
            was_interrupted: false,
        };
        this.order_ahead();
        this
    }

    /// Until what was ordered is here.
    pub(super) fn wait_until_prepared(&mut self, inbox: &Receiver<Event>) {
        while self.ordered > 0
            && !self.was_interrupted
            && let Ok(event) = inbox.recv()
        {
            self.take(event);
        }
    }

    /// Sends all, and waits for what was sent. When it began.
    pub(super) fn run(&mut self, inbox: &Receiver<Event>) -> (Stamp, SystemTime) {
        // Without it wake-ups are late by up to 50 µs; that is no reason not to send.
        let _ = set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS));
        self.start = Stamp::now() + LEAD;
        let started_at = SystemTime::now() + LEAD;
        self.live.begin(self.start);
        self.send_all(inbox);
        self.drain(inbox);
        (self.start, started_at)
    }

    /// What ended, how many were held back, and whether the run was interrupted.
    pub(super) fn finish(self) -> (Vec<Ended>, u32, bool) {
        (self.ended, self.schedule.held(), self.was_interrupted)
    }

    fn send_all(&mut self, inbox: &Receiver<Event>) {
        while !self.was_interrupted {
            let now = Stamp::now();
            // Before the start nothing is due, not even what is due at once.
            let wait = match now < self.start {
                true => Some(self.start.since(now)),
                false => match self.schedule.next(now.since(self.start)) {
                    Step::Send(due) => {
                        self.send(due, inbox);
                        continue;
                    }
                    Step::WaitUntil(time) => Some((self.start + time).since(now)),
                    Step::WaitForEnd => None,
                    Step::Over => return,
                },
            };
            self.wait(inbox, wait);
        }
    }

    /// Waits for those in flight, as long as that is allowed.
    fn drain(&mut self, inbox: &Receiver<Event>) {
        self.schedule.stop();
        let until = Stamp::now() + self.job.limits.drain;
        while self.schedule.in_flight() > 0 && !self.was_interrupted && Stamp::now() < until {
            self.wait(inbox, Some(until.since(Stamp::now())));
        }
        self.stop.cancel();
        while self.schedule.in_flight() > 0 {
            self.wait(inbox, None);
        }
    }

    fn wait(&mut self, inbox: &Receiver<Event>, most: Option<Duration>) {
        let event = match most {
            Some(most) => inbox.recv_timeout(most),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if let Ok(event) = event {
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Prepared { index, request } => {
                self.ordered -= 1;
                self.ready.insert(index, request);
            }
            Event::Interrupted => {
                self.was_interrupted = true;
                self.schedule.stop();
            }
            Event::Ended(ended) => self.take_end(*ended),
        }
    }

    fn take_end(&mut self, mut ended: Ended) {
        let index = ended.due.index;
        let is_complete = ended.how == How::Complete;
        if let Some(next) = self.schedule.next_turn(index).filter(|_| is_complete) {
            self.preparer.answered(index, std::mem::take(&mut ended.answer.text));
            self.order(next);
        }
        self.schedule.ended(index, ended.at.since(self.start), is_complete);
        self.live.ended(&ended, self.schedule.in_flight());
        self.ended.push(ended);
    }

    fn send(&mut self, due: Due, inbox: &Receiver<Event>) {
        let request = loop {
            match self.ready.remove(&due.index) {
                Some(request) => break request,
                None => match inbox.recv() {
                    Ok(event) => self.take(event),
                    Err(_) => return,
                },
            }
        };
        let planned = &self.job.plan.requests()[due.index as usize];
        self.ahead_tokens = self.ahead_tokens.saturating_sub(planned.prompt.tokens());
        let report = Report::new(self.events.clone(), due);
        self.live.sent(self.schedule.in_flight());
        // Without it, the report that is dropped says that it failed.
        let Some(request) = request else { return self.order_ahead() };
        let call = Call {
            due,
            request,
            cancel: planned.cancel,
            keeps_text: self.schedule.next_turn(due.index).is_some(),
            keeps_output: self.job.keeps_output,
            timeout: self.job.limits.request_timeout,
        };
        let stop = self.stop.clone();
        self.threads.spawn(due.index, async move |pool| report.ended(perform(call, pool, stop).await));
        self.order_ahead();
    }

    fn order_ahead(&mut self) {
        let requests =
            AHEAD_REQUESTS.max(self.job.plan.pacing().concurrency.unwrap_or(0) as usize + AHEAD_REQUESTS / 8);
        while self.ordered + self.ready.len() < requests && self.ahead_tokens < AHEAD_TOKENS {
            let Some(index) = self.later.next() else { return };
            self.order(index);
        }
    }

    fn order(&mut self, index: u32) {
        self.ordered += 1;
        self.ahead_tokens += self.job.plan.requests()[index as usize].prompt.tokens();
        self.preparer.prepare(index);
    }
}

/// Requests that wait for no answer, in the order in which they are due.
fn in_order(plan: &Plan) -> Vec<u32> {
    let mut requests: Vec<(Duration, u32)> = plan
        .requests()
        .iter()
        .filter_map(|request| match request.start {
            Start::At(time) => Some((time, request.index)),
            Start::WhenFree => Some((Duration::ZERO, request.index)),
            Start::After { .. } => None,
        })
        .collect();
    requests.sort_unstable();
    requests.into_iter().map(|(_, index)| index).collect()
}
