//! Routers that cost next to nothing.

use baton_policy::view::Role;

use super::Place;
use crate::traffic::Prepared;

/// In turn, or to those with least to do.
pub(crate) struct SimpleRouter {
    is_by_load: bool,
    prefill: Vec<Load>,
    decode: Vec<Load>,
    next: usize,
}

struct Load {
    worker: u32,
    // Prompt tokens at those that prefill, requests at those that generate.
    amount: u64,
}

impl SimpleRouter {
    pub(crate) fn new(is_by_load: bool, roles: impl Iterator<Item = Role>) -> Self {
        let mut router = Self { is_by_load, prefill: Vec::new(), decode: Vec::new(), next: 0 };
        roles.enumerate().for_each(|(worker, role)| router.opened(worker, role));
        router
    }

    pub(crate) fn place(&mut self, request: &Prepared) -> Option<Place> {
        let turn = self.next;
        self.next += 1;
        let decode = pick(&mut self.decode, self.is_by_load, turn, 1)?;
        let prefill = pick(&mut self.prefill, self.is_by_load, turn, u64::from(request.prompt));
        // Who does both needs nobody else.
        let prefill = prefill.filter(|worker| *worker != decode);
        Some(Place { prefill, decode })
    }

    /// The prompt is computed, or given up.
    pub(crate) fn prefilled(&mut self, place: Place, request: &Prepared) {
        if let (true, Some(worker)) = (self.is_by_load, place.prefill) {
            take(&mut self.prefill, worker, u64::from(request.prompt));
        }
    }

    pub(crate) fn finished(&mut self, place: Place) {
        if self.is_by_load {
            take(&mut self.decode, place.decode, 1);
        }
    }

    /// A worker takes nothing more.
    pub(crate) fn closed(&mut self, worker: usize) {
        self.prefill.retain(|load| load.worker as usize != worker);
        self.decode.retain(|load| load.worker as usize != worker);
    }

    /// A worker takes requests.
    pub(crate) fn opened(&mut self, worker: usize, role: Role) {
        let load = || Load { worker: worker as u32, amount: 0 };
        match role {
            Role::Prefill => self.prefill.push(load()),
            Role::Decode => self.decode.push(load()),
            Role::Both => {
                self.prefill.push(load());
                self.decode.push(load());
            }
        }
    }
}

fn pick(loads: &mut [Load], is_by_load: bool, turn: usize, adds: u64) -> Option<u32> {
    if loads.is_empty() {
        return None;
    }
    // Equals take turns.
    let begin = turn % loads.len();
    let mut best = begin;
    if is_by_load {
        for at in (begin..loads.len()).chain(0..begin) {
            if loads[at].amount < loads[best].amount {
                best = at;
            }
        }
        loads[best].amount += adds;
    }
    Some(loads[best].worker)
}

fn take(loads: &mut [Load], worker: u32, amount: u64) {
    if let Some(load) = loads.iter_mut().find(|load| load.worker == worker) {
        load.amount = load.amount.saturating_sub(amount);
    }
}
