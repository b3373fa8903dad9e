//! The pods of an InferencePool as conformance tests have them: servers that answer whatever they are asked with what came, and tell no load.

use std::net::{Ipv4Addr, TcpListener};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderName, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tonic::service::Routes;

use super::serving::Serving;

/// Three pods with the same ports.
pub(crate) struct Pods {
    /// Of the pool.
    pub(crate) name: &'static str,
    pub(crate) pods: [Pod; 3],
    pub(crate) ports: Vec<u16>,
}

/// One pod; it ends when dropped.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    _servers: Vec<Serving>,
}

/// What its servers speak.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    /// In clear text, and nothing else.
    Http2,
}

impl Pods {
    /// On addresses 127.0.`network`.1 and on, each with so many ports.
    pub(crate) fn start(name: &'static str, network: u8, ports: usize, speaks: Speaks) -> Self {
        let ips = [1, 2, 3].map(|host| Ipv4Addr::new(127, 0, network, host));
        let taken: Vec<(u16, [TcpListener; 3])> = (0..ports).map(|_| same_port(ips)).collect();
        let ports = taken.iter().map(|(port, _)| *port).collect();
        let mut pods =
            ips.map(|ip| Pod { name: format!("{name}-{}", ip.octets()[3]), ip, _servers: Vec::new() });
        for (port, listeners) in taken {
            for (pod, listener) in pods.iter_mut().zip(listeners) {
                let app = Router::new().fallback(echo).with_state((pod.name.clone(), port));
                pod._servers.push(match speaks {
                    Speaks::Http1 => Serving::http1(listener, app),
                    Speaks::Http2 => Serving::http2(listener, Routes::from(app)),
                });
            }
        }
        Self { name, pods, ports }
    }

    /// All addresses, as a gateway knows them.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let of = |pod: &Pod| self.ports.iter().map(|port| format!("{}:{port}", pod.ip)).collect::<Vec<_>>();
        self.pods.iter().flat_map(of).collect()
    }

    /// The pods, as Kubernetes shows them.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let object = |pod: &Pod| {
            json!({
                "metadata": { "name": pod.name, "uid": pod.name, "labels": { "app": self.name } },
                "status": {
                    "phase": "Running",
                    "podIP": pod.ip.to_string(),
                    "conditions": [{ "type": "Ready", "status": "True" }],
                },
            })
        };
        self.pods.iter().map(object).collect()
    }

    /// The pool, as Kubernetes shows it.
    pub(crate) fn pool(&self) -> Value {
        let ports: Vec<Value> = self.ports.iter().map(|port| json!({ "number": port })).collect();
        json!({
            "metadata": { "name": self.name },
            "spec": { "selector": { "matchLabels": { "app": self.name } }, "targetPorts": ports },
        })
    }
}

/// A port that is free at all of these addresses.
fn same_port(ips: [Ipv4Addr; 3]) -> (u16, [TcpListener; 3]) {
    let listeners = || {
        let first = TcpListener::bind((ips[0], 0)).ok()?;
        let port = first.local_addr().ok()?.port();
        let at = |ip: Ipv4Addr| TcpListener::bind((ip, port)).ok();
        Some((port, [first, at(ips[1])?, at(ips[2])?]))
    };
    (0..100).find_map(|_| listeners()).expect("one of a hundred free ports is free at two more addresses")
}

async fn echo(State((pod, port)): State<(String, u16)>, headers: HeaderMap, uri: Uri) -> Response {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    let told = json!({
        "pod": pod,
        "port": port,
        "path": uri.path(),
        "destination": header("x-gateway-destination-endpoint"),
    });
    let mut response = Json(told).into_response();
    if let Some(set) = header("x-echo-set-header")
        && let Some((name, value)) = set.split_once(':')
    {
        let (name, value) = (name.parse::<HeaderName>(), value.trim().parse());
        response.headers_mut().insert(name.expect("a header's name"), value.expect("a header's value"));
    }
    response
}
