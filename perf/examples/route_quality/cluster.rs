//! The simulated cluster: events in order of time.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use crate::{
    cache::{Lru, cached_tokens},
    decoder::{Decoder, Local},
    model,
    prefiller::Prefiller,
    router::Router,
    trace::Request,
};

/// Where a request goes, and what its router believes of that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) prefill: Option<usize>,
    pub(crate) decode: usize,
    pub(crate) compute_ms: f64,
    pub(crate) ttft_ms: f64,
}

/// How a request was served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Served {
    pub(crate) ttft_ms: f64,
    pub(crate) tpot_ms: f64,
    pub(crate) cached_tokens: u64,
    pub(crate) is_local: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Arrived(usize),
    Prefilled { worker: usize },
    Runnable { request: usize },
    Stepped { worker: usize },
    Report,
}

/// Events by time, then by when they were made.
#[derive(Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(Time, u64, EventBox)>>,
    made: u64,
}

#[derive(Clone, Copy, PartialEq)]
struct Time(f64);
impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Eq for Time {}
impl Ord for Time {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

// Never compared: the number before it is unique.
#[derive(Clone, Copy, PartialEq, Eq)]
struct EventBox(Event);
impl PartialOrd for EventBox {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for EventBox {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl Agenda {
    pub(crate) fn add(&mut self, at: f64, event: Event) {
        self.made += 1;
        self.heap.push(Reverse((Time(at), self.made, EventBox(event))));
    }

    fn next(&mut self) -> Option<(f64, Event)> {
        self.heap.pop().map(|Reverse((Time(at), _, EventBox(event)))| (at, event))
    }
}

/// Sizes of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) prefill: usize,
    pub(crate) decode: usize,
    pub(crate) cache_blocks: usize,
}

/// Who has a request: schedulers take turns.
fn scheduler(index: usize, routers: &[Router]) -> usize {
    index % routers.len()
}

/// Serves `requests` (with times already scaled) by way of as many schedulers as there are routers, and says how.
pub(crate) fn serve(requests: &[Request], shape: Shape, routers: &mut [Router]) -> Vec<Served> {
    let mut agenda = Agenda::default();
    for (index, request) in requests.iter().enumerate() {
        agenda.add(request.at, Event::Arrived(index));
    }
    agenda.add(0.0, Event::Report);
    let mut cluster = Cluster {
        requests,
        places: vec![None; requests.len()],
        served: vec![Served::default(); requests.len()],
        prefillers: (0..shape.prefill).map(|_| Prefiller::new(Lru::new(shape.cache_blocks))).collect(),
        decoders: (0..shape.decode).map(|_| Decoder::default()).collect(),
        left: requests.len(),
    };
    while let Some((now, event)) = agenda.next() {
        cluster.happen(now, event, &mut agenda, routers);
        if cluster.left == 0 {
            break;
        }
    }
    cluster.served
}

struct Cluster<'a> {
    requests: &'a [Request],
    places: Vec<Option<Place>>,
    served: Vec<Served>,
    prefillers: Vec<Prefiller>,
    decoders: Vec<Decoder>,
    left: usize,
}

impl Cluster<'_> {
    fn happen(&mut self, now: f64, event: Event, agenda: &mut Agenda, routers: &mut [Router]) {
        match event {
            Event::Arrived(request) => self.arrived(request, now, agenda, routers),
            Event::Prefilled { worker } => self.prefilled(worker, now, agenda, routers),
            Event::Runnable { request } => self.runnable(request, now, agenda),
            Event::Stepped { worker } => self.stepped(worker, now, agenda, routers),
            Event::Report => {
                for router in routers {
                    router.report(now, &self.prefillers, &self.decoders, self.requests);
                }
                agenda.add(now + model::REPORT_MS, Event::Report);
            }
        }
    }

    fn decoder_index(&self, worker: usize) -> usize {
        worker - self.prefillers.len()
    }

    fn arrived(&mut self, index: usize, now: f64, agenda: &mut Agenda, routers: &mut [Router]) {
        let request = &self.requests[index];
        let scheduler = scheduler(index, routers);
        let cached: Vec<u64> = self
            .prefillers
            .iter()
            .map(|worker| {
                cached_tokens(worker.cache.expected(scheduler, &request.blocks), request.prompt_tokens)
            })
            .collect();
        let place = routers[scheduler].place(index, request, &cached, now);
        self.places[index] = Some(place);
        self.served[index].is_local = place.prefill.is_none();
        match place.prefill {
            Some(worker) => {
                self.prefillers[worker].cache.announce(scheduler, &request.blocks);
                self.prefillers[worker].queue.push_back(index);
                self.begin_prefill(worker, now, agenda);
            }
            None => {
                let decoder = self.decoder_index(place.decode);
                self.decoders[decoder].local.push_back(Local::new(index));
                self.begin_step(place.decode, now, agenda);
            }
        }
    }

    fn begin_prefill(&mut self, worker: usize, now: f64, agenda: &mut Agenda) {
        let prefiller = &mut self.prefillers[worker];
        if prefiller.current.is_some() {
            return;
        }
        let Some(index) = prefiller.queue.pop_front() else { return };
        let request = &self.requests[index];
        let cached = cached_tokens(prefiller.cache.present(&request.blocks), request.prompt_tokens);
        let took = model::PREFILL.predict(request.prompt_tokens - cached, cached) * model::noise(index);
        self.served[index].cached_tokens = cached;
        prefiller.current = Some((index, took));
        agenda.add(now + took, Event::Prefilled { worker });
    }

    fn prefilled(&mut self, worker: usize, now: f64, agenda: &mut Agenda, routers: &mut [Router]) {
        let Some((index, took)) = self.prefillers[worker].current.take() else { return };
        let scheduler = scheduler(index, routers);
        let router = &mut routers[scheduler];
        let request = &self.requests[index];
        self.prefillers[worker].cache.arrived(scheduler, &request.blocks);
        let Some(place) = self.places[index] else { return };
        let bytes = request.prompt_tokens as f64 * model::KV_BYTES_PER_TOKEN;
        let class = router.link_class(worker, place.decode);
        let transfer = model::LINKS[class].transfer_ms(bytes);
        let exposed = baton_policy::cost::LinkCost::exposed_ms(transfer, took);
        router.prefilled(index, request, &place, self.served[index].cached_tokens, took, transfer, now);
        agenda.add(now + exposed, Event::Runnable { request: index });
        self.begin_prefill(worker, now, agenda);
    }

    fn runnable(&mut self, index: usize, now: f64, agenda: &mut Agenda) {
        let Some(place) = self.places[index] else { return };
        let decoder = self.decoder_index(place.decode);
        self.decoders[decoder].waiting.push_back(index);
        self.begin_step(place.decode, now, agenda);
    }

    fn begin_step(&mut self, worker: usize, now: f64, agenda: &mut Agenda) {
        let decoder = self.decoder_index(worker);
        let decoder = &mut self.decoders[decoder];
        if decoder.is_stepping {
            return;
        }
        for index in decoder.admit(self.requests, now) {
            self.served[index].ttft_ms = now - self.requests[index].at;
        }
        if let Some(step_ms) = decoder.begin_step(self.requests) {
            agenda.add(now + step_ms, Event::Stepped { worker });
        }
    }

    fn stepped(&mut self, worker: usize, now: f64, agenda: &mut Agenda, routers: &mut [Router]) {
        let at = self.decoder_index(worker);
        let stepped = self.decoders[at].end_step(self.requests);
        routers.iter_mut().for_each(|router| router.stepped(worker, &stepped));
        for prompt in stepped.prefilled {
            let index = prompt.request;
            let Some(place) = self.places[index] else { continue };
            routers[scheduler(index, routers)].locally_prefilled(&self.requests[index], &place, &prompt, now);
        }
        for (index, first_at) in stepped.finished {
            let Some(place) = self.places[index] else { continue };
            let request = &self.requests[index];
            let served = &mut self.served[index];
            if request.output_tokens > 1 {
                served.tpot_ms = (now - first_at) / (request.output_tokens - 1) as f64;
            }
            routers[scheduler(index, routers)].finished(index, request, &place, served.ttft_ms);
            self.left -= 1;
        }
        self.begin_step(worker, now, agenda);
    }
}
