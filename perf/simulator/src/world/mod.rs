//! Everything together: requests come, are placed, computed, moved, generated, in order of time.

mod agenda;
mod fleet;
mod outcome;

pub use outcome::{Ending, Served, Simulated, WorkerUse};

use agenda::{Agenda, Event, Wakes};

use crate::{
    engine::{Engine, Holders, Said, Shared},
    flight::{Flight, NEVER, Stage},
    route::{BatonRouter, Place, Router, Seen, SimpleRouter, Verdict},
    system::{Routing, System, SystemError},
    traffic::{Cancel, NONE, Start, Traffic},
};

/// Simulates `traffic` on `system` until every request has ended.
///
/// # Errors
/// [`SystemError`].
pub fn simulate(system: &System, traffic: &Traffic) -> Result<Simulated, SystemError> {
    system.check()?;
    let mut world = World::new(system, traffic);
    world.run();
    Ok(world.simulated())
}

struct World<'a> {
    system: &'a System,
    traffic: &'a Traffic,
    flights: Vec<Flight>,
    engines: Vec<Engine>,
    holders: Holders,
    router: Router,
    agenda: Agenda,
    wakes: Wakes,
    said: Vec<Said>,
    // [worker]: until when what was sent over its link, out and in, keeps it busy.
    link_out: Vec<f64>,
    link_in: Vec<f64>,
    members: Vec<fleet::Member>,
    block_tokens: u32,
    next_timed: usize,
    next_when_free: usize,
    closed_loop_under_way: usize,
    left: usize,
    is_ticking: bool,
    now: f64,
}

impl<'a> World<'a> {
    fn new(system: &'a System, traffic: &'a Traffic) -> Self {
        let workers = &system.workers;
        let nodes = if system.prefix_cache { traffic.prefixes.nodes() } else { 0 };
        let cache = (nodes > 0).then_some(nodes);
        let engine = |(index, worker): (usize, &crate::system::Worker)| {
            Engine::new(index, worker.profile.clone(), cache)
        };
        let roles = workers.iter().map(|worker| worker.role);
        let router = match &system.routing {
            Routing::RoundRobin => Router::Simple(SimpleRouter::new(false, roles)),
            Routing::LeastLoaded => Router::Simple(SimpleRouter::new(true, roles)),
            Routing::Baton { profile, admission } => Router::Baton(Box::new(BatonRouter::new(
                (**profile).clone(),
                (**admission).clone(),
                workers,
                nodes,
                (system.seed, system.max_tokens),
            ))),
        };
        let mut world = Self {
            system,
            traffic,
            flights: vec![Flight::default(); traffic.len()],
            engines: workers.iter().enumerate().map(engine).collect(),
            holders: Holders::new(nodes, workers.len()),
            router,
            agenda: Agenda::default(),
            wakes: Wakes::new(workers.len()),
            said: Vec::new(),
            link_out: vec![0.0; workers.len()],
            link_in: vec![0.0; workers.len()],
            members: workers.iter().map(|worker| fleet::Member::new(worker.role)).collect(),
            block_tokens: workers.first().map_or(1, |worker| worker.profile.kv.block_tokens),
            next_timed: 0,
            next_when_free: 0,
            closed_loop_under_way: 0,
            left: traffic.len(),
            is_ticking: false,
            now: 0.0,
        };
        for (index, change) in system.changes.iter().enumerate() {
            world.agenda.add(change.at_ms, Event::Change(index as u32));
        }
        if matches!(world.router, Router::Baton(_)) {
            world.agenda.add(0.0, Event::Report);
        }
        world
    }

    fn run(&mut self) {
        self.send_when_free();
        while self.left > 0 {
            let timed =
                self.traffic.timed.get(self.next_timed).map_or(NEVER, |&request| self.time_of(request));
            let event = self.agenda.next_at();
            let (wake, engine) = self.wakes.first();
            if event <= wake && event <= timed {
                match self.agenda.pop() {
                    Some((at, event)) => {
                        self.now = at;
                        self.happen(event);
                    }
                    // Nothing will ever happen again: what is left waits for room that nobody gives back.
                    None => return,
                }
            } else if wake <= timed {
                self.now = wake;
                self.engine(engine, |engine, now, shared| engine.turn(now, shared));
            } else {
                self.now = timed;
                let request = self.traffic.timed[self.next_timed];
                self.next_timed += 1;
                self.sent(request);
            }
            self.listen();
        }
    }

    fn time_of(&self, request: u32) -> f64 {
        match self.traffic.requests[request as usize].start {
            Start::At(at) => at,
            _ => NEVER,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Sent(request) => self.sent(request),
            Event::Called(request) => self.called(request),
            Event::Landed(request) => self.landed(request),
            Event::GivenUp(request) => self.give_up(request, false),
            Event::Late(request) => self.give_up(request, true),
            Event::Report => self.report(),
            Event::Tick => self.tick(),
            Event::Change(index) => self.change(index as usize),
            Event::Started(worker) => self.started(worker as usize),
        }
    }

    /// Has an engine do something, and notes when it wakes.
    fn engine(&mut self, index: usize, act: impl FnOnce(&mut Engine, f64, &mut Shared<'_>)) {
        let mut shared = Shared {
            traffic: self.traffic,
            flights: &mut self.flights,
            holders: &mut self.holders,
            said: &mut self.said,
        };
        act(&mut self.engines[index], self.now, &mut shared);
        self.wakes.set(index, self.engines[index].wakes());
    }

    /// Does what follows from what engines said.
    fn listen(&mut self) {
        let mut at = 0;
        while let Some(&said) = self.said.get(at) {
            at += 1;
            match said {
                Said::Granted(request) => self.granted(request),
                Said::Prompted(request) => self.prompted(request),
                Said::Finished(request) => {
                    let flight = &mut self.flights[request as usize];
                    flight.first_token = flight.first_token.min(self.now);
                    self.ended(request, Ending::Complete);
                }
            }
        }
        self.said.clear();
    }

    fn sent(&mut self, request: u32) {
        let planned = &self.traffic.requests[request as usize];
        let flight = &mut self.flights[request as usize];
        flight.sent = self.now;
        flight.left = planned.output;
        if let Some(Cancel::AfterMs(ms)) = planned.cancel {
            self.agenda.add(self.now + ms, Event::GivenUp(request));
        }
        if let Some(ms) = self.system.deadline_ms {
            self.agenda.add(self.now + ms, Event::Late(request));
        }
        let seen = Seen { traffic: self.traffic, holders: &self.holders, block_tokens: self.block_tokens };
        let verdict = match &mut self.router {
            Router::Simple(router) => router.place(planned).map_or(Verdict::Refused, Verdict::Goes),
            Router::Baton(router) => router.offer(request, planned, seen, self.now),
        };
        match verdict {
            Verdict::Goes(place) => self.go(request, place),
            Verdict::Waits => self.keep_ticking(),
            Verdict::Refused => self.ended(request, Ending::Refused),
        }
    }

    fn go(&mut self, request: u32, Place { prefill, decode }: Place) {
        let planned = &self.traffic.requests[request as usize];
        let needs = |worker: u32, tokens: u32| {
            let kv = &self.system.workers[worker as usize].profile.kv;
            kv.blocks_for(u64::from(tokens)) <= kv.blocks()
        };
        let fits = needs(decode, planned.prompt + planned.output)
            && prefill.is_none_or(|prefill| needs(prefill, planned.prompt));
        let flight = &mut self.flights[request as usize];
        (flight.prefill, flight.decode) = (prefill.unwrap_or(NONE), decode);
        self.members[decode as usize].requests += 1;
        if let Some(prefill) = prefill {
            self.members[prefill as usize].requests += 1;
        }
        if !fits {
            self.ended(request, Ending::NeverFits);
            return;
        }
        flight.stage = Stage::Reserving;
        self.engine(decode as usize, |engine, now, shared| engine.reserve(request, now, shared));
    }

    fn granted(&mut self, request: u32) {
        let flight = &mut self.flights[request as usize];
        flight.stage = Stage::Called;
        flight.cached_at_decode = flight.at_decode.cached_tokens;
        let is_local = flight.prefill == NONE;
        let call_ms = match is_local {
            true => 0.0,
            false => self.system.workers[flight.decode as usize].profile.overhead.call_ms,
        };
        if call_ms > 0.0 {
            self.agenda.add(self.now + call_ms, Event::Called(request));
        } else {
            self.called(request);
        }
    }

    fn called(&mut self, request: u32) {
        let flight = &mut self.flights[request as usize];
        if flight.stage != Stage::Called {
            return;
        }
        if flight.prefill == NONE {
            flight.stage = Stage::Decoding;
            let decode = flight.decode as usize;
            self.engine(decode, |engine, now, shared| engine.resume(request, now, shared));
        } else {
            flight.stage = Stage::Prefilling;
            let prefill = flight.prefill as usize;
            self.engine(prefill, |engine, now, shared| engine.prefill(request, now, shared));
        }
    }

    fn prompted(&mut self, request: u32) {
        let flight = &mut self.flights[request as usize];
        // After a preemption there is another prompt, but no other first token.
        if flight.first_token == NEVER {
            flight.first_token = self.now;
            if flight.prefill == NONE {
                flight.cached_at_decode = flight.at_decode.cached_tokens;
            }
            let place = flight.place();
            match &mut self.router {
                Router::Simple(router) => {
                    router.prefilled(place, &self.traffic.requests[request as usize]);
                }
                Router::Baton(router) => router.first_token(request, self.now),
            }
        }
        let flight = &mut self.flights[request as usize];
        if flight.stage != Stage::Prefilling {
            return;
        }
        if flight.left == 0 {
            // The only token came from the prefill worker: nothing has to be moved.
            let (prefill, decode) = (flight.prefill as usize, flight.decode as usize);
            flight.last_token = self.now;
            self.engine(prefill, |engine, now, shared| engine.sent(request, now, shared));
            self.engine(decode, |engine, now, shared| engine.unreserve(request, now, shared));
            self.ended(request, Ending::Complete);
            return;
        }
        flight.stage = Stage::Moving;
        let landed = self.transfer(request);
        self.agenda.add(landed, Event::Landed(request));
    }

    /// When the blocks of `request`, whose prompt has just been computed, have arrived. Groups of layers leave as they are computed; links serve one
    /// transfer after the other, and are idle for no transfer's sake.
    fn transfer(&mut self, request: u32) -> f64 {
        let flight = &mut self.flights[request as usize];
        let (prefill, decode) = (flight.prefill as usize, flight.decode as usize);
        let workers = &self.system.workers;
        let prompt = self.traffic.requests[request as usize].prompt;
        let tokens = u64::from(prompt - flight.cached_at_decode);
        // What was cached leaves at once.
        let begins =
            if flight.at_prefill.cached_tokens > 0 { flight.prefill_began } else { flight.first_data };
        let mut landed: f64 = 0.0;
        let links = [(&mut self.link_out[prefill], prefill), (&mut self.link_in[decode], decode)];
        for (busy_until, worker) in links {
            let profile = &workers[worker].profile;
            let link_ms = profile.transfer.link_ms(tokens, &profile.kv);
            *busy_until = busy_until.max(begins) + link_ms;
            let last = u64::from(flight.last_chunk).min(tokens);
            let tail = profile.transfer.link_ms(last, &profile.kv) / f64::from(profile.transfer.layer_groups);
            landed = landed.max(*busy_until).max(self.now + tail);
            flight.link_ms = flight.link_ms.max(link_ms);
        }
        landed + workers[decode].profile.transfer.latency_ms
    }

    fn landed(&mut self, request: u32) {
        let flight = &mut self.flights[request as usize];
        let (prefill, decode) = (flight.prefill as usize, flight.decode as usize);
        flight.landed = self.now;
        let is_over = flight.stage == Stage::Over;
        self.engine(prefill, |engine, now, shared| engine.sent(request, now, shared));
        if is_over {
            // Its client left meanwhile; the blocks were kept until nobody writes them any more.
            self.engine(decode, |engine, now, shared| engine.unreserve(request, now, shared));
            self.settle(request);
            return;
        }
        self.flights[request as usize].stage = Stage::Decoding;
        self.engine(decode, |engine, now, shared| engine.resume(request, now, shared));
        self.settle_role(prefill);
    }

    fn give_up(&mut self, request: u32, is_late: bool) {
        let flight = self.flights[request as usize];
        let (prefill, decode) = (flight.prefill as usize, flight.decode as usize);
        match flight.stage {
            Stage::Over => return,
            Stage::Outside | Stage::Moving => {}
            Stage::Called => {
                self.engine(decode, |engine, now, shared| engine.unreserve(request, now, shared));
            }
            Stage::Reserving | Stage::Decoding => {
                self.engine(decode, |engine, now, shared| engine.give_up(request, now, shared));
            }
            Stage::Prefilling => {
                self.engine(prefill, |engine, now, shared| engine.give_up(request, now, shared));
                self.engine(decode, |engine, now, shared| engine.unreserve(request, now, shared));
            }
        }
        self.ended(request, if is_late { Ending::Late } else { Ending::Cancelled });
    }
}

impl Flight {
    fn place(&self) -> Place {
        Place { prefill: (self.prefill != NONE).then_some(self.prefill), decode: self.decode }
    }
}
