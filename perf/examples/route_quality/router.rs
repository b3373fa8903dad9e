//! The scheduler's side: keeps the view, asks a policy, learns.

use std::collections::HashMap;

use baton_policy::{
    cost::LinkCost,
    decide::Decider,
    dice::Dice,
    learn::Learner,
    profile::Profile,
    view::{Cached, FleetView, LinkClass, Links, Placed, Report, RequestView, Role, WorkerView},
};

use crate::{
    cluster::{Place, Shape},
    decoder::{Decoder, Local, Stepped},
    model,
    peers::{Peer, Seen},
    prefiller::Prefiller,
    trace::Request,
};

pub(crate) enum Policy {
    Peer(Peer),
    Ours(Box<Decider>),
}

pub(crate) struct Router {
    policy: Policy,
    fleet: FleetView,
    prefill: Vec<usize>,
    decode: Vec<usize>,
    active_tokens: Vec<u64>,
    new_tokens: HashMap<usize, u64>,
    placed: HashMap<usize, Placed>,
    pub(crate) learner: Learner,
    dice: Dice,
}

impl Router {
    pub(crate) fn peer(peer: Peer, shape: Shape) -> Self {
        Self::new(Policy::Peer(peer), shape)
    }

    /// `number`: which of several schedulers.
    pub(crate) fn ours(profile: Profile, shape: Shape, number: usize) -> Self {
        let dice = Dice::new(7 + number as u64);
        Self { dice, ..Self::new(Policy::Ours(Box::new(Decider::new(profile))), shape) }
    }

    fn new(policy: Policy, shape: Shape) -> Self {
        let mut learner = Learner::default();
        let workers: Vec<_> = (0..shape.prefill + shape.decode)
            .map(|index| WorkerView {
                id: format!("worker-{index}").into(),
                role: if index < shape.prefill { Role::Prefill } else { Role::Decode },
                group: (index % 2) as u16,
                kv_capacity_tokens: model::DECODE_KV_TOKENS,
                costs: learner.joined(&format!("worker-{index}")),
                ..WorkerView::default()
            })
            .collect();
        let classes = ["in-zone", "across-zones"].map(|name| LinkClass {
            name: name.to_owned(),
            cost: LinkCost::default(),
            distance: 0.0,
        });
        let links = Links::try_new(classes.to_vec(), 2, |from, to| usize::from(from != to));
        Self {
            policy,
            fleet: FleetView { workers, links: links.unwrap_or_default(), ..FleetView::default() },
            prefill: (0..shape.prefill).collect(),
            decode: (shape.prefill..shape.prefill + shape.decode).collect(),
            active_tokens: vec![0; shape.prefill + shape.decode],
            new_tokens: HashMap::new(),
            placed: HashMap::new(),
            learner,
            dice: Dice::new(7),
        }
    }

    pub(crate) fn link_class(&self, prefill: usize, decode: usize) -> usize {
        self.fleet.links.class(self.fleet.workers[prefill].group, self.fleet.workers[decode].group)
    }

    pub(crate) fn place(&mut self, index: usize, request: &Request, cached: &[u64], now: f64) -> Place {
        let place = match &mut self.policy {
            Policy::Peer(peer) => peer.place(&Seen {
                fleet: &self.fleet,
                prefill: &self.prefill,
                decode: &self.decode,
                active_tokens: &self.active_tokens,
                cached,
                prompt_tokens: request.prompt_tokens,
                number: index,
                now,
            }),
            Policy::Ours(decider) => {
                let cached: Vec<_> = cached.iter().map(|&tokens| Cached::device(tokens as u32)).collect();
                let view = RequestView {
                    prompt_tokens: request.prompt_tokens,
                    max_tokens: 4_096,
                    expected_output_tokens: self.learner.outputs.expected("", 4_096),
                    kv_bytes_per_token: model::KV_BYTES_PER_TOKEN,
                    cached: &cached,
                    dice: self.dice.next_u64(),
                    ..RequestView::default()
                };
                match decider.decide(&self.fleet, &view, now) {
                    Ok(decision) => Place {
                        prefill: decision.prefill,
                        decode: decision.decode,
                        compute_ms: decision.compute_ms,
                        ttft_ms: decision.terms.ttft_ms(),
                    },
                    Err(_) => {
                        Place { prefill: Some(0), decode: self.decode[0], compute_ms: 0.0, ttft_ms: 0.0 }
                    }
                }
            }
        };
        self.note_placed(index, request, cached, &place, now);
        place
    }

    fn note_placed(&mut self, index: usize, request: &Request, cached: &[u64], place: &Place, now: f64) {
        let worker = place.prefill.unwrap_or(place.decode);
        let new_tokens = request.prompt_tokens - cached.get(worker).copied().unwrap_or(0);
        self.active_tokens[worker] += new_tokens;
        self.new_tokens.insert(index, new_tokens);
        let placed = Placed {
            prefill: self.fleet.seat_of(worker),
            decode: self.fleet.seat_of(place.decode),
            compute_ms: place.compute_ms,
            prompt_tokens: request.prompt_tokens,
            growth_tokens: request.prompt_tokens + self.learner.outputs.expected("", 4_096) as u64,
            ttft_ms: place.ttft_ms,
        };
        self.fleet.placed(&placed, now);
        self.placed.insert(index, placed);
    }

    #[expect(clippy::too_many_arguments, reason = "one event, all of it known at once")]
    pub(crate) fn prefilled(
        &mut self,
        index: usize,
        request: &Request,
        place: &Place,
        cached: u64,
        took_ms: f64,
        transfer_ms: f64,
        now: f64,
    ) {
        let Some(worker) = place.prefill else { return };
        self.active_tokens[worker] -= self.new_tokens.remove(&index).unwrap_or(0);
        self.fleet.workers[worker].own.prefill_done(place.compute_ms, now);
        let id = self.fleet.workers[worker].id.clone();
        let costs = self.learner.prefilled(&id, request.prompt_tokens - cached, cached, took_ms);
        self.fleet.workers[worker].costs = costs;
        let class = self.link_class(worker, place.decode);
        let bytes = request.prompt_tokens as f64 * model::KV_BYTES_PER_TOKEN;
        let cost = self.learner.transferred(class, LinkCost::default(), bytes, transfer_ms);
        if let Some(class) = self.fleet.links.class_mut(class) {
            class.cost = cost;
        }
    }

    pub(crate) fn locally_prefilled(&mut self, request: &Request, place: &Place, prompt: &Local, now: f64) {
        let id = self.fleet.workers[place.decode].id.clone();
        if prompt.is_alone {
            self.fleet.workers[place.decode].costs =
                self.learner.prefilled(&id, request.prompt_tokens, 0, prompt.took_ms);
        } else {
            let alone_ms = self.learner.costs(&id).prefill.predict(request.prompt_tokens, 0);
            self.learner.prompt_beside(alone_ms, prompt.took_ms);
        }
        self.fleet.workers[place.decode].own.prefill_done(place.compute_ms, now);
    }

    pub(crate) fn stepped(&mut self, worker: usize, stepped: &Stepped) {
        // A real worker would say so with its report, not after each step.
        if stepped.had_prompt || stepped.sequences == 0 {
            return;
        }
        let id = self.fleet.workers[worker].id.clone();
        let (sequences, context) = (stepped.sequences as f64, stepped.context_tokens as f64);
        self.fleet.workers[worker].costs = self.learner.stepped(&id, sequences, context, stepped.step_ms);
    }

    pub(crate) fn finished(&mut self, index: usize, request: &Request, place: &Place, ttft_ms: f64) {
        if place.prefill.is_none() {
            self.active_tokens[place.decode] -= self.new_tokens.remove(&index).unwrap_or(0);
        }
        if let Some(placed) = self.placed.remove(&index) {
            self.fleet.sequence_done(&placed);
        }
        self.learner.outputs.add("", request.output_tokens);
        if place.ttft_ms > 0.0 {
            self.learner.first_token(place.ttft_ms, ttft_ms);
        }
    }

    pub(crate) fn report(
        &mut self,
        now: f64,
        prefillers: &[Prefiller],
        decoders: &[Decoder],
        requests: &[Request],
    ) {
        // Workers that learn nothing themselves follow the others.
        for worker in &mut self.fleet.workers {
            worker.costs = self.learner.costs(&worker.id);
        }
        for (&index, prefiller) in self.prefill.iter().zip(prefillers) {
            self.fleet.reported(
                index,
                Report {
                    at: Some(now),
                    waiting: prefiller.queue.len() as u32,
                    running: u32::from(prefiller.current.is_some()),
                    waiting_prompt_tokens: prefiller.waiting_tokens(requests),
                    kv_used_tokens: 0,
                    ..Report::default()
                },
            );
        }
        for (&index, decoder) in self.decode.iter().zip(decoders) {
            let waiting: u64 = decoder.waiting.iter().map(|&request| requests[request].prompt_tokens).sum();
            self.fleet.reported(
                index,
                Report {
                    at: Some(now),
                    waiting: decoder.waiting.len() as u32,
                    running: decoder.sequences() as u32,
                    waiting_prompt_tokens: 0,
                    kv_used_tokens: decoder.context_tokens + waiting,
                    ..Report::default()
                },
            );
        }
    }
}
