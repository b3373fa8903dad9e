//! The last report of each target. What a report becomes is pure.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use super::ScrapeError;
use crate::load::Load;

/// Whether a target answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It has not answered yet, nor failed often.
    #[default]
    Unknown,
    /// The last answer is good, or few were bad since.
    Healthy,
    /// It answers, but never told a load: it has no page, or not that of a model server.
    Silent,
    /// It failed as often in a row as is allowed.
    Unhealthy,
}

/// What is known of a target.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The last load that was read; it stays when the next can't be.
    pub load: Option<Arc<Load>>,
    /// When.
    pub at: Option<Instant>,
    /// In a row, since.
    pub failures: u32,
    /// What follows from these.
    pub health: Health,
    /// The last failure since.
    pub error: Option<ScrapeError>,
}

/// All targets' last reports; cheap to clone, and to read while they change.
#[derive(Clone, Debug, Default)]
pub struct Loads(Arc<RwLock<HashMap<Arc<str>, Arc<Slot>>>>);

/// One target's.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Report>);

/// Of all targets, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) unknown: u32,
    pub(crate) healthy: u32,
    pub(crate) silent: u32,
    pub(crate) unhealthy: u32,
    /// Of the loads that were ever read.
    pub(crate) oldest: Option<Duration>,
}

impl Report {
    /// How old the load is; `None`: there is none.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.at.map(|at| now.saturating_duration_since(at))
    }

    fn note(&mut self, outcome: Result<Load, ScrapeError>, now: Instant, allowed: u32) {
        match outcome {
            Ok(load) => {
                *self = Self {
                    load: Some(Arc::new(load)),
                    at: Some(now),
                    health: Health::Healthy,
                    ..Self::default()
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= allowed.max(1) {
                    let is_silent = self.load.is_none() && error.is_answer();
                    self.health = if is_silent { Health::Silent } else { Health::Unhealthy };
                }
                self.error = Some(error);
            }
        }
    }
}

impl Loads {
    /// Of this endpoint; `None`: it is not a target.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Report> {
        let slots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(id).map(|slot| slot.get())
    }

    /// Of all, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, Report)> {
        let slots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        slots.iter().map(|(id, slot)| (id.clone(), slot.get())).collect()
    }

    pub(super) fn add(&self, id: Arc<str>) -> Arc<Slot> {
        let slot = Arc::<Slot>::default();
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, slot.clone());
        slot
    }

    pub(super) fn remove(&self, id: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    pub(crate) fn summary(&self, now: Instant) -> Summary {
        let mut summary = Summary::default();
        for slot in self.0.read().unwrap_or_else(PoisonError::into_inner).values() {
            let report = slot.get();
            match report.health {
                Health::Unknown => summary.unknown += 1,
                Health::Healthy => summary.healthy += 1,
                Health::Silent => summary.silent += 1,
                Health::Unhealthy => summary.unhealthy += 1,
            }
            summary.oldest = summary.oldest.max(report.age(now));
        }
        summary
    }
}

impl Slot {
    pub(super) fn get(&self) -> Report {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what came of asking; gives the failures in a row.
    pub(super) fn note(&self, outcome: Result<Load, ScrapeError>, now: Instant, allowed: u32) -> u32 {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        report.note(outcome, now, allowed);
        report.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::PageError;

    #[test]
    fn a_target_is_unhealthy_after_its_failures_and_healthy_after_one_answer() {
        let loads = Loads::default();
        let slot = loads.add("a".into());
        let start = Instant::now();
        let fail = |slot: &Slot| slot.note(Err(ScrapeError::Timeout), start, 3);
        fail(&slot);
        assert_eq!(loads.get("a").unwrap().health, Health::Unknown);
        slot.note(Ok(Load { waiting: 5, ..Load::default() }), start, 3);
        fail(&slot);
        assert_eq!(fail(&slot), 2);
        assert_eq!(loads.get("a").unwrap().health, Health::Healthy);
        fail(&slot);
        let report = loads.get("a").unwrap();
        assert_eq!(
            (report.health, report.load.as_ref().unwrap().waiting),
            (Health::Unhealthy, 5),
            "the last load stays"
        );
        assert_eq!(report.age(start + Duration::from_secs(2)), Some(Duration::from_secs(2)));
        let summary = loads.summary(start + Duration::from_secs(3));
        assert_eq!(
            summary,
            Summary { unhealthy: 1, oldest: Some(Duration::from_secs(3)), ..Summary::default() }
        );
        slot.note(Ok(Load::default()), start, 3);
        let report = loads.get("a").unwrap();
        assert_eq!((report.health, report.failures, report.error), (Health::Healthy, 0, None));
        let page = || Err(ScrapeError::Page(PageError::LongLine));
        slot.note(page(), start, 1);
        assert_eq!(loads.get("a").unwrap().health, Health::Unhealthy, "it used to tell");
        let silent = loads.add("b".into());
        assert_eq!(
            [page(), Err(ScrapeError::Timeout), page()].map(|outcome| {
                silent.note(outcome, start, 1);
                loads.get("b").unwrap().health
            }),
            [Health::Silent, Health::Unhealthy, Health::Silent]
        );
        loads.remove("b");
        loads.remove("a");
        assert!(loads.get("a").is_none() && loads.all().is_empty());
    }
}
