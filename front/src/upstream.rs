//! Who serves what the pool cannot: other servers with OpenAI's API, by model.
//!
//! ```text
//!  request ──► generator ──► answer
//!                 │ no worker, no room, failed before the first byte
//!                 └──► Upstream: the client's body with another model name and key ──► its answer, as it comes
//! ```
//! A model that only an upstream has goes there at once. Once a byte of an answer was shown, nothing is tried any more.
//!
//! # Invariants
//! - Only configured addresses are called, and redirects are not followed; the client's headers stay here.
//! - Each request is sent a bounded number of times, within its own time.
//! - What came from another Baton's fallback is not sent on.

mod answer;
mod file;
mod forward;
mod meter;
mod metrics;
mod relay;

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use baton_process::Metrics;
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url, redirect::Policy};

pub use file::UpstreamError;
pub(crate) use forward::Forward;
pub(crate) use meter::Used;

use file::{Models, Terms};
use metrics::UpstreamMetrics;

/// Says that a request came from another Baton's fallback.
const HOP: HeaderName = HeaderName::from_static("x-baton-upstream-hop");

/// The upstreams of a front. Clones share them.
#[derive(Clone, Default)]
pub struct Upstreams {
    by_model: Arc<HashMap<String, Arc<Upstream>>>,
    for_others: Option<Arc<Upstream>>,
    /// Models in the order of the file.
    listed: Arc<Vec<String>>,
    metrics: UpstreamMetrics,
}

/// Another server.
pub(crate) struct Upstream {
    pub(crate) name: String,
    url: Url,
    /// What it calls the model, if not as the client does.
    send_model: Option<String>,
    key: Option<HeaderValue>,
    client: Client,
    answer_timeout: Duration,
    idle_timeout: Duration,
    retries: u32,
}

impl Upstreams {
    /// Those of the YAML file at `path`.
    ///
    /// # Errors
    /// [`UpstreamError`], for a person to read.
    pub fn open(path: &Path, metrics: &Metrics) -> Result<Self, UpstreamError> {
        let mut this = Self { metrics: UpstreamMetrics::register(metrics), ..Self::default() };
        let (mut by_model, mut listed) = (HashMap::new(), Vec::new());
        for terms in file::read(path)? {
            let models = terms.models.clone();
            let upstream = Arc::new(Upstream::new(terms)?);
            tracing::info!(upstream = upstream.name, url = %upstream.url, "upstream");
            match models {
                Models::Others => this.for_others = Some(upstream),
                Models::Named(names) => {
                    listed.extend(names.iter().cloned());
                    by_model.extend(names.into_iter().map(|name| (name, upstream.clone())));
                }
            }
        }
        (this.by_model, this.listed) = (Arc::new(by_model), Arc::new(listed));
        Ok(this)
    }

    /// Who has `model` by that name.
    pub(crate) fn with_model(&self, model: &str) -> Option<&Arc<Upstream>> {
        self.by_model.get(model)
    }

    /// Who serves `model`, which is served here, when it can't be.
    pub(crate) fn in_place_of(&self, model: &str) -> Option<&Arc<Upstream>> {
        self.with_model(model).or(self.for_others.as_ref())
    }

    /// Models that upstreams have, and who has each.
    pub(crate) fn models(&self) -> impl Iterator<Item = (&str, &Upstream)> {
        self.listed.iter().filter_map(|name| Some((name.as_str(), &**self.by_model.get(name)?)))
    }

    /// Whether a request may be sent on.
    pub(crate) fn may_have(headers: &HeaderMap) -> bool {
        !headers.contains_key(HOP)
    }
}

impl Upstream {
    fn new(terms: Terms) -> Result<Self, UpstreamError> {
        let Terms { name, models: _, url, send_model, key, ca, .. } = terms;
        let client = Client::builder()
            .connect_timeout(terms.connect_timeout)
            .redirect(Policy::none())
            // Settings are the file's, not the environment's.
            .no_proxy()
            .user_agent(concat!("baton/", env!("CARGO_PKG_VERSION")));
        let client = match ca {
            Some(ca) => client.add_root_certificate(ca),
            None => client,
        };
        let failed = |error: reqwest::Error| UpstreamError::of(&name, &error);
        Ok(Self {
            client: client.build().map_err(failed)?,
            url,
            send_model,
            key,
            answer_timeout: terms.answer_timeout,
            idle_timeout: terms.idle_timeout,
            retries: terms.retries,
            name,
        })
    }
}
