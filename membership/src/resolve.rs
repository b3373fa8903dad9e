//! From addresses to schedulers: names are looked up, again and again.

use std::{collections::BTreeSet, time::Duration};

use tokio::{net::lookup_host, sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{SchedulerAddress, Schedulers};

/// Between two questions to the name service.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// While nobody is known.
const LOOK_AGAIN_SOON: Duration = Duration::from_secs(1);

impl Schedulers {
    /// All schedulers, each as `HOST:PORT`: known at once where no name has to be looked up.
    pub fn now(&self) -> BTreeSet<String> {
        self.one_by_one().map(str::to_owned).collect()
    }

    /// Keeps `list` up to date until `stop`; returns at once when it can't change.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn keep(self, list: watch::Sender<BTreeSet<String>>, stop: CancellationToken) {
        if self.addresses().iter().all(|address| matches!(address, SchedulerAddress::One(_))) {
            return;
        }
        tokio::select! {
            () = self.look_again_and_again(list) => {}
            () = stop.cancelled() => {}
        }
    }

    async fn look_again_and_again(&self, list: watch::Sender<BTreeSet<String>>) {
        let names = || self.addresses().iter().filter_map(SchedulerAddress::name);
        let mut known: Vec<BTreeSet<String>> = names().map(|_| BTreeSet::new()).collect();
        let mut complaint = String::new();
        loop {
            for (name, known) in names().zip(&mut known) {
                match lookup(name).await {
                    Ok(found) => *known = found,
                    // Who was there is there still, for all that is known.
                    Err(error) => {
                        let said = format!("{name}: {error}");
                        if complaint != said {
                            tracing::warn!(name, %error, "schedulers not looked up; trying again");
                            complaint = said;
                        }
                    }
                }
            }
            let one_by_one = self.one_by_one().map(str::to_owned);
            let all: BTreeSet<String> = one_by_one.chain(known.iter().flatten().cloned()).collect();
            let is_empty = all.is_empty();
            list.send_if_modified(|list| {
                let has_changed = *list != all;
                *list = all;
                has_changed
            });
            sleep(if is_empty { LOOK_AGAIN_SOON } else { LOOK_AGAIN }).await;
        }
    }

    fn one_by_one(&self) -> impl Iterator<Item = &str> {
        self.addresses().iter().filter_map(|address| match address {
            SchedulerAddress::One(address) => Some(address.as_str()),
            SchedulerAddress::EveryAddressOf(_) => None,
        })
    }
}

impl SchedulerAddress {
    fn name(&self) -> Option<&str> {
        match self {
            Self::EveryAddressOf(name) => Some(name),
            Self::One(_) => None,
        }
    }
}

/// Every address of `HOST:PORT`, with the port.
///
/// # Errors
/// The name service's.
async fn lookup(name: &str) -> std::io::Result<BTreeSet<String>> {
    Ok(lookup_host(name).await?.map(|address| address.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_becomes_all_of_its_addresses() {
        let schedulers: Schedulers = "10.0.0.1:8100,dns:localhost:8100".parse().unwrap();
        assert_eq!(schedulers.now(), BTreeSet::from(["10.0.0.1:8100".to_owned()]), "before it is looked up");
        let (list, mut seen) = watch::channel(schedulers.now());
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(schedulers.keep(list, stop.clone()));
        seen.changed().await.unwrap();
        let found = seen.borrow_and_update().clone();
        assert!(found.contains("127.0.0.1:8100") || found.contains("[::1]:8100"), "{found:?}");
        assert!(found.contains("10.0.0.1:8100"), "{found:?}");
        stop.cancel();
        keeping.await.unwrap();
    }

    #[tokio::test]
    async fn without_names_there_is_nothing_to_keep() {
        let schedulers: Schedulers = "a:1,b:2".parse().unwrap();
        let (list, seen) = watch::channel(schedulers.now());
        schedulers.keep(list, CancellationToken::new()).await;
        assert_eq!(seen.borrow().len(), 2);
        assert!(seen.has_changed().is_err(), "it will not change any more");
    }
}
