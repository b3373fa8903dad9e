//! The engine's thread: takes commands, lets in who fits, computes a step, sends what came out, and again.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    CacheObserver, EngineState, EngineTotals, SequenceFailure, Shutdown,
    mailbox::{Arrival, Command, Patience},
    pace::Pace,
    sampler::Scratch,
    sequence::Sequence,
    shared::{Progress, Shared},
    speculation::Drafter,
    throttle::Throttle,
    waiting::Waiting,
};
use crate::model::Forward;

/// State of the engine's thread. Both maps are in order of arrival, the engine's order for everything.
pub(super) struct Core {
    pub(super) forward: Box<dyn Forward>,
    pub(super) shared: Arc<Shared>,
    pub(super) waiting: BTreeMap<Arrival, Waiting>,
    pub(super) running: BTreeMap<Arrival, Box<Sequence>>,
    shutdown: Option<Shutdown>,
    pub(super) totals: EngineTotals,
    pub(super) scratch: Scratch,
    observer: Option<Box<dyn CacheObserver>>,
    pub(super) drafter: Option<Drafter>,
    pub(super) pace: Pace,
    pub(super) throttle: Throttle,
}

impl Core {
    pub(super) fn new(
        forward: Box<dyn Forward>,
        shared: Arc<Shared>,
        observer: Option<Box<dyn CacheObserver>>,
        drafter: Option<Drafter>,
    ) -> Self {
        Self {
            forward,
            throttle: Throttle::new(shared.config.speed.clone()),
            shared,
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            shutdown: None,
            totals: EngineTotals::default(),
            scratch: Scratch::default(),
            observer,
            drafter,
            pace: Pace::default(),
        }
    }

    /// Serves until told to end, or until a panic; then gives everybody who still waits a terminal event.
    pub(super) fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let (reason, failed) = match ended {
            Ok(()) => ("it was shut down".to_owned(), false),
            Err(panic) => (format!("its thread panicked: {}", panic_message(panic.as_ref())), true),
        };
        if failed {
            tracing::error!(%reason, "the engine failed");
        }
        self.stop(reason, failed);
    }

    fn serve(&mut self) {
        loop {
            // Read before the commands are taken: what became of the last reservation is among them then.
            let is_reserved = self.shared.reservations.load(Ordering::Acquire) > 0;
            self.take_commands(self.patience(is_reserved));
            if self.is_over(is_reserved) {
                break;
            }
            self.expire(Instant::now());
            self.admit();
            self.grow_or_preempt();
            if self.running.is_empty() {
                self.throttle.rest();
            } else {
                self.step();
            }
            self.forget_drafts();
            self.publish();
            self.tell_observer();
        }
    }

    fn forget_drafts(&mut self) {
        let Self { drafter, running, waiting, .. } = self;
        if let Some(drafter) = drafter {
            // Who was preempted waits, and comes back with the same tokens.
            drafter.keep_only(&|arrival| running.contains_key(&arrival) || waiting.contains_key(&arrival));
        }
    }

    fn tell_observer(&mut self) {
        let Some(observer) = &mut self.observer else { return };
        let events = self.shared.allocator.take_events();
        if !events.is_empty() {
            observer.changed(events);
        }
    }

    fn tell_all(&mut self) {
        let Some(observer) = &mut self.observer else { return };
        let (events, all) = self.shared.allocator.take_events_and_all();
        if !events.is_empty() {
            observer.changed(events);
        }
        observer.all(all);
    }

    fn is_over(&self, is_reserved: bool) -> bool {
        match self.shutdown {
            None => false,
            Some(Shutdown::Abort) => true,
            Some(Shutdown::Drain) => !is_reserved && self.waiting.is_empty() && self.running.is_empty(),
        }
    }

    /// With something to compute, or nothing left to wait for, none; otherwise until the first deadline of somebody who
    /// waits for room.
    fn patience(&self, is_reserved: bool) -> Patience {
        if !self.running.is_empty() || self.is_over(is_reserved) {
            return Patience::None;
        }
        let first = self.waiting.values().filter_map(Waiting::deadline).min();
        first.map_or(Patience::Unlimited, Patience::Until)
    }

    fn take_commands(&mut self, patience: Patience) {
        for command in self.shared.mailbox.take(patience) {
            match command {
                Command::Enqueue(arrival, waiting) => {
                    let before = self.waiting.insert(arrival, waiting);
                    debug_assert!(before.is_none(), "a place in the queue is taken once");
                }
                Command::Cancel(arrival) => {
                    drop(self.waiting.remove(&arrival));
                    drop(self.running.remove(&arrival));
                }
                Command::ClearCache => self.shared.allocator.clear_cache(),
                Command::TellCache => self.tell_all(),
                Command::Shutdown(Shutdown::Drain) => {
                    self.shutdown.get_or_insert(Shutdown::Drain);
                }
                Command::Shutdown(Shutdown::Abort) => self.shutdown = Some(Shutdown::Abort),
            }
        }
    }

    fn publish(&self) {
        let uncomputed_tokens =
            self.running.values().filter(|s| !s.is_decoding()).map(|sequence| sequence.uncomputed()).sum();
        *self.shared.progress() =
            Progress { running: self.running.len(), uncomputed_tokens, totals: self.totals };
    }

    fn stop(mut self, reason: String, failed: bool) {
        // What is handed over from here on is refused; what was handed over before is answered.
        for command in self.shared.mailbox.close() {
            if let Command::Enqueue(_, waiting) = command {
                waiting.stop(&reason);
            }
        }
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            waiting.stop(&reason);
        }
        for mut sequence in std::mem::take(&mut self.running).into_values() {
            sequence.fail(SequenceFailure::Stopped { reason: reason.clone() });
        }
        self.publish();
        let shared = self.shared.clone();
        // Whoever waits for the end must see it, even if the model cannot be dropped in peace.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self)));
        shared.state.send_replace(EngineState::Stopped { reason, failed });
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
