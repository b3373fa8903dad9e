//! Following the objects of one kind: listed in pages, then watched from the version of the list, without an end.
//!
//! Why not `kube`'s own watcher: it keeps bookmarks to itself, so one could not say how old what is known may be, and it takes minutes to
//! give up a connection that died without a word. A failure of any kind leaves the last version where it is: the watch goes on from
//! there, and only when the server has forgotten it (410) is everything listed again. Whoever listens gets whole lists and single changes,
//! and keeps what it has in between.

use std::{fmt::Debug, time::Duration};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::options::WatchLimits;
use crate::metrics::{ResourceLabels, WatchMetrics};

/// Objects in a page of a list.
const PAGE: u32 = 500;
/// Pages of a list; above it something is wrong.
const MOST_PAGES: usize = 400;

/// Which objects.
#[derive(Clone, Debug)]
pub(super) enum Select {
    /// The one of this name, if there is one.
    Name(String),
    /// Those with these labels.
    Labels(String),
}

/// What was heard; of objects only what counts.
#[derive(Debug)]
pub(super) enum Told<T> {
    /// These are all, with their names.
    Listed(Vec<(String, T)>),
    /// It is new or another.
    Changed(String, T),
    /// It is gone.
    Removed(String),
    /// All is as it was.
    Confirmed,
    /// The server was not reached, or refused.
    Failed,
}

/// Follows objects of the kind `K`.
pub(super) struct Follow<K> {
    api: Api<K>,
    resource: &'static str,
    limits: WatchLimits,
    metrics: WatchMetrics,
    /// From where to go on; `None`: a list is needed.
    version: Option<String>,
    open: Option<Open<K>>,
    /// In a row.
    failures: u32,
}

/// A watch that runs.
struct Open<K> {
    events: BoxStream<'static, kube::Result<WatchEvent<K>>>,
    since: Instant,
    has_told: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("the server has forgotten the version that was asked for")]
    Gone,
    #[error("{0}")]
    Refused(String),
    #[error("no answer for {0:?}")]
    Silent(Duration),
    #[error("the watch ended as soon as it had begun")]
    Short,
    #[error("a list of more than {MOST_PAGES} pages")]
    Endless,
}

impl<K> Follow<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// What is heard, without an end.
    pub(super) fn stream<T: From<K> + Send + 'static>(self, select: Select) -> BoxStream<'static, Told<T>> {
        stream::unfold((self, select), |(mut follow, select)| async move {
            let told = follow.next(&select).await;
            Some((told, (follow, select)))
        })
        .boxed()
    }

    async fn next<T: From<K>>(&mut self, select: &Select) -> Told<T> {
        loop {
            let heard = match (self.open.is_some(), self.version.clone()) {
                (true, _) => self.hear().await,
                (false, Some(version)) => self.begin(select, &version).await.map(|()| Some(Told::Confirmed)),
                (false, None) => self.list(select).await.map(Some),
            };
            match heard {
                Ok(Some(told)) => return told,
                // A watch has ended in order, and another begins.
                Ok(None) => {}
                Err(failure) => {
                    self.failed(&failure).await;
                    return Told::Failed;
                }
            }
        }
    }

    async fn list<T: From<K>>(&mut self, select: &Select) -> Result<Told<T>, Failure> {
        let mut params = select.list();
        let mut objects = Vec::new();
        for _ in 0..MOST_PAGES {
            let page = timeout(self.limits.answer, self.api.list(&params)).await;
            let page = page.map_err(|_| Failure::Silent(self.limits.answer))??;
            objects.extend(page.items.into_iter().map(|object| (object.name_any(), T::from(object))));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => {
                    self.version = page.metadata.resource_version;
                    self.metrics.lists.get_or_create(&self.labels()).inc();
                    return Ok(Told::Listed(objects));
                }
            }
        }
        Err(Failure::Endless)
    }

    async fn begin(&mut self, select: &Select, version: &str) -> Result<(), Failure> {
        let params = select.watch(self.limits.watch);
        let events = timeout(self.limits.answer, self.api.watch(&params, version)).await;
        let events = events.map_err(|_| Failure::Silent(self.limits.answer))??.boxed();
        self.open = Some(Open { events, since: Instant::now(), has_told: false });
        Ok(())
    }

    /// The next of the open watch; `None`: it has ended.
    async fn hear<T: From<K>>(&mut self) -> Result<Option<Told<T>>, Failure> {
        let silence = self.limits.watch + self.limits.grace;
        let Some(open) = &mut self.open else { return Ok(None) };
        let event = match timeout(silence, open.events.next()).await {
            Err(_) => return Err(Failure::Silent(silence)),
            Ok(None) if open.has_told || open.since.elapsed() >= self.limits.first_retry => {
                self.open = None;
                return Ok(None);
            }
            Ok(None) => return Err(Failure::Short),
            Ok(Some(event)) => event?,
        };
        let told = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.version = object.resource_version();
                Told::Changed(object.name_any(), object.into())
            }
            WatchEvent::Deleted(object) => {
                self.version = object.resource_version();
                Told::Removed(object.name_any())
            }
            WatchEvent::Bookmark(bookmark) => {
                self.version = Some(bookmark.metadata.resource_version);
                Told::Confirmed
            }
            WatchEvent::Error(status) if status.code == 410 => return Err(Failure::Gone),
            WatchEvent::Error(status) => {
                return Err(Failure::Refused(format!("{}: {}", status.code, status.message)));
            }
        };
        open.has_told = true;
        self.recovered();
        Ok(Some(told))
    }

    async fn failed(&mut self, failure: &Failure) {
        self.open = None;
        if failure.is_gone() {
            self.version = None;
        }
        self.metrics.failures.get_or_create(&self.labels()).inc();
        let resource = self.resource;
        if self.failures == 0 && !failure.is_gone() {
            tracing::warn!(resource, %failure, "Kubernetes does not tell; what is known stays, and it is tried again");
        } else {
            tracing::debug!(resource, %failure, failures = self.failures, "Kubernetes does not tell");
        }
        let most =
            self.limits.most_retry.min(self.limits.first_retry.saturating_mul(1 << self.failures.min(20)));
        self.failures = self.failures.saturating_add(1);
        // Spread, so that many schedulers do not come back in one moment.
        sleep(most.mul_f64(rand::random_range(0.5..1.0))).await;
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!(resource = self.resource, "Kubernetes tells again");
        }
    }

    fn labels(&self) -> ResourceLabels {
        ResourceLabels { resource: self.resource }
    }
}

impl<K> Follow<K> {
    pub(super) fn new(
        api: Api<K>,
        resource: &'static str,
        limits: WatchLimits,
        metrics: WatchMetrics,
    ) -> Self {
        Self { api, resource, limits, metrics, version: None, open: None, failures: 0 }
    }
}

impl Failure {
    fn is_gone(&self) -> bool {
        match self {
            Self::Gone => true,
            Self::Api(kube::Error::Api(status)) => status.code == 410,
            _ => false,
        }
    }
}

impl Select {
    fn list(&self) -> ListParams {
        let params = ListParams::default().limit(PAGE);
        match self {
            Self::Name(name) => params.fields(&format!("metadata.name={name}")),
            Self::Labels(labels) => params.labels(labels),
        }
    }

    fn watch(&self, length: Duration) -> WatchParams {
        let seconds = u32::try_from(length.as_secs()).unwrap_or(u32::MAX).max(1);
        let params = WatchParams { bookmarks: true, ..WatchParams::default() }.timeout(seconds);
        match self {
            Self::Name(name) => params.fields(&format!("metadata.name={name}")),
            Self::Labels(labels) => params.labels(labels),
        }
    }
}
