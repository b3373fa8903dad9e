//! What happens to the fleet: ends of requests, reports, queues, changes of roles.

use baton_policy::view::{Generated, Prompted, Report, Role};

use super::{World, agenda::Event, outcome::Ending};
use crate::{
    engine::{Shared, Totals},
    flight::{NEVER, Stage},
    route::{REPORT_MS, Router, Seen, TICK_MS},
    traffic::{Cancel, NONE, Start},
};

/// A worker's place in the fleet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    role: Role,
    /// Requests that it has something to do with.
    pub(super) requests: u32,
    becomes: Option<Role>,
    is_starting: bool,
}

impl Member {
    pub(super) fn new(role: Role) -> Self {
        Self { role, requests: 0, becomes: None, is_starting: false }
    }
}

impl World<'_> {
    /// A request is over.
    pub(super) fn ended(&mut self, request: u32, ending: Ending) {
        let planned = &self.traffic.requests[request as usize];
        let flight = &mut self.flights[request as usize];
        let (was_moving, place) = (flight.stage == Stage::Moving, flight.place());
        let is_complete = ending == Ending::Complete;
        let ending = match (ending, planned.cancel) {
            (Ending::Complete, Some(Cancel::AfterTokens(_))) => Ending::Cancelled,
            (ending, _) => ending,
        };
        flight.stage = Stage::Over;
        flight.ended = self.now;
        flight.ending = ending;
        let was_placed = flight.decode != NONE;
        match &mut self.router {
            Router::Simple(router) if was_placed => {
                if flight.first_token == NEVER {
                    router.prefilled(place, planned);
                }
                router.finished(place);
            }
            Router::Simple(_) => {}
            Router::Baton(router) => {
                let told = flight.told(planned, &self.system.workers, is_complete);
                router.ended(request, &told, self.now);
                if was_placed {
                    let seen = Seen {
                        traffic: self.traffic,
                        holders: &self.holders,
                        block_tokens: self.block_tokens,
                    };
                    router.arrived(request, flight.decode as usize, seen);
                    if flight.prefill != NONE {
                        router.arrived(request, flight.prefill as usize, seen);
                    }
                }
            }
        }
        self.left -= 1;
        // What is under way keeps its blocks until it has arrived.
        if was_placed && !was_moving {
            self.settle(request);
        }
        self.let_in();
        self.follow(request);
    }

    /// The workers of `request` have nothing to do with it any more.
    pub(super) fn settle(&mut self, request: u32) {
        let flight = &self.flights[request as usize];
        let (prefill, decode) = (flight.prefill, flight.decode as usize);
        self.members[decode].requests -= 1;
        self.settle_role(decode);
        if prefill != NONE {
            self.members[prefill as usize].requests -= 1;
            self.settle_role(prefill as usize);
        }
    }

    // Those who come after it: the next turn of its session, or of a closed loop.
    fn follow(&mut self, request: u32) {
        let mut follower = self.traffic.followers[request as usize];
        while follower != NONE {
            if let Start::After { think_ms, .. } = self.traffic.requests[follower as usize].start {
                self.agenda.add(self.now + think_ms, Event::Sent(follower));
            }
            follower = self.traffic.next_follower[follower as usize];
        }
        if self.traffic.requests[request as usize].start == Start::WhenFree {
            self.closed_loop_under_way -= 1;
            self.send_when_free();
        }
    }

    pub(super) fn send_when_free(&mut self) {
        while self.closed_loop_under_way < self.traffic.concurrency()
            && let Some(&request) = self.traffic.when_free.get(self.next_when_free)
        {
            self.next_when_free += 1;
            self.closed_loop_under_way += 1;
            self.agenda.add(self.now, Event::Sent(request));
        }
    }

    fn let_in(&mut self) {
        loop {
            let Router::Baton(router) = &mut self.router else { return };
            let Some(request) = router.next(self.now) else { return };
            let seen =
                Seen { traffic: self.traffic, holders: &self.holders, block_tokens: self.block_tokens };
            let planned = &self.traffic.requests[request as usize];
            match router.place(request, planned, seen, self.now) {
                Some(place) => self.go(request, place),
                None => self.ended(request, Ending::Refused),
            }
        }
    }

    pub(super) fn keep_ticking(&mut self) {
        if !self.is_ticking {
            self.is_ticking = true;
            self.agenda.add(self.now + TICK_MS, Event::Tick);
        }
    }

    pub(super) fn tick(&mut self) {
        self.is_ticking = false;
        let Router::Baton(router) = &mut self.router else { return };
        for request in router.expired(self.now) {
            self.ended(request as u32, Ending::Refused);
        }
        self.let_in();
        if let Router::Baton(router) = &self.router
            && router.has_queue()
        {
            self.keep_ticking();
        }
    }

    pub(super) fn report(&mut self) {
        let Router::Baton(router) = &mut self.router else { return };
        let shared = Shared {
            traffic: self.traffic,
            flights: &mut self.flights,
            holders: &mut self.holders,
            said: &mut self.said,
        };
        for (worker, engine) in self.engines.iter().enumerate() {
            let (waiting, running) = engine.requests();
            let report = Report {
                at: Some(self.now),
                waiting,
                running,
                waiting_prompt_tokens: engine.uncomputed_tokens(&shared),
                kv_used_tokens: engine.used_tokens(),
                generated: generated(&engine.totals),
                prompted: prompted(&engine.totals),
            };
            router.reported(worker, report);
        }
        self.agenda.add(self.now + REPORT_MS, Event::Report);
    }

    pub(super) fn change(&mut self, index: usize) {
        let change = self.system.changes[index];
        let member = &mut self.members[change.worker];
        member.becomes = Some(change.role);
        match &mut self.router {
            Router::Simple(router) => router.closed(change.worker),
            Router::Baton(router) => router.closed(change.worker),
        }
        self.settle_role(change.worker);
    }

    /// A worker that is to change begins to, once it has nothing to do.
    pub(super) fn settle_role(&mut self, worker: usize) {
        let member = &mut self.members[worker];
        if member.becomes.is_some() && !member.is_starting && member.requests == 0 {
            member.is_starting = true;
            let startup_ms = self.system.workers[worker].profile.startup_s * 1e3;
            self.agenda.add(self.now + startup_ms, Event::Started(worker as u32));
        }
    }

    pub(super) fn started(&mut self, worker: usize) {
        let member = &mut self.members[worker];
        member.is_starting = false;
        let Some(role) = member.becomes.take() else { return };
        member.role = role;
        let profile = self.system.workers[worker].profile.clone();
        self.engine(worker, |engine, _, shared| engine.restart(profile, shared));
        let profile = &self.system.workers[worker].profile;
        match &mut self.router {
            Router::Simple(router) => router.opened(worker, role),
            Router::Baton(router) => router.opened(worker, role, profile),
        }
        self.let_in();
    }
}

fn generated(totals: &Totals) -> Generated {
    Generated {
        steps: totals.quiet_steps as f64,
        sequences: totals.quiet_sequences as f64,
        context_tokens: totals.quiet_context as f64,
        ms: totals.decode_ms,
    }
}

fn prompted(totals: &Totals) -> Prompted {
    Prompted {
        steps: totals.alone_steps as f64,
        tokens: totals.alone_tokens,
        pairs: totals.alone_pairs,
        ms: totals.prompt_ms,
    }
}
