//! For tests of several modules.

use std::{net::SocketAddr, sync::Arc};

use crate::{Endpoint, Engine, MetricsPage, Place, Role, State};

/// An endpoint of this name and port on loopback, ready.
pub(crate) fn endpoint(id: &str, port: u16) -> Endpoint {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Endpoint {
        id: id.into(),
        incarnation: 0,
        address,
        role: Role::Both,
        engine: Engine::Vllm,
        state: State::Ready,
        labels: Arc::default(),
        place: Place::default(),
        metrics: MetricsPage { address, path: "/metrics".into() },
        kv_events: None,
    }
}
