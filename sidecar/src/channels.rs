//! Connections to prefill workers, shared by all requests.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use baton_proto::v1::PrefillCandidate;
use baton_tls::Dial;
use tonic::transport::{Channel, Endpoint};

/// Most connections kept; the one that was not used for longest makes room.
const MAX_CHANNELS: usize = 256;
/// Time for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Connections by endpoint and incarnation: a worker that was restarted never gets one of its predecessor's.
pub(crate) struct Channels {
    dial: Dial,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channels: HashMap<(String, u64), (Channel, u64)>,
    /// Counts uses, for "longest not used".
    clock: u64,
}

impl Channels {
    pub(crate) fn over(dial: Dial) -> Self {
        Self { dial, state: Mutex::default() }
    }

    /// The connection to `candidate`; connects when first used, and again after it broke.
    ///
    /// # Errors
    /// The endpoint is no address.
    pub(crate) fn to(&self, candidate: &PrefillCandidate) -> Result<Channel, tonic::transport::Error> {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        state.clock += 1;
        let key = (candidate.endpoint.clone(), candidate.incarnation);
        if let Some((channel, used)) = state.channels.get_mut(&key) {
            *used = state.clock;
            return Ok(channel.clone());
        }
        let channel = self.dial.connect_lazy(&endpoint(&candidate.endpoint)?);
        if state.channels.len() >= MAX_CHANNELS {
            let oldest = state.channels.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| state.channels.remove(&key));
        }
        state.channels.insert(key, (channel.clone(), state.clock));
        Ok(channel)
    }
}

/// How every process of Baton is connected to: quickly or not at all, and noticing when it is gone.
///
/// The system tells at once of a process that died. The keep-alive is for one that is stopped, or whose host is gone; it
/// is patient, since it breaks all calls on the connection, and a busy machine may be slow to answer.
///
/// # Errors
/// `address` is not `HOST:PORT`.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(4))
        .keep_alive_while_idle(true))
}
