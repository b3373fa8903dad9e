//! Which orders about adapters there are, from all schedulers, and how far they are carried out: pure.

use std::collections::BTreeMap;

use baton_membership::LastWords;
use baton_proto::v1::{
    AdapterFailure,
    registry_reply::{AdapterOrder, AdapterOrders},
};

/// The last order on each adapter, by its name.
pub(super) type Orders = BTreeMap<String, AdapterOrder>;

/// Of all that schedulers said, also those who can't be heard now, the word with the highest number on each name.
pub(super) fn last_words(said: &LastWords<AdapterOrders>) -> Orders {
    let mut orders = Orders::new();
    for order in said.all().flat_map(|list| &list.orders) {
        let is_newer = orders.get(&order.name).is_none_or(|former| former.number < order.number);
        if is_newer {
            orders.insert(order.name.clone(), order.clone());
        }
    }
    orders
}

/// What was carried out.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) orders: Orders,
    /// The number of the last order on each name that was carried out, or could not be.
    done: BTreeMap<String, u64>,
    pub(super) failures: Vec<AdapterFailure>,
}

impl Progress {
    /// These are the orders now.
    pub(super) fn note(&mut self, orders: Orders) {
        self.failures.retain(|failure| orders.values().any(|order| order.number == failure.number));
        self.orders = orders;
    }

    /// The oldest that is not carried out.
    pub(super) fn next(&self) -> Option<&AdapterOrder> {
        let is_open =
            |order: &&AdapterOrder| self.done.get(&order.name).is_none_or(|done| *done < order.number);
        self.orders.values().filter(is_open).min_by_key(|order| order.number)
    }

    /// It was carried out, or why it could not be.
    pub(super) fn did(&mut self, order: &AdapterOrder, failure: Option<String>) {
        self.done.insert(order.name.clone(), order.number);
        self.failures.extend(failure.map(|reason| AdapterFailure { number: order.number, reason }));
    }

    /// All orders up to this number are carried out, or could not be.
    pub(super) fn done(&self) -> u64 {
        match self.next() {
            Some(open) => open.number - 1,
            None => self.orders.values().map(|order| order.number).max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list<const N: usize>(orders: [(u64, &str, &str); N]) -> AdapterOrders {
        let order = |(number, name, path): (u64, &str, &str)| AdapterOrder {
            number,
            name: name.to_owned(),
            path: path.to_owned(),
        };
        AdapterOrders { orders: orders.map(order).into() }
    }

    #[test]
    fn the_last_word_on_each_name_holds_whoever_said_it() {
        let mut said = LastWords::default();
        said.said("one", list([(3, "sql", "/sql"), (5, "law", "/law")]));
        said.said("two", list([(4, "sql", "")]));
        said.lost("two");
        let orders = last_words(&said);
        assert_eq!((orders["sql"].number, orders["law"].number), (4, 5));
        said.forget("two");
        assert_eq!(last_words(&said)["sql"].number, 3);
    }

    #[test]
    fn an_order_that_comes_late_is_carried_out_and_not_taken_for_done() {
        let mut said = LastWords::default();
        said.said("one", list([(10, "sql", "/sql")]));
        let mut progress = Progress::default();
        progress.note(last_words(&said));
        assert_eq!(progress.done(), 9);
        let order = progress.next().unwrap().clone();
        progress.did(&order, None);
        assert_eq!((progress.done(), progress.next()), (10, None));

        // The other scheduler gave its order earlier.
        said.said("two", list([(8, "law", "/law")]));
        progress.note(last_words(&said));
        assert_eq!(progress.done(), 7);
        let order = progress.next().unwrap().clone();
        assert_eq!(order.name, "law");
        progress.did(&order, Some("no such folder".to_owned()));
        assert_eq!((progress.done(), progress.failures.len()), (10, 1));

        // The first word on a name is replaced, and with it what came of it.
        said.said("two", list([(11, "law", "")]));
        progress.note(last_words(&said));
        assert_eq!((progress.done(), progress.failures.len()), (10, 0));
    }
}
