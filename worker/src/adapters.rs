//! The worker's adapters: those it starts with, those that schedulers have it load and unload, and what it says of them.

mod progress;

use std::{
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use baton_engine::{LoraAdapter, LoraAdapters};
use baton_membership::LastWords;
use baton_proto::v1::{
    AdapterRef, AdapterReport, Failure, FailureKind, LoadedAdapter,
    registry_reply::{AdapterOrder, AdapterOrders},
};
use tokio::{sync::watch, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{RunError, Worker};
use progress::{Orders, Progress, last_words};

/// An adapter to start with: `NAME=FOLDER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoraModule {
    /// What requests select it by.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
}

/// The adapters of a worker, and the orders that it has about them.
pub struct Adapters {
    loaded: Arc<LoraAdapters>,
    said: Mutex<LastWords<AdapterOrders>>,
    /// Of all that was said, the last word on each name.
    orders: watch::Sender<Orders>,
    report: watch::Sender<AdapterReport>,
}

impl Adapters {
    /// Loads `modules`, one after the other.
    ///
    /// # Errors
    /// The first that was refused.
    pub(crate) async fn start(loaded: LoraAdapters, modules: &[LoraModule]) -> Result<Self, RunError> {
        let this = Self {
            loaded: Arc::new(loaded),
            said: Mutex::default(),
            orders: watch::Sender::default(),
            report: watch::Sender::default(),
        };
        for LoraModule { name, path } in modules {
            this.load(name, path.clone())
                .await
                .map_err(|reason| RunError::Adapter { name: name.clone(), reason })?;
        }
        this.tell(&Progress::default());
        Ok(this)
    }

    /// All that are loaded, and how many there may be.
    pub(crate) fn loaded(&self) -> &LoraAdapters {
        &self.loaded
    }

    /// What the scheduler is told, now and from now on.
    pub(crate) fn report(&self) -> watch::Receiver<AdapterReport> {
        self.report.subscribe()
    }

    /// A scheduler's orders, in full.
    pub(crate) fn want(&self, scheduler: &str, orders: AdapterOrders) {
        self.change(|said| said.said(scheduler, orders));
    }

    /// A scheduler is none any more. What it ordered stays as it is.
    pub(crate) fn forget(&self, scheduler: &str) {
        self.change(|said| said.forget(scheduler));
    }

    fn change(&self, change: impl FnOnce(&mut LastWords<AdapterOrders>)) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut said);
        let orders = last_words(&said);
        self.orders.send_if_modified(|former| {
            let is_news = *former != orders;
            *former = orders;
            is_news
        });
    }

    /// Carries orders out, until `stop`.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut orders = self.orders.subscribe();
        // Some may have come before.
        orders.mark_changed();
        let work = async {
            let mut progress = Progress::default();
            while orders.changed().await.is_ok() {
                progress.note(orders.borrow_and_update().clone());
                self.tell(&progress);
                // One at a time: a newer word may come meanwhile.
                while let Some(order) = progress.next().cloned() {
                    let failure = self.carry_out(&order).await.err();
                    if let Some(reason) = &failure {
                        tracing::warn!(adapter = order.name, reason, "adapter not loaded");
                    }
                    progress.did(&order, failure);
                    progress.note(orders.borrow_and_update().clone());
                    self.tell(&progress);
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    async fn carry_out(&self, AdapterOrder { name, path, .. }: &AdapterOrder) -> Result<(), String> {
        if !path.is_empty() {
            return self.load(name, path.into()).await;
        }
        if self.loaded.unload(name) {
            tracing::info!(adapter = name, "adapter unloaded");
        }
        Ok(())
    }

    /// Reading and packing takes as long as it takes: not on a thread of the runtime, and the engine serves meanwhile.
    async fn load(&self, name: &str, path: PathBuf) -> Result<(), String> {
        let (loaded, name, folder) = (self.loaded.clone(), name.to_owned(), path.display().to_string());
        let adapter = spawn_blocking(move || loaded.load(&name, &path)).await;
        let adapter =
            adapter.map_err(|_| "loading it panicked".to_owned())?.map_err(|error| error.to_string())?;
        let (adapter, revision, rank) = (adapter.name(), adapter.revision(), adapter.rank());
        tracing::info!(adapter, folder, revision, rank, "adapter loaded");
        Ok(())
    }

    fn tell(&self, progress: &Progress) {
        let entry = |loaded: baton_engine::LoadedAdapter| LoadedAdapter {
            name: loaded.adapter.name().to_owned(),
            revision: loaded.adapter.revision().to_owned(),
            path: loaded.folder.display().to_string(),
        };
        let loaded = self.loaded.all().into_iter().map(entry).collect();
        let (done, failures) = (progress.done(), progress.failures.clone());
        let orders = progress.orders.values().cloned().collect();
        self.report.send_replace(AdapterReport { loaded, done, failures, orders });
    }
}

impl Worker {
    /// The adapter that a request names; `None` when it names none.
    ///
    /// # Errors
    /// It is not here, or is here with other weights. Another worker may have it.
    pub fn adapter(&self, wanted: Option<AdapterRef>) -> Result<Option<LoraAdapter>, Failure> {
        let Some(AdapterRef { name, revision }) = wanted else { return Ok(None) };
        let here = self.adapters.as_ref().and_then(|adapters| adapters.loaded.get(&name));
        let missing = match here {
            Some(adapter) if adapter.revision() == revision => return Ok(Some(adapter)),
            Some(adapter) => format!(
                "lora adapter {name:?} has revision {} on this worker, the request wants {revision}: load the same one on all \
                 workers",
                adapter.revision()
            ),
            None => format!("lora adapter {name:?} is not loaded on this worker"),
        };
        Err(Failure { kind: FailureKind::Unavailable.into(), message: missing })
    }
}

impl FromStr for LoraModule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(Self { name: name.to_owned(), path: path.into() })
            }
            _ => Err(format!("{text:?} is not NAME=FOLDER")),
        }
    }
}

impl fmt::Debug for Adapters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapters").field("report", &*self.report.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_a_name_and_a_folder() {
        let module: LoraModule = "sql=/models/a=b".parse().unwrap();
        assert_eq!((module.name.as_str(), module.path), ("sql", PathBuf::from("/models/a=b")));
        for wrong in ["", "sql", "=x", "sql="] {
            assert!(wrong.parse::<LoraModule>().unwrap_err().contains("NAME=FOLDER"), "{wrong}");
        }
    }
}
