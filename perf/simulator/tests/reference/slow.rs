//! The same system, step by step and token by token: no sums, no inverses, no caches; requests in turn.

use baton_profile::{Profile, StepShape};
use baton_simulator::{SimRequest, Start};

/// What is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Slow {
    pub(crate) first_token: f64,
    pub(crate) last_token: f64,
    pub(crate) longest_gap: f64,
    pub(crate) preemptions: u32,
}

#[derive(Clone, Debug)]
struct Sequence {
    request: usize,
    arrival: usize,
    /// Tokens whose keys and values are there, and tokens there are.
    computed: u32,
    tokens: u32,
    left: u32,
    blocks: u32,
    is_reservation: bool,
    is_for_another: bool,
    last_chunk: u32,
}

impl Sequence {
    fn is_decoding(&self, prompt: u32) -> bool {
        self.tokens > prompt && self.computed + 1 == self.tokens
    }
}

#[derive(Default)]
struct Worker {
    waiting: Vec<Sequence>,
    running: Vec<Sequence>,
    used: u32,
    arrivals: usize,
    /// When the step ends, and what it computes of whom.
    step: Option<(f64, Vec<(usize, u32)>)>,
    mixed_in_a_row: u32,
    has_been_quiet: bool,
}

enum Event {
    Sent(usize),
    Called(usize),
    Landed(usize),
}

pub(crate) struct World<'a> {
    profile: &'a Profile,
    requests: &'a [SimRequest],
    workers: Vec<Worker>,
    events: Vec<(f64, Event)>,
    slow: Vec<Slow>,
    last_token: Vec<f64>,
    first_data: Vec<f64>,
    place: Vec<(Option<usize>, usize)>,
    on_the_way: Vec<Option<Sequence>>,
    held: Vec<u32>,
    links: Vec<(f64, f64)>,
}

impl<'a> World<'a> {
    pub(crate) fn run(
        profile: &'a Profile,
        prefill: usize,
        decode: usize,
        requests: &'a [SimRequest],
    ) -> Vec<Slow> {
        let count = requests.len();
        let mut world = Self {
            profile,
            requests,
            workers: (0..prefill + decode).map(|_| Worker::default()).collect(),
            events: Vec::new(),
            slow: vec![Slow::default(); count],
            last_token: vec![0.0; count],
            first_data: vec![f64::INFINITY; count],
            place: (0..count)
                .map(|turn| ((prefill > 0).then(|| turn % prefill.max(1)), prefill + turn % decode))
                .collect(),
            on_the_way: vec![None; count],
            held: vec![0; count],
            links: vec![(0.0, 0.0); prefill + decode],
        };
        for (index, request) in requests.iter().enumerate() {
            if let Start::At(at) = request.start {
                world.events.push((at, Event::Sent(index)));
            }
        }
        while world.next() {}
        world.slow
    }

    fn next(&mut self) -> bool {
        let event = (0..self.events.len()).min_by(|&a, &b| self.events[a].0.total_cmp(&self.events[b].0));
        let step = |worker: usize| self.workers[worker].step.as_ref().map_or(f64::INFINITY, |step| step.0);
        let worker =
            (0..self.workers.len()).min_by(|&a, &b| step(a).total_cmp(&step(b))).expect("there are workers");
        match event {
            Some(event) if self.events[event].0 <= step(worker) => {
                let (now, event) = self.events.remove(event);
                self.happen(now, event);
            }
            _ if step(worker).is_finite() => self.turn(worker, step(worker)),
            _ => return false,
        }
        true
    }

    fn blocks(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.profile.kv.block_tokens)
    }

    fn happen(&mut self, now: f64, event: Event) {
        match event {
            Event::Sent(request) => {
                let decode = self.place[request].1;
                self.enter(request, decode, true, false, now);
            }
            Event::Called(request) => match self.place[request] {
                (Some(prefill), _) => self.enter(request, prefill, false, true, now),
                (None, _) => self.resume(request, now),
            },
            Event::Landed(request) => {
                let (Some(prefill), _) = self.place[request] else { return };
                self.workers[prefill].used -= std::mem::take(&mut self.held[request]);
                if self.workers[prefill].step.is_none() {
                    self.turn(prefill, now);
                }
                self.resume(request, now);
            }
        }
    }

    fn enter(&mut self, request: usize, worker: usize, is_reservation: bool, is_for_another: bool, now: f64) {
        let planned = &self.requests[request];
        self.workers[worker].arrivals += 1;
        let sequence = Sequence {
            request,
            arrival: self.workers[worker].arrivals,
            computed: 0,
            tokens: planned.prompt_tokens,
            left: planned.output_tokens,
            blocks: 0,
            is_reservation,
            is_for_another,
            last_chunk: 0,
        };
        self.wait(worker, sequence, now);
    }

    fn resume(&mut self, request: usize, now: f64) {
        let sequence = self.on_the_way[request].take().expect("it was granted");
        self.wait(self.place[request].1, sequence, now);
    }

    fn wait(&mut self, worker: usize, sequence: Sequence, now: f64) {
        self.workers[worker].waiting.push(sequence);
        self.workers[worker].waiting.sort_by_key(|waiting| waiting.arrival);
        if self.workers[worker].step.is_none() {
            self.turn(worker, now);
        }
    }

    fn turn(&mut self, worker: usize, now: f64) {
        if let Some((_, computed)) = self.workers[worker].step.take() {
            self.complete(worker, &computed, now);
        }
        self.admit(worker, now);
        self.preempt(worker);
        self.plan(worker, now);
    }

    fn admit(&mut self, worker: usize, now: f64) {
        let limits = &self.profile.limits;
        let total = self.profile.kv.blocks() as u32;
        let mut is_blocked = false;
        let mut at = 0;
        while at < self.workers[worker].waiting.len() {
            let sequence = &self.workers[worker].waiting[at];
            let output = self.requests[sequence.request].output_tokens;
            let needed = if sequence.blocks > 0 {
                0
            } else if sequence.is_reservation {
                self.blocks(sequence.tokens + output.min(limits.growth_tokens))
            } else {
                self.blocks(sequence.tokens + u32::from(!sequence.is_for_another))
            };
            let running = &self.workers[worker].running;
            let growing = running.iter().filter(|other| !other.is_for_another).count() as u32;
            let has_slot = sequence.is_reservation || running.len() < limits.running as usize;
            let has_room = needed == 0 || self.workers[worker].used + needed + growing <= total;
            if !has_slot || !has_room || (is_blocked && needed > 0) {
                is_blocked = true;
                at += 1;
                continue;
            }
            let mut sequence = self.workers[worker].waiting.remove(at);
            self.workers[worker].used += needed;
            sequence.blocks += needed;
            if sequence.is_reservation {
                sequence.is_reservation = false;
                let request = sequence.request;
                self.on_the_way[request] = Some(sequence);
                let is_remote = self.place[request].0.is_some();
                let call_ms = if is_remote { self.profile.overhead.call_ms } else { 0.0 };
                self.events.push((now + call_ms, Event::Called(request)));
            } else {
                self.workers[worker].running.push(sequence);
                self.workers[worker].running.sort_by_key(|running| running.arrival);
            }
        }
    }

    fn preempt(&mut self, worker: usize) {
        let total = self.profile.kv.blocks() as u32;
        for at in 0.. {
            let Some(sequence) = self.workers[worker].running.get(at) else { return };
            let arrival = sequence.arrival;
            if !sequence.is_decoding(self.requests[sequence.request].prompt_tokens) {
                continue;
            }
            loop {
                let worker = &mut self.workers[worker];
                let Some(sequence) = worker.running.iter_mut().find(|other| other.arrival == arrival) else {
                    break;
                };
                let needed = sequence.tokens.div_ceil(self.profile.kv.block_tokens);
                if sequence.blocks >= needed {
                    break;
                }
                if worker.used < total {
                    worker.used += 1;
                    sequence.blocks += 1;
                    break;
                }
                let running = worker.running.iter().filter(|other| !other.is_for_another);
                let waiting = worker.waiting.iter().filter(|other| !other.is_reservation && other.blocks > 0);
                let youngest = running.chain(waiting).map(|other| other.arrival).max().expect("itself");
                let mut victim = match worker.running.iter().position(|other| other.arrival == youngest) {
                    Some(at) => worker.running.remove(at),
                    None => {
                        let at = worker.waiting.iter().position(|other| other.arrival == youngest);
                        worker.waiting.remove(at.expect("it waits"))
                    }
                };
                worker.used -= std::mem::take(&mut victim.blocks);
                victim.computed = 0;
                self.slow[victim.request].preemptions += 1;
                worker.waiting.push(victim);
                worker.waiting.sort_by_key(|waiting| waiting.arrival);
            }
        }
    }

    fn plan(&mut self, worker: usize, now: f64) {
        let (profile, limits) = (self.profile, &self.profile.limits);
        let prompt = |request: usize| self.requests[request].prompt_tokens;
        let running = &self.workers[worker].running;
        let decoding: Vec<&Sequence> =
            running.iter().filter(|sequence| sequence.is_decoding(prompt(sequence.request))).collect();
        let context: u64 = decoding.iter().map(|sequence| u64::from(sequence.computed)).sum();
        let sequences = decoding.len() as u32;
        let mut plan: Vec<(usize, u32)> = decoding.iter().map(|sequence| (sequence.arrival, 1)).collect();
        let block = profile.kv.block_tokens;
        let most = if sequences == 0 {
            limits.step_tokens
        } else {
            match limits.mixed_prompt_tokens {
                Some(tokens) => tokens,
                None if !self.workers[worker].has_been_quiet || self.workers[worker].mixed_in_a_row >= 32 => {
                    0
                }
                None => self.paced(worker, sequences, context, limits.step_tokens),
            }
        };
        let mut left = limits.step_tokens.saturating_sub(sequences).min(most).max(block.min(most));
        let mut shape = StepShape { sequences, context_tokens: context, ..StepShape::default() };
        for sequence in &self.workers[worker].running {
            if sequence.is_decoding(prompt(sequence.request)) {
                continue;
            }
            let chunk = left.min(sequence.tokens - sequence.computed);
            if chunk == 0 {
                break;
            }
            let together = plan.len();
            if sequences == 0 && together > 0 {
                // All there are with it, and it apart.
                let mut with = shape;
                with.prompt((sequence.tokens - sequence.computed).into(), sequence.computed.into());
                let alone = StepShape {
                    prompt_tokens: with.prompt_tokens - shape.prompt_tokens,
                    pairs: with.pairs - shape.pairs,
                    ..StepShape::default()
                };
                let adds = profile.step_ms(&with) - profile.step_ms(&shape);
                let saves = (profile.step_ms(&alone) - adds).max(0.0);
                let after = (running.len() - together) as f64;
                let is_whole = sequence.computed + chunk == sequence.tokens;
                if !is_whole || (together * together) as f64 * adds > after * saves {
                    break;
                }
            }
            shape.prompt(chunk.into(), sequence.computed.into());
            plan.push((sequence.arrival, chunk));
            left -= chunk;
        }
        if plan.is_empty() {
            return;
        }
        let took = profile.step_ms(&shape);
        for sequence in &mut self.workers[worker].running {
            if sequence.computed == 0 && plan.iter().any(|(arrival, _)| *arrival == sequence.arrival) {
                let data = &mut self.first_data[sequence.request];
                *data = data.min(now + took / f64::from(profile.transfer.layer_groups));
            }
        }
        let worker = &mut self.workers[worker];
        if sequences > 0 && shape.prompt_tokens > 0 {
            worker.mixed_in_a_row += 1;
        } else if sequences > 0 {
            worker.mixed_in_a_row = 0;
            worker.has_been_quiet = true;
        }
        worker.step = Some((now + took, plan));
    }

    // The most tokens with which a step takes at most 1.6 times as long as without, by trying.
    fn paced(&self, worker: usize, sequences: u32, context: u64, most: u32) -> u32 {
        let quiet = self.profile.decode.step_ms(sequences, context);
        let is_prompt =
            |sequence: &&Sequence| !sequence.is_decoding(self.requests[sequence.request].prompt_tokens);
        let done =
            self.workers[worker].running.iter().find(is_prompt).map_or(0, |sequence| sequence.computed);
        let fits = |tokens: u32| {
            let mut shape = StepShape { sequences, context_tokens: context, ..StepShape::default() };
            shape.prompt(tokens.into(), done.into());
            self.profile.step_ms(&shape) <= 1.6 * quiet
        };
        (4..=most).rev().find(|&tokens| fits(tokens)).unwrap_or(4.min(most))
    }

    fn complete(&mut self, worker: usize, computed: &[(usize, u32)], now: f64) {
        for &(arrival, count) in computed {
            let running = &mut self.workers[worker].running;
            let at =
                running.iter().position(|sequence| sequence.arrival == arrival).expect("it was computed");
            let sequence = &mut running[at];
            let request = sequence.request;
            if !sequence.is_decoding(self.requests[request].prompt_tokens) {
                sequence.last_chunk = count;
            }
            sequence.computed += count;
            if sequence.computed < sequence.tokens {
                continue;
            }
            sequence.tokens += 1;
            sequence.left -= 1;
            let slow = &mut self.slow[request];
            if slow.first_token == 0.0 {
                slow.first_token = now;
            } else {
                slow.longest_gap = slow.longest_gap.max(now - self.last_token[request]);
            }
            (self.last_token[request], slow.last_token) = (now, now);
            if sequence.is_for_another {
                let sequence = running.remove(at);
                self.hand_over(worker, sequence, now);
            } else if sequence.left == 0 {
                let sequence = running.remove(at);
                self.workers[worker].used -= sequence.blocks;
            }
        }
    }

    fn hand_over(&mut self, from: usize, sequence: Sequence, now: f64) {
        let request = sequence.request;
        let to = self.place[request].1;
        if sequence.left == 0 {
            self.workers[from].used -= sequence.blocks;
            let reserved = self.on_the_way[request].take().expect("it was granted");
            self.workers[to].used -= reserved.blocks;
            if self.workers[to].step.is_none() {
                self.turn(to, now);
            }
            return;
        }
        self.held[request] = sequence.blocks;
        let (transfer, kv) = (&self.profile.transfer, &self.profile.kv);
        let link_ms = transfer.link_ms(u64::from(self.requests[request].prompt_tokens), kv);
        let tail = transfer.link_ms(u64::from(sequence.last_chunk), kv) / f64::from(transfer.layer_groups);
        self.links[from].0 = self.links[from].0.max(self.first_data[request]) + link_ms;
        self.links[to].1 = self.links[to].1.max(self.first_data[request]) + link_ms;
        let landed = self.links[from].0.max(self.links[to].1).max(now + tail) + transfer.latency_ms;
        let reserved = self.on_the_way[request].as_mut().expect("it was granted");
        reserved.computed = reserved.tokens;
        reserved.tokens += 1;
        reserved.left -= 1;
        self.events.push((landed, Event::Landed(request)));
    }
}
