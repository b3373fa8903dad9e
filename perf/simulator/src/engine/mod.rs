//! A worker's engine: waiting, letting in, steps, preemption, as `baton-engine` does it, but with many steps as one event.
//!
//! ```text
//!  reserve ──► waiting ──room──► Granted          (the decode worker's blocks, before anybody computes the prompt)
//!  prefill ──► waiting ──room──► prompts ──► FirstToken, blocks held until they have arrived
//!  resume ───► ready ───slot──► prompts or running ──► Finished
//!                  waiting ◄── preempted
//! ```
//! Things happen only between two steps, so what comes during one waits for its end.

mod admit;
mod cache;
mod complete;
mod plan;
mod run;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use baton_profile::Profile;
pub(crate) use cache::{Cache, Holders};
use run::{LongestSteps, Run};

use crate::{
    flight::{Flight, Hold, NEVER},
    traffic::Traffic,
};

/// What an engine says to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Blocks are reserved for a request.
    Granted(u32),
    /// A request's prompt is computed, and its next token is there.
    Prompted(u32),
    /// A request's last token is there.
    Finished(u32),
}

/// What engines share.
pub(crate) struct Shared<'a> {
    pub(crate) traffic: &'a Traffic,
    pub(crate) flights: &'a mut [Flight],
    pub(crate) holders: &'a mut Holders,
    pub(crate) said: &'a mut Vec<Said>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Blocks for a prompt that comes, and some growth.
    Reserve,
    /// To compute a prompt for another worker.
    Prefill,
    /// To go on after a preemption.
    Resume,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    arrival: u32,
    request: u32,
    wish: Wish,
}

#[derive(Clone, Copy, Debug)]
struct Prompt {
    request: u32,
    done: u32,
    total: u32,
    is_for_another: bool,
    is_begun: bool,
}

/// What an engine has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) prompt_ms: f64,
    pub(crate) decode_ms: f64,
    pub(crate) mixed_ms: f64,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) preemptions: u64,
    pub(crate) most_blocks: u32,
    // Sums over steps that only compute prompts, and over steps that only generate, for reports.
    pub(crate) alone_steps: u64,
    pub(crate) alone_tokens: f64,
    pub(crate) alone_pairs: f64,
    pub(crate) quiet_steps: u64,
    pub(crate) quiet_sequences: u64,
    pub(crate) quiet_context: u64,
}

pub(crate) struct Engine {
    pub(crate) profile: Arc<Profile>,
    worker: usize,
    cache: Option<Cache>,
    total_blocks: u32,
    // Blocks that requests have to themselves, and those that answers will grow into.
    own_blocks: u32,
    growth_blocks: u32,
    // Those who generate: (last step, request).
    running: BinaryHeap<Reverse<u64>>,
    pub(crate) context: u64,
    prompts: VecDeque<Prompt>,
    own_prompts: u32,
    // Both in order of arrival.
    waiting: VecDeque<Waiting>,
    ready: VecDeque<Waiting>,
    arrivals: u32,
    steps: u32,
    runs: u32,
    run: Option<Run>,
    longest: LongestSteps,
    joined: Vec<u32>,
    given_up: Vec<u32>,
    mixed_in_a_row: u32,
    has_been_quiet: bool,
    // Somebody waits who may have room after the next step.
    looks_again: bool,
    pub(crate) totals: Totals,
}

impl Engine {
    pub(crate) fn new(worker: usize, profile: Arc<Profile>, cache_nodes: Option<usize>) -> Self {
        Self {
            worker,
            cache: cache_nodes.map(Cache::new),
            total_blocks: profile.kv.blocks() as u32,
            profile,
            own_blocks: 0,
            growth_blocks: 0,
            running: BinaryHeap::new(),
            context: 0,
            prompts: VecDeque::new(),
            own_prompts: 0,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            arrivals: 0,
            steps: 0,
            runs: 0,
            run: None,
            longest: LongestSteps::default(),
            joined: Vec::new(),
            given_up: Vec::new(),
            mixed_in_a_row: 0,
            has_been_quiet: false,
            looks_again: false,
            totals: Totals::default(),
        }
    }

    /// When something happens by itself.
    pub(crate) fn wakes(&self) -> f64 {
        self.run.map_or(NEVER, |run| run.ends())
    }

    /// Asks for blocks for `request`, which this worker will generate.
    pub(crate) fn reserve(&mut self, request: u32, now: f64, shared: &mut Shared<'_>) {
        let arrival = self.arrive();
        shared.flights[request as usize].at_decode.arrival = arrival;
        self.wait(Waiting { arrival, request, wish: Wish::Reserve }, now, shared);
    }

    /// Computes the prompt of `request` for another worker.
    pub(crate) fn prefill(&mut self, request: u32, now: f64, shared: &mut Shared<'_>) {
        let arrival = self.arrive();
        shared.flights[request as usize].at_prefill.arrival = arrival;
        self.wait(Waiting { arrival, request, wish: Wish::Prefill }, now, shared);
    }

    /// Goes on with `request`, whose blocks are reserved: its prompt is to be computed here, or has just arrived.
    pub(crate) fn resume(&mut self, request: u32, now: f64, shared: &mut Shared<'_>) {
        let arrival = shared.flights[request as usize].at_decode.arrival;
        let entry = Waiting { arrival, request, wish: Wish::Resume };
        insert(&mut self.ready, entry);
        self.look_soon(true, now, shared);
    }

    /// The blocks that `request` held for another worker are free.
    pub(crate) fn sent(&mut self, request: u32, now: f64, shared: &mut Shared<'_>) {
        self.release(request, true, shared);
        if !self.waiting.is_empty() {
            self.look_soon(false, now, shared);
        }
    }

    /// Blocks that were reserved for `request` aren't needed, and it isn't here.
    pub(crate) fn unreserve(&mut self, request: u32, now: f64, shared: &mut Shared<'_>) {
        self.release(request, false, shared);
        if !self.waiting.is_empty() {
            self.look_soon(true, now, shared);
        }
    }

    /// The client of `request` is gone.
    pub(crate) fn give_up(&mut self, request: u32, now: f64, shared: &mut Shared<'_>) {
        let others = self.waiting.len() + self.ready.len();
        self.waiting.retain(|entry| entry.request != request);
        self.ready.retain(|entry| {
            let is_it = entry.request == request;
            if is_it {
                // It has its reservation.
                let hold = std::mem::take(&mut shared.flights[request as usize].at_decode);
                self.own_blocks -= hold.own;
                if let Some(cache) = &mut self.cache {
                    cache.release(&shared.traffic.path(request)[..hold.nodes as usize]);
                }
            }
            !is_it
        });
        if others == self.waiting.len() + self.ready.len() {
            self.given_up.push(request);
        }
        self.look_soon(true, now, shared);
    }

    /// Requests that generate.
    pub(crate) fn sequences(&self) -> u32 {
        self.running.len() as u32
    }

    /// Requests that wait, and those that are computed.
    pub(crate) fn requests(&self) -> (u32, u32) {
        ((self.waiting.len() + self.ready.len()) as u32, self.sequences() + self.prompts.len() as u32)
    }

    /// Prompt tokens that are to be computed.
    pub(crate) fn uncomputed_tokens(&self, shared: &Shared<'_>) -> u64 {
        let running = self.prompts.iter().map(|prompt| u64::from(prompt.total - prompt.done));
        let waiting = self.waiting.iter().filter(|entry| entry.wish != Wish::Reserve);
        running.sum::<u64>()
            + waiting
                .map(|entry| u64::from(shared.traffic.requests[entry.request as usize].prompt))
                .sum::<u64>()
    }

    /// KV tokens that requests have now.
    pub(crate) fn used_tokens(&self) -> u64 {
        let cache = self.cache.as_ref().map_or(0, Cache::used_blocks);
        u64::from(self.own_blocks + cache) * u64::from(self.profile.kv.block_tokens)
    }

    /// Nothing is here, nor expected.
    pub(crate) fn is_empty(&self) -> bool {
        self.own_blocks == 0
            && self.run.is_none()
            && self.waiting.is_empty()
            && self.ready.is_empty()
            && self.cache.as_ref().is_none_or(|cache| cache.used_blocks() == 0)
    }

    /// As a process that has just started.
    pub(crate) fn restart(&mut self, profile: Arc<Profile>, shared: &mut Shared<'_>) {
        debug_assert!(self.is_empty(), "a worker that changes its role has finished what it had");
        let worker = self.worker;
        if let Some(cache) = &mut self.cache {
            cache.clear(|node, has| shared.holders.set(node, worker, has));
        }
        self.total_blocks = profile.kv.blocks() as u32;
        self.profile = profile;
    }

    /// A step has ended, or something came while there was none.
    pub(crate) fn turn(&mut self, now: f64, shared: &mut Shared<'_>) {
        if let Some(run) = self.run.take() {
            self.complete(&run, now, shared);
        }
        self.drop_given_up(now, shared);
        self.admit(shared);
        self.preempt(now, shared);
        self.plan(now, shared);
    }

    fn arrive(&mut self) -> u32 {
        self.arrivals += 1;
        self.arrivals
    }

    fn wait(&mut self, entry: Waiting, now: f64, shared: &mut Shared<'_>) {
        // Who is behind somebody without room has none, and nobody has to look.
        let is_behind = !self.waiting.is_empty() && self.run.is_some();
        self.waiting.push_back(entry);
        if !is_behind {
            self.look_soon(entry.wish == Wish::Reserve, now, shared);
        }
    }

    // After the step that is being computed. A prompt that takes all of each step lets no other begin before it is nearly done, so `is_urgent` is not who
    // could only begin.
    fn look_soon(&mut self, is_urgent: bool, now: f64, shared: &mut Shared<'_>) {
        match &mut self.run {
            None => self.turn(now, shared),
            Some(run) => {
                if run.steps > 1 && (is_urgent || run.sequences > 0 || run.chunk == 0) {
                    run.steps = run.steps_until(now);
                }
            }
        }
    }

    fn hold_of(flights: &mut [Flight], request: u32, is_for_another: bool) -> &mut Hold {
        let flight = &mut flights[request as usize];
        if is_for_another { &mut flight.at_prefill } else { &mut flight.at_decode }
    }

    fn release(&mut self, request: u32, is_for_another: bool, shared: &mut Shared<'_>) {
        let hold = Self::hold_of(shared.flights, request, is_for_another);
        self.own_blocks -= std::mem::take(&mut hold.own);
        let nodes = std::mem::take(&mut hold.nodes);
        hold.shared = 0;
        if let Some(cache) = &mut self.cache {
            cache.release(&shared.traffic.path(request)[..nodes as usize]);
        }
    }

    fn cache_used(&self) -> u32 {
        self.cache.as_ref().map_or(0, Cache::used_blocks)
    }

    // What is cached makes room for what requests have and will grow into.
    fn shrink_cache(&mut self, holders: &mut Holders) {
        let (worker, room) =
            (self.worker, self.total_blocks.saturating_sub(self.own_blocks + self.growth_blocks));
        let Some(cache) = &mut self.cache else { return };
        let most = room.saturating_sub(cache.used_blocks());
        if cache.idle_blocks() > most {
            cache.shrink(most, |node, has| holders.set(node, worker, has));
        }
    }
}

fn insert(queue: &mut VecDeque<Waiting>, entry: Waiting) {
    if queue.back().is_none_or(|last| last.arrival < entry.arrival) {
        queue.push_back(entry);
    } else {
        let at = queue.partition_point(|other| other.arrival < entry.arrival);
        queue.insert(at, entry);
    }
}
