//! Adapters in the fleet: who has which, and what was said about them at run time.
//!
//! Workers say what they have. Orders to load or unload are a list that every worker is told, those that join later, too; each says
//! up to which order it is done. So a worker that was restarted has what it had before, without anybody's doing. Workers say also
//! which orders they know: so several schedulers have the same list, and one that was restarted has it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use baton_proto::v1::{
    AdapterReport, Role,
    registry_reply::{AdapterOrder, AdapterOrders},
};
use tokio::sync::watch;

use super::{Fleet, Member};

/// Orders that are remembered. Beyond it, the oldest words about adapters that were unloaded are forgotten.
const MOST_ORDERS: usize = 1024;

/// Adapters by name, with their revisions.
pub(crate) type Revisions = BTreeMap<String, String>;

/// What the fleet knows of orders.
#[derive(Default)]
pub(super) struct Orders {
    list: watch::Sender<AdapterOrders>,
    /// Counts reports, joins and departures.
    news: watch::Sender<u64>,
}

/// An adapter that requests may select.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServedAdapter {
    pub(crate) name: String,
    /// Its folder on a worker.
    pub(crate) path: String,
}

/// Why an order was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderRefused {
    #[error("The lora adapter '{0}' has already been loaded.")]
    AlreadyLoaded(String),
    #[error("The lora adapter '{0}' cannot be found.")]
    NotFound(String),
    #[error("{MOST_ORDERS} adapters were loaded at run time, which is the limit: unload one first.")]
    TooMany,
}

impl Orders {
    /// The newest list, now and from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<AdapterOrders> {
        self.list.subscribe()
    }

    /// Something about a member has changed.
    pub(super) fn note_news(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Adds the last word on `name`; its number. Numbers begin with the time, so that they grow from one life to the next.
    fn add(&self, name: &str, path: &str) -> Result<u64, OrderRefused> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(0);
        let mut outcome = Err(OrderRefused::TooMany);
        self.list.send_if_modified(|AdapterOrders { orders }| {
            let number = orders.last().map_or(now, |last| now.max(last.number + 1));
            let order = AdapterOrder { number, name: name.to_owned(), path: path.to_owned() };
            let is_added = put(orders, order);
            outcome = if is_added { Ok(number) } else { Err(OrderRefused::TooMany) };
            is_added
        });
        outcome
    }

    /// Takes over what another scheduler ordered, or this one in its last life.
    fn take_over(&self, heard: &[AdapterOrder]) {
        let is_news = |orders: &[AdapterOrder], order: &AdapterOrder| {
            let same_name = orders.iter().find(|known| known.name == order.name);
            same_name.is_none_or(|known| known.number < order.number)
        };
        // Looked at first: a report that says nothing new disturbs nobody.
        if !heard.iter().any(|order| is_news(&self.list.borrow().orders, order)) {
            return;
        }
        self.list.send_if_modified(|AdapterOrders { orders }| {
            let mut has_changed = false;
            for order in heard {
                has_changed |= is_news(orders, order) && put(orders, order.clone());
            }
            has_changed
        });
    }

    fn is_ordered(&self, name: &str) -> bool {
        self.list.borrow().orders.iter().any(|order| order.name == name && !order.path.is_empty())
    }
}

/// Makes `order` the last word on its name; the list stays sorted by number. `false`: there is no room.
fn put(orders: &mut Vec<AdapterOrder>, order: AdapterOrder) -> bool {
    let others = orders.iter().filter(|other| other.name != order.name).count();
    if others >= MOST_ORDERS {
        match orders.iter().position(|other| other.path.is_empty() && other.name != order.name) {
            Some(oldest) => drop(orders.remove(oldest)),
            None => return false,
        }
    }
    orders.retain(|other| other.name != order.name);
    let place = orders.partition_point(|other| other.number < order.number);
    orders.insert(place, order);
    true
}

impl Fleet {
    /// A worker says which adapters it has.
    pub(super) fn note_adapters(&self, member: &Member, report: AdapterReport) {
        self.set_adapters(member, report);
        self.orders.note_news();
    }

    pub(super) fn set_adapters(&self, member: &Member, report: AdapterReport) {
        self.orders.take_over(&report.orders);
        member.set_adapters(report);
        self.router.adapters(member.id(), member.adapters().keys().cloned().collect());
    }

    /// The adapters that requests may select: those of decode workers. Prefill workers without one are passed over.
    pub(crate) fn adapters(&self) -> Vec<ServedAdapter> {
        let mut served = BTreeMap::new();
        let decode = self.members().into_iter().filter(|member| member.role() == Role::Decode);
        for loaded in decode.flat_map(|member| member.adapter_report().loaded) {
            served.entry(loaded.name).or_insert(loaded.path);
        }
        served.into_iter().map(|(name, path)| ServedAdapter { name, path }).collect()
    }

    /// Tells all workers to load the adapter in `path`; the order's number.
    pub(crate) fn order_load(&self, name: &str, path: &str) -> Result<u64, OrderRefused> {
        if self.orders.is_ordered(name) || self.has_adapter(name) {
            return Err(OrderRefused::AlreadyLoaded(name.to_owned()));
        }
        self.orders.add(name, path)
    }

    /// Tells all workers to unload an adapter; the order's number.
    pub(crate) fn order_unload(&self, name: &str) -> Result<u64, OrderRefused> {
        if !(self.orders.is_ordered(name) || self.has_adapter(name)) {
            return Err(OrderRefused::NotFound(name.to_owned()));
        }
        self.orders.add(name, "")
    }

    /// Changes whenever somebody has joined or left, or has other adapters.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.orders.news.subscribe()
    }

    /// Waits until every worker that is here has carried out order `number` about `name`, or a newer one, and says why those could
    /// not that could not.
    ///
    /// # Cancel safety
    /// May be called again.
    pub(crate) async fn carried_out(&self, name: &str, number: u64) -> Vec<String> {
        // Another scheduler's orders may have higher numbers and be done already.
        let is_done = |report: &AdapterReport| {
            let order = report.orders.iter().find(|order| order.name == name);
            order.is_some_and(|order| number <= order.number && order.number <= report.done)
        };
        let mut news = self.news();
        loop {
            let reports: Vec<(Arc<Member>, AdapterReport)> =
                self.members().into_iter().map(|member| (member.clone(), member.adapter_report())).collect();
            if reports.iter().all(|(_, report)| is_done(report)) {
                let failure = |(member, report): &(Arc<Member>, AdapterReport)| {
                    let failure = report.failures.iter().find(|failure| failure.number == number)?;
                    Some(format!("{}: {}", member.id(), failure.reason))
                };
                return reports.iter().filter_map(failure).collect();
            }
            if news.changed().await.is_err() {
                return vec!["the scheduler is stopping".to_owned()];
            }
        }
    }

    /// Revisions of an adapter on the workers that are here: one, unless they read different folders.
    pub(crate) fn revisions_of(&self, name: &str) -> BTreeSet<String> {
        let of_member = |member: Arc<Member>| member.adapters().get(name).cloned();
        self.members().into_iter().filter_map(of_member).collect()
    }

    fn has_adapter(&self, name: &str) -> bool {
        !self.revisions_of(name).is_empty()
    }
}

impl Member {
    /// Its adapters' revisions.
    pub(crate) fn adapters(&self) -> Arc<Revisions> {
        self.with_state(|state| state.adapters.clone())
    }

    fn adapter_report(&self) -> AdapterReport {
        self.with_state(|state| state.adapter_report.clone())
    }

    pub(super) fn set_adapters(&self, report: AdapterReport) {
        let revisions = report.loaded.iter().map(|loaded| (loaded.name.clone(), loaded.revision.clone()));
        let revisions = Arc::new(revisions.collect());
        self.with_state(|state| (state.adapters, state.adapter_report) = (revisions, report));
    }
}
