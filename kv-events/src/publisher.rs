//! From events to sockets.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, channel::mpsc as monitor};
use tokio::{select, sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use zeromq::{
    Endpoint as Bound, Host, PubSocket, RouterSocket, Socket, SocketEvent, SocketSend as _, ZmqError,
    ZmqMessage,
};

use crate::{Endpoint, EventSender, EventStats, Format, encode, history::History, replay, sender::Batch};

/// Between two tries to reach a router.
const RETRY: Duration = Duration::from_secs(1);

/// What is published where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where events go.
    pub endpoint: Endpoint,
    /// Where replays are asked for.
    pub replay_endpoint: Option<Endpoint>,
    /// First frame of each message, which subscribers select by.
    pub topic: String,
    /// Encoding of batches.
    pub format: Format,
    /// Batches kept for replays.
    pub replay_batches: usize,
}

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {endpoint} for KV events")]
pub struct StartError {
    endpoint: Endpoint,
    #[source]
    source: ZmqError,
}

/// Publishes what an [`EventSender`] sends.
pub struct Publisher {
    socket: PubSocket,
    router: Option<Endpoint>,
    replay: Option<RouterSocket>,
    batches: mpsc::Receiver<Batch>,
    outlet: Outlet,
    addresses: Vec<(&'static str, SocketAddr)>,
}

/// What every batch passes.
struct Outlet {
    history: Mutex<History>,
    topic: Bytes,
    format: Format,
    stats: EventStats,
}

impl Publisher {
    /// Opens the sockets that listen.
    ///
    /// # Errors
    /// One cannot be had.
    pub async fn start(settings: Settings) -> Result<(Self, EventSender), StartError> {
        let Settings { endpoint, replay_endpoint, topic, format, replay_batches } = settings;
        let mut addresses = Vec::new();
        let mut socket = PubSocket::new();
        if endpoint.listens {
            addresses.extend(listen(&mut socket, &endpoint).await?.map(|address| ("kv-events", address)));
        }
        let replay = match replay_endpoint {
            None => None,
            Some(endpoint) => {
                let mut replay = RouterSocket::new();
                let address = listen(&mut replay, &endpoint).await?;
                addresses.extend(address.map(|address| ("kv-events-replay", address)));
                Some(replay)
            }
        };
        let stats = EventStats::default();
        let (sender, batches) = EventSender::new(stats.clone());
        let history = Mutex::new(History::of(replay_batches));
        let outlet = Outlet { history, topic: topic.into(), format, stats };
        let router = (!endpoint.listens).then_some(endpoint);
        Ok((Self { socket, router, replay, batches, outlet, addresses }, sender))
    }

    /// Where it listens, by what for.
    pub fn addresses(&self) -> &[(&'static str, SocketAddr)] {
        &self.addresses
    }

    /// What it has done.
    pub fn stats(&self) -> EventStats {
        self.outlet.stats.clone()
    }

    /// Publishes until the sender is dropped, or `until` is cancelled.
    pub async fn run(self, until: CancellationToken) {
        let Self { socket, router, replay, batches, outlet, addresses: _ } = self;
        let replays = async {
            if let Some(replay) = replay {
                replay::serve(replay, &outlet.history, &outlet.stats).await;
            }
            std::future::pending::<()>().await;
        };
        select! {
            () = outlet.publish(socket, router, batches) => {}
            () = replays => {}
            () = until.cancelled() => {}
        }
    }
}

impl Outlet {
    /// To those who subscribe here, or to a router that is called, and called again when it was lost.
    async fn publish(
        &self,
        mut socket: PubSocket,
        router: Option<Endpoint>,
        mut batches: mpsc::Receiver<Batch>,
    ) {
        let mut events = socket.monitor();
        if let Some(router) = &router
            && !self.connect(&mut socket, router, &mut batches).await
        {
            return;
        }
        loop {
            select! {
                biased;
                batch = batches.recv() => {
                    let Some(batch) = batch else { return };
                    // A subscriber that is too slow loses messages, and can ask for them.
                    if let Err(error) = socket.send(self.message(batch)).await {
                        tracing::warn!(%error, "KV events were not published");
                    }
                    self.stats.counts.published.fetch_add(1, Ordering::Relaxed);
                }
                () = disconnected(&mut events) => {
                    if let Some(router) = &router
                        && !self.connect(&mut socket, router, &mut batches).await
                    {
                        return;
                    }
                }
            }
        }
    }

    /// Keeps what happens meanwhile for replays; whether there is anything left to publish.
    async fn connect(
        &self,
        socket: &mut PubSocket,
        router: &Endpoint,
        batches: &mut mpsc::Receiver<Batch>,
    ) -> bool {
        let url = router.url();
        let connected = async {
            while let Err(error) = socket.connect(&url).await {
                tracing::debug!(%router, %error, "the router of KV events cannot be reached");
                sleep(RETRY).await;
            }
        };
        let mut connected = Box::pin(connected);
        loop {
            select! {
                () = &mut connected => {
                    tracing::info!(%router, "KV events go to this router");
                    return true;
                }
                batch = batches.recv() => match batch {
                    Some(batch) => drop(self.message(batch)),
                    None => return false,
                },
            }
        }
    }

    /// `[topic, number, batch]`, also kept for replays.
    fn message(&self, batch: Batch) -> ZmqMessage {
        let Batch { number, timestamp, events } = batch;
        let payload = Bytes::from(encode::batch(timestamp, &events, self.format));
        self.history.lock().unwrap_or_else(PoisonError::into_inner).push(number, payload.clone());
        let mut message = ZmqMessage::from(self.topic.clone());
        message.push_back(Bytes::copy_from_slice(&number.to_be_bytes()));
        message.push_back(payload);
        message
    }
}

/// Returns when a peer has left.
async fn disconnected(events: &mut monitor::Receiver<SocketEvent>) {
    loop {
        match events.next().await {
            Some(SocketEvent::Disconnected(_)) => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

async fn listen(socket: &mut impl Socket, endpoint: &Endpoint) -> Result<Option<SocketAddr>, StartError> {
    let failed = |source| StartError { endpoint: endpoint.clone(), source };
    Ok(match socket.bind(&endpoint.url()).await.map_err(failed)? {
        Bound::Tcp(Host::Ipv4(ip), port) => Some((ip, port).into()),
        Bound::Tcp(Host::Ipv6(ip), port) => Some((ip, port).into()),
        _ => None,
    })
}
