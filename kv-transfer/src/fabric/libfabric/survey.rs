//! What a machine's libfabric offers, for people.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::choice::choose;
use super::info::{Info, text};
use super::library::Library;
use crate::StartError;

/// One libfabric, and its providers.
#[derive(Clone, Debug)]
pub struct LibfabricSurvey {
    /// Its version.
    pub version: String,
    /// The provider that `libfabric` without a name takes; `None` when there is no usable one.
    pub choice: Option<String>,
    /// All that it has, by name.
    pub providers: Vec<ProviderSurvey>,
}

/// One provider.
#[derive(Clone, Debug)]
pub struct ProviderSurvey {
    /// Its name, as in `libfabric:NAME`.
    pub name: String,
    /// The devices or interfaces on which it runs.
    pub devices: Vec<String>,
    /// What it can do, or why it is passed over.
    pub verdict: Result<ProviderFacts, String>,
}

/// What matters of a usable provider.
#[derive(Clone, Debug)]
pub struct ProviderFacts {
    /// The devices that a worker takes as its rails unless told otherwise.
    pub rails: Vec<String>,
    /// Largest write in bytes.
    pub max_write_bytes: u64,
    /// Writes in flight, over each rail.
    pub queue_depth: usize,
    /// A completed write is in the target's memory; otherwise failed transfers are drained before blocks are reused.
    pub delivery_complete: bool,
}

impl LibfabricSurvey {
    /// Asks the library at `path`, or where the loader finds it, for everything it has; IP providers are bound to `ip`.
    ///
    /// # Errors
    /// [`StartError::LibfabricMissing`].
    pub fn take(path: Option<&Path>, ip: IpAddr) -> Result<Self, StartError> {
        let library = Library::open(path)?;
        let providers = Info::everything(library)
            .map(|all| devices_by_provider(&all))
            .unwrap_or_default()
            .into_iter()
            .map(|(name, devices)| {
                let verdict = choose(library, Some(&name), ip, &[]).map(|rails| facts(&rails));
                ProviderSurvey { name, devices, verdict: verdict.map_err(reason) }
            })
            .collect();
        let choice = choose(library, None, ip, &[]).ok().map(|rails| rails[0].facts().provider);
        Ok(Self { version: library.version(), choice, providers })
    }
}

fn facts(rails: &[Info]) -> ProviderFacts {
    let facts = rails[0].facts();
    ProviderFacts {
        rails: rails.iter().map(|rail| rail.facts().label()).collect(),
        max_write_bytes: facts.max_write_bytes,
        queue_depth: facts.queue_depth,
        delivery_complete: facts.delivery_complete,
    }
}

fn reason(error: StartError) -> String {
    match error {
        StartError::NoProvider { reason, .. } => reason,
        other => other.to_string(),
    }
}

fn devices_by_provider(all: &Info) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for info in all.entries() {
        // SAFETY: every entry that fi_getinfo returns has all its attributes.
        let (fabric, domain) = unsafe { (&*info.fabric_attr, &*info.domain_attr) };
        let devices = found.entry(text(fabric.prov_name)).or_default();
        let device = text(domain.name);
        if !device.is_empty() && !devices.contains(&device) {
            devices.push(device);
        }
    }
    found
}
