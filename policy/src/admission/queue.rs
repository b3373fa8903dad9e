//! The bounded queue: by priority, then fair between tenants.
//!
//! Fairness is start-time fair queueing: each tenant has a virtual time, which moves on by tokens / weight when one of its requests goes, and the
//! tenant that is furthest behind is next. A tenant that was away begins at the present, so that it cannot save up.
//!
//! The queue is short, and looked through as a whole: one order, which can be read, instead of several heaps that must agree.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use super::Ask;
use crate::view::Ms;

/// Tenants whose virtual time is remembered; when there are more, those that are behind are forgotten and begin at the present.
const MOST_TENANTS: usize = 4_096;

#[derive(Clone, Debug)]
pub(super) struct Queue {
    most: usize,
    aging_ms: Ms,
    waiting: Vec<Waiting>,
    virtual_times: HashMap<Arc<str>, f64>,
    present: f64,
    sequence: u64,
}

#[derive(Clone, Debug)]
struct Waiting {
    ask: Ask,
    since: Ms,
    until: Ms,
    sequence: u64,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Queue {
    pub(super) fn new(most: usize, aging_ms: Ms) -> Self {
        Self {
            most,
            aging_ms: aging_ms.max(1.0),
            waiting: Vec::new(),
            virtual_times: HashMap::new(),
            present: 0.0,
            sequence: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.waiting.iter().any(|waiting| waiting.ask.id == id)
    }

    pub(super) fn growth_tokens(&self) -> u64 {
        self.waiting.iter().map(|waiting| waiting.ask.growth_tokens).sum()
    }

    /// Puts `ask` in; returns the id of the one that had to leave for it.
    pub(super) fn push(&mut self, ask: Ask, now: Ms, until: Ms) -> Result<Option<u64>, Full> {
        let mut shed = None;
        if self.waiting.len() >= self.most {
            let victim = self.victim(&ask, now).ok_or(Full)?;
            shed = Some(self.waiting.swap_remove(victim).ask.id);
        }
        self.sequence += 1;
        self.waiting.push(Waiting { ask, since: now, until, sequence: self.sequence });
        Ok(shed)
    }

    /// Who is next.
    pub(super) fn first(&self, now: Ms) -> Option<&Ask> {
        self.first_index(now).map(|index| &self.waiting[index].ask)
    }

    /// Takes who is next.
    pub(super) fn pop(&mut self, now: Ms) -> Option<Ask> {
        let ask = self.waiting.swap_remove(self.first_index(now)?).ask;
        let begin = self.virtual_time(&ask.tenant);
        self.present = self.present.max(begin);
        if self.virtual_times.len() >= MOST_TENANTS {
            let present = self.present;
            self.virtual_times.retain(|_, time| *time > present);
        }
        self.virtual_times
            .insert(ask.tenant.clone(), begin + ask.growth_tokens as f64 / ask.weight.max(1e-3));
        Some(ask)
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.waiting.retain(|waiting| waiting.ask.id != id);
    }

    pub(super) fn take_expired(&mut self, now: Ms) -> Vec<u64> {
        let mut expired = Vec::new();
        self.waiting.retain(|waiting| {
            let is_expired = now >= waiting.until;
            if is_expired {
                expired.push(waiting.ask.id);
            }
            !is_expired
        });
        expired
    }

    fn virtual_time(&self, tenant: &str) -> f64 {
        self.virtual_times.get(tenant).copied().unwrap_or(0.0).max(self.present)
    }

    // Whole steps: within one, tenants are equal.
    fn priority(&self, waiting: &Waiting, now: Ms) -> i64 {
        i64::from(waiting.ask.priority) + ((now - waiting.since).max(0.0) / self.aging_ms) as i64
    }

    fn first_index(&self, now: Ms) -> Option<usize> {
        let order = |waiting: &Waiting| (self.priority(waiting, now), self.virtual_time(&waiting.ask.tenant));
        (0..self.waiting.len()).max_by(|&a, &b| {
            let (a, b) = (&self.waiting[a], &self.waiting[b]);
            let ((priority_a, time_a), (priority_b, time_b)) = (order(a), order(b));
            priority_a.cmp(&priority_b).then(time_b.total_cmp(&time_a)).then(b.sequence.cmp(&a.sequence))
        })
    }

    // The lowest priority, then the tenant with most tokens here, then the last that came. It must be lower than the newcomer's, or of
    // a tenant that has more here than the newcomer's would have.
    fn victim(&self, ask: &Ask, now: Ms) -> Option<usize> {
        let mut tokens: HashMap<&str, u64> = HashMap::new();
        for waiting in &self.waiting {
            *tokens.entry(&waiting.ask.tenant).or_default() += waiting.ask.growth_tokens;
        }
        let has = |tenant: &str| tokens.get(tenant).copied().unwrap_or(0);
        let index = (0..self.waiting.len()).min_by(|&a, &b| {
            let (a, b) = (&self.waiting[a], &self.waiting[b]);
            self.priority(a, now)
                .cmp(&self.priority(b, now))
                .then(has(&b.ask.tenant).cmp(&has(&a.ask.tenant)))
                .then(b.sequence.cmp(&a.sequence))
        })?;
        let victim = &self.waiting[index].ask;
        let is_heavier = has(&victim.tenant) > has(&ask.tenant) + ask.growth_tokens;
        match self.priority(&self.waiting[index], now).cmp(&i64::from(ask.priority)) {
            Ordering::Less => Some(index),
            Ordering::Equal => is_heavier.then_some(index),
            Ordering::Greater => None,
        }
    }
}
