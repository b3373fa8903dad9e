//! The seam: a source always has one current, complete set of endpoints, and says when it becomes another.
//!
//! It is a `watch` channel of whole sets, not a stream of differences: whoever reads late skips sets instead of queueing them, whoever
//! reads for the first time has everything, and no message can be lost that would have to be asked for again. A set is shared, not
//! copied; at a thousand endpoints making one takes less than a millisecond, and sets change rarely beside requests.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::Endpoint;

/// All endpoints of a source at one moment, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot(Option<Arc<[Endpoint]>>);

/// A source, for those who read it.
#[derive(Clone, Debug)]
pub struct Source {
    name: &'static str,
    sets: watch::Receiver<Snapshot>,
    confirmed: Arc<Confirmed>,
}

/// A source, for what feeds it. Once it is dropped the last set stays, and [`Source::changed`] says that nothing follows.
#[derive(Debug)]
pub struct Publisher {
    name: &'static str,
    sets: watch::Sender<Snapshot>,
    confirmed: Arc<Confirmed>,
}

/// When the set was last known to be true.
#[derive(Debug, Default)]
struct Confirmed(Mutex<Option<Instant>>);

/// A source with nothing known yet, named for logs and metrics.
#[must_use]
pub fn source(name: &'static str) -> (Publisher, Source) {
    let (sender, sets) = watch::channel(Snapshot::default());
    let confirmed = Arc::<Confirmed>::default();
    (Publisher { name, sets: sender, confirmed: confirmed.clone() }, Source { name, sets, confirmed })
}

impl Snapshot {
    /// Of these, in any order. Of several with one id the first stays.
    #[must_use]
    pub fn of(mut endpoints: Vec<Endpoint>) -> Self {
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        endpoints.dedup_by(|a, b| {
            let is_twice = a.id == b.id;
            if is_twice {
                tracing::warn!(id = %a.id, ignored = %a.address, "two endpoints have one name");
            }
            is_twice
        });
        Self(Some(endpoints.into()))
    }

    /// Whether anything has been learnt: until then, "none" means nothing.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// All of them, sorted by id; none while nothing is known.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The one with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Endpoint> {
        let endpoints = self.endpoints();
        endpoints.binary_search_by(|endpoint| (*endpoint.id).cmp(id)).ok().map(|at| &endpoints[at])
    }
}

impl Source {
    /// What kind it is.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The set now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.sets.borrow().clone()
    }

    /// The next set that was not seen by this reader; at once, if there is one. `None`: there will be no other.
    ///
    /// # Cancel safety
    /// Cancel safe: a set is seen only when this returns.
    pub async fn changed(&mut self) -> Option<Snapshot> {
        self.sets.changed().await.ok()?;
        Some(self.sets.borrow_and_update().clone())
    }

    /// For how long nobody has said that the set is still true; `None`: nothing is known yet.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.confirmed.get().map(|at| now.saturating_duration_since(at))
    }
}

impl Publisher {
    /// What kind it is.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Makes `endpoints` the set, true at `now`. Readers wake only if it differs; returns whether it does.
    pub fn publish(&self, endpoints: Vec<Endpoint>, now: Instant) -> bool {
        let next = Snapshot::of(endpoints);
        self.confirm(now);
        self.sets.send_if_modified(|current| {
            let is_new = *current != next;
            if is_new {
                *current = next;
            }
            is_new
        })
    }

    /// The set is still true.
    pub fn confirm(&self, now: Instant) {
        *self.confirmed.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// A reader of what is published.
    #[must_use]
    pub fn source(&self) -> Source {
        Source { name: self.name, sets: self.sets.subscribe(), confirmed: self.confirmed.clone() }
    }
}

impl Confirmed {
    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::endpoint;

    #[tokio::test]
    async fn a_late_reader_gets_the_last_set_whole_and_is_woken_by_changes_only() {
        let (publisher, mut source) = source("test");
        assert!(!source.snapshot().is_known());
        let now = Instant::now();
        assert!(publisher.publish(vec![], now), "known to be empty is another thing than not known");
        assert!(publisher.publish(vec![endpoint("b", 2), endpoint("a", 1)], now));
        assert!(!publisher.publish(vec![endpoint("a", 1), endpoint("b", 2)], now));
        let set = source.changed().await.unwrap();
        let ids: Vec<_> = set.endpoints().iter().map(|endpoint| &*endpoint.id).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(set.get("b").unwrap().address.port(), 2);
        assert!(set.get("c").is_none());
        drop(publisher);
        assert_eq!(source.changed().await, None);
        assert_eq!(source.snapshot().endpoints().len(), 2, "what is known stays");
    }

    #[test]
    fn age_counts_from_the_last_confirmation() {
        let (publisher, source) = source("test");
        let then = Instant::now();
        assert_eq!(source.age(then), None);
        publisher.publish(vec![], then);
        let later = then + Duration::from_secs(5);
        assert_eq!(source.age(later), Some(Duration::from_secs(5)));
        publisher.confirm(later);
        assert_eq!(source.age(later), Some(Duration::ZERO));
    }

    #[test]
    fn of_two_with_one_name_the_first_stays() {
        let set = Snapshot::of(vec![endpoint("a", 1), endpoint("a", 2)]);
        assert_eq!(set.endpoints().len(), 1);
        assert_eq!(set.get("a").unwrap().address.port(), 1);
    }
}
