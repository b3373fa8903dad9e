//! Adapters: who has which, and orders that reach everybody.

use baton_proto::v1::{
    AdapterFailure, AdapterReport, LoadedAdapter,
    registry_reply::{AdapterOrder, AdapterOrders},
};

use super::*;

fn has(names: &[&str], done: u64, failures: Vec<AdapterFailure>) -> AdapterReport {
    let loaded = |name: &&str| LoadedAdapter {
        name: (*name).to_owned(),
        revision: format!("revision of {name}"),
        path: format!("/{name}"),
    };
    AdapterReport { loaded: names.iter().map(loaded).collect(), done, failures, orders: Vec::new() }
}

/// Its worker knows this order.
fn knowing(report: AdapterReport, number: u64, name: &str, path: &str) -> AdapterReport {
    let order = AdapterOrder { number, name: name.to_owned(), path: path.to_owned() };
    AdapterReport { orders: vec![order], ..report }
}

impl Worker {
    async fn orders(&mut self) -> Vec<(String, String)> {
        match self.replies.recv().await.unwrap().unwrap().reply.unwrap() {
            Reply::AdapterOrders(AdapterOrders { orders }) => {
                assert!(orders.is_sorted_by_key(|order| order.number));
                orders.into_iter().map(|order| (order.name, order.path)).collect()
            }
            other => panic!("{other:?} is no list of orders"),
        }
    }

    async fn report(&self, report: AdapterReport) {
        self.reports.send(Ok(WorkerReport { report: Some(Report::Adapters(report)) })).await.unwrap();
    }
}

fn names(fleet: &Fleet) -> Vec<String> {
    fleet.adapters().into_iter().map(|adapter| adapter.name).collect()
}

fn order(name: &str, path: &str) -> (String, String) {
    (name.to_owned(), path.to_owned())
}

#[tokio::test(start_paused = true)]
async fn adapters_are_those_that_decode_workers_have_and_leave_with_them() {
    let fleet = fleet();
    let adapters = Some(has(&["a"], 0, Vec::new()));
    let decode = Worker::join_as(&fleet, WorkerInfo { adapters: adapters.clone(), ..info(1) }).await;
    let of_prefill = Some(has(&["p"], 0, Vec::new()));
    let _prefill = Worker::join_as(&fleet, WorkerInfo { adapters: of_prefill, ..prefill_info() }).await;
    assert_eq!(names(&fleet), ["a"]);
    let member = fleet.member("w").unwrap();
    assert_eq!(member.adapters()["a"], "revision of a");

    // The same life of the same worker, whatever it has loaded meanwhile.
    drop(decode);
    let adapters = Some(has(&["a", "b"], 0, Vec::new()));
    let again = Worker::join_as(&fleet, WorkerInfo { adapters, ..info(1) }).await;
    assert_eq!(names(&fleet), ["a", "b"]);
    assert!(Arc::ptr_eq(&member, &fleet.member("w").unwrap()) && !member.lost.is_cancelled());
    again.report(has(&["b"], 0, Vec::new())).await;
    while names(&fleet) != ["b"] {
        tokio::task::yield_now().await;
    }
    drop(again.reports);
    again.serving.await.unwrap();
    assert_eq!(names(&fleet), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_order_reaches_who_is_here_and_who_comes_later_and_waits_for_all_of_them() {
    let fleet = fleet();
    let mut decode = Worker::join(&fleet, 1).await;
    let first = fleet.order_load("a", "/a").unwrap();
    assert_eq!(fleet.order_load("a", "/a"), Err(OrderRefused::AlreadyLoaded("a".to_owned())));
    assert_eq!(decode.orders().await, [order("a", "/a")]);
    let mut prefill = Worker::join_as(&fleet, prefill_info()).await;
    assert_eq!(prefill.told().await.len(), 1);
    assert_eq!(prefill.orders().await, [order("a", "/a")]);

    let waiting = tokio::spawn({
        let fleet = fleet.clone();
        async move { fleet.carried_out("a", first).await }
    });
    decode.report(knowing(has(&["a"], first, Vec::new()), first, "a", "/a")).await;
    while names(&fleet) != ["a"] {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished(), "one has not answered");
    // It did something newer for another scheduler, and has not heard of this yet.
    prefill.report(knowing(has(&["b"], first + 1, Vec::new()), first + 1, "b", "/b")).await;
    while !decode.orders().await.contains(&order("b", "/b")) {}
    assert!(!waiting.is_finished(), "one has not answered yet");
    let failure = AdapterFailure { number: first, reason: "no such folder".to_owned() };
    prefill.report(knowing(has(&[], first, vec![failure]), first, "a", "/a")).await;
    assert_eq!(waiting.await.unwrap(), ["p: no such folder"]);

    // The last word on a name takes the place of the former one.
    let last = fleet.order_unload("a").unwrap();
    assert!(last > first);
    assert_eq!(decode.orders().await, [order("b", "/b"), order("a", "")]);
    decode.report(knowing(has(&[], last, Vec::new()), last, "a", "")).await;
    // Nobody waits for who has left.
    drop(prefill.reports);
    assert_eq!(fleet.carried_out("a", last).await, [""; 0]);
    assert_eq!(fleet.order_unload("a"), Err(OrderRefused::NotFound("a".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn what_another_scheduler_ordered_is_heard_from_the_workers() {
    let fleet = fleet();
    let adapters = knowing(has(&["a"], 7, Vec::new()), 7, "a", "/a");
    let mut worker = Worker::join_as(&fleet, WorkerInfo { adapters: Some(adapters), ..info(1) }).await;
    let mut later = Worker::join_as(&fleet, prefill_info()).await;
    later.told().await;
    assert_eq!(later.orders().await, [order("a", "/a")], "who comes later is told by this one, too");
    assert_eq!(fleet.order_load("a", "/else"), Err(OrderRefused::AlreadyLoaded("a".to_owned())));

    // An older word does not take the place of a newer one; a newer one does.
    worker.report(knowing(has(&[], 6, Vec::new()), 6, "a", "/old")).await;
    worker.report(knowing(has(&[], 9, Vec::new()), 9, "a", "")).await;
    while worker.orders().await != [order("a", "")] {}
    fleet.order_load("a", "/else").unwrap();
    assert_eq!(later.orders().await.last(), Some(&order("a", "")));
    assert_eq!(later.orders().await.last(), Some(&order("a", "/else")));
}

#[tokio::test(start_paused = true)]
async fn words_about_adapters_that_are_gone_are_the_first_to_be_forgotten() {
    const MOST: usize = 1024;
    let fleet = fleet();
    for number in 0..MOST {
        fleet.order_load(&number.to_string(), "/x").unwrap();
    }
    assert_eq!(fleet.order_load("more", "/x"), Err(OrderRefused::TooMany));
    fleet.order_unload("7").unwrap();
    fleet.order_load("more", "/x").unwrap();
    let mut worker = Worker::join(&fleet, 1).await;
    let orders = worker.orders().await;
    assert_eq!(orders.len(), MOST);
    assert!(!orders.iter().any(|(name, _)| name == "7") && orders.contains(&order("more", "/x")));
}
