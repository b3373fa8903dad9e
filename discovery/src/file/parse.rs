//! The file. What is unknown is refused, with its line and what is allowed.
//!
//! ```yaml
//! endpoints:
//!   - name: prefill-0              # needed, unique
//!     address: 10.0.0.1:8000       # needed, unique; IP and port, as gateways want them
//!     role: prefill                # or decode, both (as without)
//!     engine: vllm                 # or sglang, baton, other; vllm without
//!     zone: eu-1a
//!     rack: r7
//!     node: n3
//!     labels: {gpu: h200}
//!     metrics-address: 10.0.0.1:9090   # the endpoint's own without
//!     metrics-path: /metrics
//!     kv-events: tcp://10.0.0.1:5557
//!     kv-events-replay: tcp://10.0.0.1:5558
//!     draining: true               # gets no new requests
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::{Endpoint, Engine, KvEvents, MetricsPage, Place, Role, State};

/// A file that lists no endpoints that can be used. Its text says the line and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    endpoints: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    name: Spanned<String>,
    address: Spanned<String>,
    #[serde(default)]
    role: RoleName,
    #[serde(default)]
    engine: EngineName,
    zone: Option<String>,
    rack: Option<String>,
    node: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    metrics_address: Option<Spanned<String>>,
    metrics_path: Option<Spanned<String>>,
    kv_events: Option<Spanned<String>>,
    kv_events_replay: Option<Spanned<String>>,
    #[serde(default)]
    draining: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RoleName {
    Prefill,
    Decode,
    #[default]
    Both,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum EngineName {
    #[default]
    Vllm,
    Sglang,
    Baton,
    Other,
}

/// Reads a file's text.
///
/// # Errors
/// [`ParseError`]: says the line, and what is allowed there.
pub fn parse(text: &str) -> Result<Vec<Endpoint>, ParseError> {
    if text.trim().is_empty() {
        return Err(ParseError(
            "line 1: the file is empty: write `endpoints: []` if there are none".to_owned(),
        ));
    }
    let file: File = serde_saphyr::from_str(text).map_err(|error| ParseError(error.to_string()))?;
    let (mut names, mut addresses) = (HashMap::new(), HashMap::new());
    let mut endpoints = Vec::with_capacity(file.endpoints.len());
    for entry in file.endpoints {
        let (name, address) = (entry.name.clone(), entry.address.clone());
        let endpoint = entry.endpoint()?;
        once(&mut names, endpoint.id.clone(), &name, "name")?;
        once(&mut addresses, endpoint.address, &address, "address")?;
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

impl Entry {
    fn endpoint(self) -> Result<Endpoint, ParseError> {
        if self.name.value.is_empty() {
            return Err(at(&self.name, "a name is needed: requests, logs and metrics use it"));
        }
        let address = socket(&self.address)?;
        Ok(Endpoint {
            id: self.name.value.as_str().into(),
            incarnation: 0,
            address,
            role: match self.role {
                RoleName::Prefill => Role::Prefill,
                RoleName::Decode => Role::Decode,
                RoleName::Both => Role::Both,
            },
            engine: match self.engine {
                EngineName::Vllm => Engine::Vllm,
                EngineName::Sglang => Engine::Sglang,
                EngineName::Baton => Engine::Baton,
                EngineName::Other => Engine::Other,
            },
            state: if self.draining { State::Draining } else { State::Ready },
            metrics: MetricsPage {
                address: self.metrics_address.as_ref().map_or(Ok(address), socket)?,
                path: self.metrics_path.as_ref().map_or(Ok("/metrics".into()), path)?,
            },
            kv_events: self.kv_events()?,
            place: Place {
                zone: self.zone.map(Arc::from),
                rack: self.rack.map(Arc::from),
                node: self.node.map(Arc::from),
            },
            labels: Arc::new(self.labels),
        })
    }

    fn kv_events(&self) -> Result<Option<KvEvents>, ParseError> {
        match (&self.kv_events, &self.kv_events_replay) {
            (None, Some(replay)) => {
                Err(at(replay, "kv-events-replay without kv-events: add that, or remove this"))
            }
            (events, replay) => {
                let replay = replay.as_ref().map(tcp).transpose()?;
                let events = events.as_ref().map(tcp).transpose()?;
                Ok(events.map(|events| KvEvents { events, replay }))
            }
        }
    }
}

fn socket(text: &Spanned<String>) -> Result<SocketAddr, ParseError> {
    let address: Result<SocketAddr, _> = text.value.parse();
    let address = address.map_err(|_| {
        at(text, format!("{:?} is no address: write IP:PORT, as 10.0.0.1:8000 or [fd00::1]:8000", text.value))
    })?;
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(at(
            text,
            format!("{address} can't be reached: name the port and address that it listens on"),
        ));
    }
    Ok(address)
}

fn path(text: &Spanned<String>) -> Result<Arc<str>, ParseError> {
    let is_path = text.value.starts_with('/') && text.value.parse::<http::uri::PathAndQuery>().is_ok();
    if is_path {
        Ok(text.value.as_str().into())
    } else {
        Err(at(text, "a path begins with / and has no spaces"))
    }
}

fn tcp(text: &Spanned<String>) -> Result<Arc<str>, ParseError> {
    let is_right = text.value.strip_prefix("tcp://").is_some_and(|rest| {
        rest.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    });
    if is_right { Ok(text.value.as_str().into()) } else { Err(at(text, "write it as tcp://HOST:PORT")) }
}

fn once<K: std::hash::Hash + Eq>(
    seen: &mut HashMap<K, u64>,
    key: K,
    place: &Spanned<String>,
    what: &str,
) -> Result<(), ParseError> {
    match seen.insert(key, line(place)) {
        None => Ok(()),
        Some(first) => Err(at(
            place,
            format!("the {what} {:?} is there twice, first in line {first}: remove one", place.value),
        )),
    }
}

fn line<T>(place: &Spanned<T>) -> u64 {
    place.referenced.line()
}

fn at<T>(place: &Spanned<T>, message: impl std::fmt::Display) -> ParseError {
    ParseError(format!("line {}: {message}", line(place)))
}

#[cfg(test)]
mod tests;
