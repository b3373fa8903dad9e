//! Who runs: letting in, preempting, and giving up what took too long.

use std::{ops::Bound, time::Instant};

use super::{
    SequenceFailure,
    core::Core,
    mailbox::Arrival,
    reservation::Origin,
    schedule::{self, Wanted},
    shared::Shared,
    waiting::{ReserveRequest, Waiting},
};

impl Core {
    pub(super) fn expire(&mut self, now: Instant) {
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        for (_, waiting) in self.waiting.extract_if(.., |_, waiting| passed(waiting.deadline())) {
            waiting.expire();
        }
        for (_, mut sequence) in self.running.extract_if(.., |_, sequence| passed(sequence.deadline)) {
            let generated_tokens = sequence.output_len();
            sequence.fail(SequenceFailure::DeadlinePassed { generated_tokens });
        }
    }

    /// Lets in, in order of arrival, whom there is room for. After the first for whom there is not, only those who have all
    /// their blocks already.
    pub(super) fn admit(&mut self) {
        let mut blocked = false;
        let mut next = self.waiting.first_key_value().map(|(arrival, _)| *arrival);
        while let Some(arrival) = next {
            // Counted first: a block that comes back meanwhile, and is wanted, must not count for both.
            let available = self.shared.allocator.counts().available();
            let wanted = match &self.waiting[&arrival] {
                Waiting::Sequence(sequence, _) => {
                    sequence.blocks_wanted(&self.shared.allocator, &self.shared.layout)
                }
                Waiting::Reserve(ReserveRequest { purpose, .. }) => {
                    let prefix = purpose.sharable(self.shared.layout.block_tokens);
                    let (cached, idle) = self.shared.allocator.probe(&prefix);
                    Wanted { fresh: purpose.blocks - cached, idle }
                }
            };
            let is_sequence = matches!(self.waiting[&arrival], Waiting::Sequence(..));
            let has_slot = !is_sequence || self.running.len() < self.shared.config.max_running;
            if has_slot && (!blocked || wanted.fresh == 0) && self.has_room(available, wanted) {
                self.let_in(arrival, wanted.fresh);
            } else {
                blocked = true;
            }
            next = self
                .waiting
                .range((Bound::Excluded(arrival), Bound::Unbounded))
                .next()
                .map(|(arrival, _)| *arrival);
        }
    }

    fn has_room(&self, available: usize, wanted: Wanted) -> bool {
        let growing = self.running.values().filter(|sequence| sequence.grows()).count();
        schedule::has_room(available, wanted, growing)
    }

    fn let_in(&mut self, arrival: Arrival, fresh: usize) {
        match self.waiting.remove(&arrival) {
            Some(Waiting::Sequence(mut sequence, slot)) => {
                let Shared { layout, config, .. } = &*self.shared;
                // Cached blocks first, or they might be evicted for the fresh ones.
                if fresh > 0 {
                    sequence.share_cached(layout, config.layer_group);
                }
                if sequence.take_blocks(fresh).is_ok() {
                    // What a transfer brought is whole and checked.
                    sequence.store_computed(layout);
                    sequence.set_running(true);
                    drop(slot);
                    self.running.insert(arrival, sequence);
                } else {
                    debug_assert!(false, "only this thread takes blocks, and it has just counted them");
                    self.waiting.insert(arrival, Waiting::Sequence(sequence, slot));
                }
            }
            Some(Waiting::Reserve(request)) => self.grant(arrival, request),
            None => {}
        }
    }

    fn grant(&mut self, arrival: Arrival, request: ReserveRequest) {
        let mut lease = self.shared.allocator.lease();
        let shared = lease.share_cached(0, &request.purpose.sharable(self.shared.layout.block_tokens));
        match lease.grow(request.purpose.blocks - shared) {
            Ok(()) => request.grant(arrival, lease, shared, Origin::new(self.shared.clone())),
            Err(_) => {
                debug_assert!(false, "only this thread takes blocks, and it has just counted them");
                self.waiting.insert(arrival, Waiting::Reserve(request));
            }
        }
    }

    /// Gives each sequence that generates the block for its next token, oldest first, at the cost of the youngest.
    pub(super) fn grow_or_preempt(&mut self) {
        let decoding: Vec<Arrival> = self
            .running
            .iter()
            .filter(|(_, sequence)| sequence.is_decoding())
            .map(|(arrival, _)| *arrival)
            .collect();
        for arrival in decoding {
            while let Some(sequence) = self.running.get_mut(&arrival) {
                if !sequence.is_out_of_blocks(&self.shared.layout) || sequence.take_blocks(1).is_ok() {
                    break;
                }
                let victim =
                    self.youngest_preemptible().expect("whoever generates has blocks, and may lose them");
                self.preempt(victim);
            }
        }
    }

    fn youngest_preemptible(&self) -> Option<Arrival> {
        let running = self.running.iter().rev().find(|(_, sequence)| sequence.is_preemptible());
        let waiting = self.waiting.iter().rev().find(
            |(_, waiting)| matches!(waiting, Waiting::Sequence(sequence, _) if sequence.is_preemptible()),
        );
        running.map(|(arrival, _)| *arrival).max(waiting.map(|(arrival, _)| *arrival))
    }

    fn preempt(&mut self, victim: Arrival) {
        let mut sequence = match (self.running.remove(&victim), self.waiting.remove(&victim)) {
            (Some(sequence), _) | (None, Some(Waiting::Sequence(sequence, _))) => sequence,
            (None, _) => return,
        };
        tracing::debug!(request_id = sequence.id(), "preempted");
        sequence.preempt();
        self.totals.preemptions += 1;
        let slot = self.shared.queue.enter_again(sequence.uncomputed());
        self.waiting.insert(victim, Waiting::Sequence(sequence, slot));
    }
}
