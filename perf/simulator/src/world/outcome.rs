//! What came of it.

use baton_policy::{
    placer::{Account, Ended, Moved, Served as Known},
    view::Role,
};

use super::World;
use crate::{
    engine::Totals,
    flight::{Flight, NEVER},
    system::Worker,
    traffic::{NONE, Prepared},
};

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// With its last token.
    Complete,
    /// Its client gave it up.
    Cancelled,
    /// It took longer than [`System::deadline_ms`](crate::System::deadline_ms).
    Late,
    /// The scheduler did not let it in.
    Refused,
    /// Prompt and answer are larger than a worker's KV memory.
    NeverFits,
    /// The simulation could not bring it to an end: it waits for what never comes.
    #[default]
    Unfinished,
}

/// How a request was served. Times in ms; what did not happen is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    /// Its index in the traffic.
    pub index: usize,
    /// How it ended.
    pub ending: Ending,
    /// When it was sent.
    pub sent_ms: f64,
    /// From then to its first token.
    pub ttft_ms: Option<f64>,
    /// Mean time between its tokens, from the first to the last; only of requests that completed with at least two.
    pub tpot_ms: Option<f64>,
    /// Longest time between two of its tokens.
    pub longest_gap_ms: f64,
    /// From sent to its end.
    pub total_ms: f64,
    /// From sent until its prompt began to be computed: admission, KV memory at the decode worker, the prefill worker's queue.
    pub queue_ms: Option<f64>,
    /// Computing the prompt, with what was computed beside it.
    pub prefill_ms: Option<f64>,
    /// From its first token until its blocks had arrived; none where they needn't move.
    pub transfer_ms: Option<f64>,
    /// From then until a step for it began.
    pub decode_wait_ms: Option<f64>,
    /// Tokens of its prompt and answer.
    pub tokens: (u32, u32),
    /// Tokens of the prompt that were cached where it was computed.
    pub cached_tokens: u32,
    /// Who computed the prompt; none: who generated.
    pub prefill_worker: Option<usize>,
    /// Who generated; none: it was not placed.
    pub decode_worker: Option<usize>,
    /// How often its blocks were taken.
    pub preemptions: u32,
}

/// What a worker did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorkerUse {
    /// What it was at first.
    pub role: Role,
    /// Time in steps with prompts alone, ms.
    pub prompt_ms: f64,
    /// Time in steps that only generated, ms.
    pub decode_ms: f64,
    /// Time in steps with both, ms.
    pub mixed_ms: f64,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Prompt tokens that were cached.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub output_tokens: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Most of its KV memory that requests had at a time, 0 to 1.
    pub most_kv: f64,
}

impl WorkerUse {
    /// Time that it computed, ms.
    #[must_use]
    pub fn busy_ms(&self) -> f64 {
        self.prompt_ms + self.decode_ms + self.mixed_ms
    }
}

/// What came of a simulation.
#[derive(Clone, Debug)]
pub struct Simulated {
    flights: Vec<Flight>,
    tokens: Vec<(u32, u32)>,
    request_ms: Vec<f64>,
    workers: Vec<WorkerUse>,
    end_ms: f64,
}

impl Simulated {
    /// How many requests there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// How each request was served, in order of the traffic.
    pub fn served(&self) -> impl ExactSizeIterator<Item = Served> + '_ {
        (0..self.flights.len()).map(|index| self.at(index))
    }

    /// What each worker did.
    #[must_use]
    pub fn workers(&self) -> &[WorkerUse] {
        &self.workers
    }

    /// When the last request ended, ms.
    #[must_use]
    pub fn end_ms(&self) -> f64 {
        self.end_ms
    }

    /// How request `index` was served.
    #[must_use]
    pub fn at(&self, index: usize) -> Served {
        let flight = &self.flights[index];
        let decode_worker = (flight.decode != NONE).then_some(flight.decode as usize);
        let request_ms = decode_worker.map_or(0.0, |worker| self.request_ms[worker]);
        let since = |at: f64, from: f64| (at < NEVER && from < NEVER).then_some(at - from);
        let tokens = self.tokens[index];
        let is_complete = flight.ending == Ending::Complete;
        let cached_tokens =
            if flight.prefill == NONE { flight.cached_at_decode } else { flight.at_prefill.cached_tokens };
        Served {
            index,
            ending: flight.ending,
            sent_ms: flight.sent,
            ttft_ms: since(flight.first_token, flight.sent).map(|ms| ms + request_ms),
            tpot_ms: since(flight.last_token, flight.first_token)
                .filter(|_| is_complete && tokens.1 > 1)
                .map(|ms| ms / f64::from(tokens.1 - 1)),
            longest_gap_ms: flight.longest_gap,
            total_ms: since(flight.ended, flight.sent).map_or(0.0, |ms| ms + request_ms),
            queue_ms: since(flight.prefill_began, flight.sent),
            prefill_ms: since(flight.first_token, flight.prefill_began),
            transfer_ms: since(flight.landed, flight.first_token),
            decode_wait_ms: since(
                flight.decode_began,
                if flight.landed < NEVER { flight.landed } else { flight.first_token },
            ),
            tokens,
            cached_tokens,
            prefill_worker: (flight.prefill != NONE).then_some(flight.prefill as usize),
            decode_worker,
            preemptions: flight.preemptions,
        }
    }
}

impl World<'_> {
    pub(super) fn simulated(self) -> Simulated {
        let workers = self.system.workers.iter().zip(&self.engines).map(|(worker, engine)| {
            let Totals { prompt_ms, decode_ms, mixed_ms, most_blocks, .. } = engine.totals;
            WorkerUse {
                role: worker.role,
                prompt_ms,
                decode_ms,
                mixed_ms,
                prompt_tokens: engine.totals.prompt_tokens,
                cached_tokens: engine.totals.cached_tokens,
                output_tokens: engine.totals.output_tokens,
                preemptions: engine.totals.preemptions,
                most_kv: f64::from(most_blocks) / worker.profile.kv.blocks() as f64,
            }
        });
        Simulated {
            workers: workers.collect(),
            request_ms: self.system.workers.iter().map(|worker| worker.profile.overhead.request_ms).collect(),
            tokens: self.traffic.requests.iter().map(|request| (request.prompt, request.output)).collect(),
            flights: self.flights,
            end_ms: self.now,
        }
    }
}

impl Flight {
    /// As the scheduler hears of it.
    pub(super) fn told(&self, planned: &Prepared, workers: &[Worker], is_complete: bool) -> Ended<'static> {
        let has_first = self.first_token < NEVER;
        Ended {
            tenant: "",
            ttft_ms: has_first.then_some(self.first_token - self.sent),
            output_tokens: is_complete.then_some(u64::from(planned.output - self.left)),
            served: if has_first { Known::Told(self.account(planned, workers)) } else { Known::Unknown },
        }
    }

    // Of one that has had its first token.
    fn account(&self, planned: &Prepared, workers: &[Worker]) -> Account {
        let (prefill, cached_tokens) = match self.prefill {
            NONE => (self.decode, self.cached_at_decode),
            prefill => (prefill, self.at_prefill.cached_tokens),
        };
        let moved = if self.landed < NEVER { planned.prompt - self.cached_at_decode } else { 0 };
        let bytes = f64::from(moved) * workers[self.decode as usize].profile.kv.bytes_per_token;
        Account {
            prefill: prefill as usize,
            prefill_ms: self.first_token - self.prefill_began,
            cached_tokens: cached_tokens.into(),
            moved: (bytes > 0.0).then_some(Moved { bytes, link_ms: self.link_ms }),
        }
    }
}
