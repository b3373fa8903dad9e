//! The fleet as decisions see it, from what workers say.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use baton_policy::{
    placer::Placer,
    view::{Generated, Report, Role, WorkerView},
};
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

/// Places of workers in the view. A place is used again.
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
    id: String,
    incarnation: u64,
    is_absent: bool,
    address: Option<String>,
    /// In the index of caches.
    number: Option<u32>,
    block_tokens: u32,
    is_draining: bool,
}

impl Slots {
    pub(super) fn of(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
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

    /// Who is at `slot` is found no more. Gives `slot`.
    fn leave(&mut self, slot: usize) -> usize {
        let Slot { id, address, number, .. } = std::mem::take(&mut self.slots[slot]);
        self.by_id.remove(&id);
        if let Some(address) = address
            && self.by_address.get(&address) == Some(&slot)
        {
            self.by_address.remove(&address);
        }
        if let Some(number) = number {
            self.by_number.remove(&number);
        }
        slot
    }
}

impl Router {
    /// A worker has joined, or another life of it, or the same one came back.
    pub(crate) fn joined(&self, facts: &WorkerFacts) {
        let mut known = self.lock();
        match known.slots.of(&facts.id) {
            Some(slot) if known.slots.slots[slot].incarnation == facts.incarnation => {
                known.slots.slots[slot].is_absent = false;
                known.look_at(slot);
            }
            former => {
                // Its other life takes the same place, at once: had nobody been there, admission might have closed.
                let slot = former.map(|former| known.slots.leave(former));
                known.occupy(slot, facts);
            }
        }
        self.let_in(&mut known);
    }

    /// A worker's stream broke. It may come back.
    pub(crate) fn left(&self, id: &str) {
        self.opened(id, false);
    }

    /// A worker is gone for good.
    pub(crate) fn gone(&self, id: &str, incarnation: u64) {
        let mut known = self.lock();
        let Some(slot) = known.slots.of(id) else { return };
        if known.slots.slots[slot].incarnation == incarnation {
            known.slots.leave(slot);
            known.slots.free.push(slot);
            known.placer.vacated(slot);
            known.placer.forgotten(id);
            self.epp.gone(id);
            self.let_in(&mut known);
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
        let used_blocks = u64::from(load.blocks_total.saturating_sub(load.blocks_free));
        let report = Report {
            at: Some(now),
            waiting: load.waiting,
            running: load.running,
            waiting_prompt_tokens: load.waiting_prompt_tokens,
            kv_used_tokens: used_blocks * u64::from(known.slots.slots[slot].block_tokens),
            generated: generated(load),
            ..Report::default()
        };
        known.placer.reported(slot, report);
        known.slots.slots[slot].is_draining = load.draining;
        if known.look_at(slot) {
            self.let_in(&mut known);
        }
    }

    /// A worker's KV cache turns out to be of this size.
    pub(crate) fn sized(&self, id: &str, capacity_tokens: u64, block_tokens: u32) {
        let mut known = self.lock();
        let Some(slot) = known.slots.of(id) else { return };
        known.slots.slots[slot].block_tokens = block_tokens;
        if known.placer.resized(slot, capacity_tokens) {
            self.let_in(&mut known);
        }
    }

    /// A worker takes requests, or takes no more.
    pub(crate) fn opened(&self, id: &str, is_open: bool) {
        let mut known = self.lock();
        let Some(slot) = known.slots.of(id) else { return };
        known.slots.slots[slot].is_absent = !is_open;
        known.look_at(slot);
        self.let_in(&mut known);
    }

    /// Whether a prefill worker can hand KV blocks to a decode worker.
    pub(crate) fn paired(&self, prefill: &str, decode: &str, is_connected: bool) {
        let mut known = self.lock();
        if let (Some(from), Some(to)) = (known.slots.of(prefill), known.slots.of(decode)) {
            known.placer.fleet.links.set_connected(from, to, is_connected);
        }
    }

    /// The adapters that a worker has.
    pub(crate) fn adapters(&self, id: &str, names: BTreeSet<String>) {
        let mut known = self.lock();
        if let Some(slot) = known.slots.of(id) {
            known.placer.fleet.workers[slot].adapters = Arc::new(names);
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
        known.placer.fleet.workers.iter().any(is_open)
    }

    /// A call to a worker failed.
    pub(crate) fn failed(&self, id: &str) {
        let now = self.now();
        let mut known = self.lock();
        if let Some(slot) = known.slots.of(id) {
            known.placer.fleet.workers[slot].failed_at = Some(now);
        }
    }
}

impl Known {
    /// Whether a worker takes requests is looked at again; says whether that is new.
    fn look_at(&mut self, slot: usize) -> bool {
        let Slot { is_absent, is_draining, .. } = self.slots.slots[slot];
        self.placer.set_draining(slot, is_absent || is_draining)
    }

    fn occupy(&mut self, slot: Option<usize>, facts: &WorkerFacts) {
        let Self { placer, slots, .. } = self;
        if slots.slots.is_empty() {
            placer.fleet.links.set_classes(Topology::classes());
        }
        let slot = slot.or_else(|| slots.free.pop()).unwrap_or_else(|| {
            slots.slots.push(Slot::default());
            slots.slots.len() - 1
        });
        let (incarnation, block_tokens) = (facts.incarnation, facts.block_tokens);
        let address = facts.address.clone();
        if let Some(address) = &address {
            slots.by_address.insert(address.clone(), slot);
        }
        let id = facts.id.clone();
        slots.slots[slot] = Slot { id, incarnation, block_tokens, address, ..Slot::default() };
        slots.by_id.insert(facts.id.clone(), slot);
        if facts.kv_bytes_per_token > 0.0 {
            slots.kv_bytes_per_token = facts.kv_bytes_per_token;
        }
        let worker = WorkerView {
            id: facts.id.as_str().into(),
            role: facts.role,
            reach: facts.reach as u8,
            labels: Arc::new(facts.labels.clone()),
            kv_capacity_tokens: facts.capacity_tokens,
            ..WorkerView::default()
        };
        placer.seated(slot, worker);
        let fleet = &mut placer.fleet;
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
        let Self { placer: Placer { fleet, .. }, slots, .. } = self;
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
}

fn generated(load: &WorkerLoad) -> Generated {
    Generated {
        steps: load.decode_steps as f64,
        sequences: load.decode_sequences as f64,
        context_tokens: load.decode_context_tokens as f64,
        ms: load.decode_us as f64 / 1e3,
    }
}
