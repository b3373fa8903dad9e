//! The fleet as decisions see it, from what workers say.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use baton_policy::view::{Report, Role, WorkerView};
use baton_proto::v1::WorkerLoad;

use super::{Known, Router, topology::Topology};

/// What does not change in a worker's life.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerFacts {
    pub(crate) id: String,
    pub(crate) incarnation: u64,
    pub(crate) role: Role,
    pub(crate) labels: BTreeMap<String, String>,
    /// Who can send it requests.
    pub(crate) reach: Reach,
    /// `ip:port` where gateways and sidecars reach it.
    pub(crate) address: Option<String>,
    /// Tokens that its KV cache holds when empty.
    pub(crate) capacity_tokens: u64,
    /// Tokens of a KV block.
    pub(crate) block_tokens: u32,
    /// Bytes of one token's keys and values, over all layers.
    pub(crate) kv_bytes_per_token: f64,
}

/// Who can send a worker requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reach {
    /// This scheduler's own front, by gRPC.
    #[default]
    Front = 1,
    /// Gateways, by HTTP.
    Gateway = 2,
    /// Both.
    Both = 3,
}

/// Places of workers in the view. A place is used again; which life of it is meant is told by a number.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    by_id: HashMap<String, usize>,
    by_number: HashMap<u32, usize>,
    by_address: HashMap<String, usize>,
    free: Vec<usize>,
    topology: Topology,
    /// Bytes of one token's keys and values: the same for all.
    pub(super) kv_bytes_per_token: f64,
}

#[derive(Default)]
struct Slot {
    life: u64,
    incarnation: u64,
    is_absent: bool,
    address: Option<String>,
    /// In the index of caches.
    number: Option<u32>,
    block_tokens: u32,
    last: WorkerLoad,
}

impl Slots {
    pub(super) fn of(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    pub(super) fn life(&self, slot: usize) -> u64 {
        self.slots.get(slot).map_or(0, |slot| slot.life)
    }

    /// Whether `slot` still is who it was.
    pub(super) fn is(&self, (slot, life): (usize, u64)) -> bool {
        self.life(slot) == life
    }

    pub(super) fn of_number(&self, number: u32) -> Option<usize> {
        self.by_number.get(&number).copied()
    }

    /// Where gateways reach it.
    pub(super) fn address(&self, slot: usize) -> Option<&str> {
        self.slots.get(slot)?.address.as_deref()
    }

    /// Those at `ip:port`, or at any port of `ip`.
    pub(super) fn at(&self, address: &str) -> impl Iterator<Item = usize> {
        let ip: Option<IpAddr> = address.parse().ok();
        let is_there = move |at: &str| at.parse().is_ok_and(|at: SocketAddr| Some(at.ip()) == ip);
        let all = ip.into_iter().flat_map(|_| &self.by_address);
        let at_all_ports = all.filter(move |(at, _)| is_there(at)).map(|(_, slot)| *slot);
        self.by_address.get(address).copied().into_iter().chain(at_all_ports)
    }

    /// Its number in the index of caches, and the size of its blocks.
    pub(super) fn number(&self, slot: usize) -> Option<(u32, u32)> {
        let slot = self.slots.get(slot)?;
        Some((slot.number?, slot.block_tokens))
    }
}

impl Router {
    /// A worker has joined, or another life of it, or the same one came back.
    pub(crate) fn joined(&self, facts: &WorkerFacts) {
        let mut known = self.lock();
        match known.slots.of(&facts.id) {
            Some(slot) if known.slots.slots[slot].incarnation == facts.incarnation => {
                known.slots.slots[slot].is_absent = false;
                known.fleet.workers[slot].is_draining = known.slots.slots[slot].last.draining;
            }
            former => {
                if let Some(former) = former {
                    known.vacate(former);
                }
                known.occupy(facts);
            }
        }
        self.capacity_changed(&mut known);
    }

    /// A worker's stream broke. It may come back.
    pub(crate) fn left(&self, id: &str) {
        let mut known = self.lock();
        if let Some(slot) = known.slots.of(id) {
            known.slots.slots[slot].is_absent = true;
            known.fleet.workers[slot].is_draining = true;
            self.capacity_changed(&mut known);
        }
    }

    /// A worker is gone for good.
    pub(crate) fn gone(&self, id: &str, incarnation: u64) {
        let mut known = self.lock();
        let Some(slot) = known.slots.of(id) else { return };
        if known.slots.slots[slot].incarnation == incarnation {
            known.vacate(slot);
            known.learner.left(id);
            self.epp.gone(id);
            self.capacity_changed(&mut known);
        }
    }

    /// It is this number in the index of caches.
    pub(crate) fn tracked(&self, id: &str, incarnation: u64, number: u32) {
        let mut known = self.lock();
        let Some(slot) = known.slots.of(id) else { return };
        if known.slots.slots[slot].incarnation != incarnation {
            return;
        }
        if let Some(former) = known.slots.slots[slot].number.replace(number) {
            known.slots.by_number.remove(&former);
        }
        known.slots.by_number.insert(number, slot);
    }

    /// What a worker says of its load.
    pub(crate) fn reported(&self, id: &str, load: &WorkerLoad) {
        let now = self.now();
        let mut known = self.lock();
        let Some(slot) = known.slots.of(id) else { return };
        let Known { fleet, slots, learner, .. } = &mut *known;
        let used_blocks = u64::from(load.blocks_total.saturating_sub(load.blocks_free));
        let report = Report {
            at: Some(now),
            waiting: load.waiting,
            running: load.running,
            waiting_prompt_tokens: load.waiting_prompt_tokens,
            kv_used_tokens: used_blocks * u64::from(slots.slots[slot].block_tokens),
        };
        fleet.reported(slot, report);
        let (worker, slot) = (&mut fleet.workers[slot], &mut slots.slots[slot]);
        let was_draining = worker.is_draining;
        worker.is_draining = load.draining || slot.is_absent;
        let last = std::mem::replace(&mut slot.last, *load);
        worker.costs = match mean_step(&last, load) {
            Some((sequences, context_tokens, step_ms)) => {
                learner.stepped(id, sequences, context_tokens, step_ms)
            }
            // It has done nothing, but others have taught what it will take.
            None => learner.costs(id),
        };
        let has_turned = worker.is_draining != was_draining;
        known.refresh_costs();
        if has_turned {
            self.capacity_changed(&mut known);
        }
    }

    /// A worker's KV cache turns out to be of this size.
    pub(crate) fn sized(&self, id: &str, capacity_tokens: u64, block_tokens: u32) {
        let mut known = self.lock();
        let Some(slot) = known.slots.of(id) else { return };
        known.slots.slots[slot].block_tokens = block_tokens;
        if known.fleet.workers[slot].kv_capacity_tokens != capacity_tokens {
            known.fleet.workers[slot].kv_capacity_tokens = capacity_tokens;
            self.capacity_changed(&mut known);
        }
    }

    /// A worker takes requests, or takes no more.
    pub(crate) fn opened(&self, id: &str, is_open: bool) {
        let mut known = self.lock();
        let Some(slot) = known.slots.of(id) else { return };
        known.slots.slots[slot].is_absent = !is_open;
        known.fleet.workers[slot].is_draining = !is_open || known.slots.slots[slot].last.draining;
        self.capacity_changed(&mut known);
    }

    /// Whether a prefill worker can hand KV blocks to a decode worker.
    pub(crate) fn paired(&self, prefill: &str, decode: &str, is_connected: bool) {
        let mut known = self.lock();
        if let (Some(from), Some(to)) = (known.slots.of(prefill), known.slots.of(decode)) {
            known.fleet.links.set_connected(from, to, is_connected);
        }
    }

    /// The adapters that a worker has.
    pub(crate) fn adapters(&self, id: &str, names: BTreeSet<String>) {
        let mut known = self.lock();
        if let Some(slot) = known.slots.of(id) {
            known.fleet.workers[slot].adapters = Arc::new(names);
        }
    }

    /// Whether a worker of this name is here.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.lock().slots.of(id).is_some()
    }

    /// Whether somebody generates whom gateways reach.
    pub(crate) fn has_gateway_endpoint(&self) -> bool {
        let known = self.lock();
        let is_open = |worker: &WorkerView| {
            worker.decodes() && !worker.is_draining && worker.is_reached_by(Reach::Gateway as u8)
        };
        known.fleet.workers.iter().any(is_open)
    }

    /// A call to a worker failed.
    pub(crate) fn failed(&self, id: &str) {
        let now = self.now();
        let mut known = self.lock();
        if let Some(slot) = known.slots.of(id) {
            known.fleet.workers[slot].failed_at = Some(now);
        }
    }

    fn capacity_changed(&self, known: &mut Known) {
        let open = known.fleet.workers.iter().filter(|worker| worker.decodes() && !worker.is_draining);
        let tokens = open.map(|worker| worker.kv_capacity_tokens).sum();
        known.admission.set_capacity(tokens);
        self.let_in(known);
    }
}

impl Known {
    /// Brings the costs of all workers to what is known now, if that has changed for all.
    pub(super) fn refresh_costs(&mut self) {
        if self.costs_version != self.learner.version() {
            self.costs_version = self.learner.version();
            for worker in self.fleet.workers.iter_mut().filter(|worker| !worker.id.is_empty()) {
                worker.costs = self.learner.costs(&worker.id);
            }
        }
    }

    fn occupy(&mut self, facts: &WorkerFacts) {
        let Self { fleet, slots, learner, .. } = self;
        if slots.slots.is_empty() {
            fleet.links.set_classes(Topology::classes());
        }
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.slots.push(Slot::default());
            fleet.workers.push(WorkerView::default());
            slots.slots.len() - 1
        });
        let life = slots.slots[slot].life + 1;
        let (incarnation, block_tokens) = (facts.incarnation, facts.block_tokens);
        let address = facts.address.clone();
        if let Some(address) = &address {
            slots.by_address.insert(address.clone(), slot);
        }
        slots.slots[slot] = Slot { life, incarnation, block_tokens, address, ..Slot::default() };
        slots.by_id.insert(facts.id.clone(), slot);
        if facts.kv_bytes_per_token > 0.0 {
            slots.kv_bytes_per_token = facts.kv_bytes_per_token;
        }
        fleet.workers[slot] = WorkerView {
            id: facts.id.as_str().into(),
            incarnation,
            role: facts.role,
            reach: facts.reach as u8,
            labels: Arc::new(facts.labels.clone()),
            kv_capacity_tokens: facts.capacity_tokens,
            costs: learner.joined(&facts.id),
            ..WorkerView::default()
        };
        // Nobody is connected until they say so.
        for other in 0..fleet.workers.len() {
            fleet.links.set_connected(slot, other, false);
            fleet.links.set_connected(other, slot, false);
        }
        match slots.topology.group(&facts.labels, &mut fleet.links) {
            Some(group) => fleet.workers[slot].group = group,
            None => self.regroup(),
        }
    }

    // Coarser each time there are too many places; without labels there is one.
    fn regroup(&mut self) {
        let Self { fleet, slots, .. } = self;
        'again: loop {
            for worker in &mut fleet.workers {
                match slots.topology.group(&worker.labels, &mut fleet.links) {
                    Some(group) => worker.group = group,
                    None => continue 'again,
                }
            }
            return;
        }
    }

    fn vacate(&mut self, slot: usize) {
        let Self { fleet, slots, .. } = self;
        let id = fleet.workers[slot].id.to_string();
        slots.by_id.remove(&id);
        let emptied = &mut slots.slots[slot];
        emptied.life += 1;
        if let Some(address) = emptied.address.take()
            && slots.by_address.get(&address) == Some(&slot)
        {
            slots.by_address.remove(&address);
        }
        if let Some(number) = emptied.number.take() {
            slots.by_number.remove(&number);
        }
        slots.free.push(slot);
        // Neither generates nor takes anything.
        fleet.workers[slot] = WorkerView { role: Role::Prefill, is_draining: true, ..WorkerView::default() };
    }
}

/// Sequences, context tokens and milliseconds of the mean step between two reports.
fn mean_step(last: &WorkerLoad, load: &WorkerLoad) -> Option<(f64, f64, f64)> {
    let since = |now: u64, before: u64| now.checked_sub(before).map(|difference| difference as f64);
    let steps = since(load.decode_steps, last.decode_steps).filter(|steps| *steps > 0.0)?;
    let sequences = since(load.decode_sequences, last.decode_sequences)?;
    let context_tokens = since(load.decode_context_tokens, last.decode_context_tokens)?;
    let us = since(load.decode_us, last.decode_us)?;
    Some((sequences / steps, context_tokens / steps, us / steps / 1e3))
}
