//! Listening to a worker's publisher, and healing what was missed.
//!
//! ```text
//!   PUB ────► SUB [topic, number, batch] ──► Track: next?  ── yes ──► IndexHandle (bounded; waits) ──► the index's thread
//!   ROUTER ◄─ DEALER "from number n - 1" ◄── gap, restart, new connection
//! ```
//! A replay is asked for from the last batch that is known. If that comes back as it was, the numbers are those of the same life of the
//! worker and what follows is what was missed. If another batch has its number, or none, the worker has restarted and everything
//! is asked for. If the publisher has it no more, the worker's cache counts as empty, and is [`Health::Stale`] as long as it may
//! have blocks that nobody knows of.

mod replay;
mod status;
mod track;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, channel::mpsc as monitor};
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use zeromq::{Socket as _, SocketEvent, SocketRecv as _, SubSocket, ZmqError};

use crate::{
    WorkerId,
    indexer::{Command, Ended, IndexHandle},
    key,
};
use replay::{Replay, ReplayError, numbered};
use status::add;
pub use status::{Health, SubscriptionStats, WorkerStatus};
use track::{Live, Replayed, Track};

/// Between two tries to reach a publisher.
const RETRY: Duration = Duration::from_millis(500);
/// Replays in which a gap may turn up again, before it is taken for one that stays.
const REPLAYS: usize = 3;

/// Where a worker publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Events: `tcp://HOST:PORT`.
    pub events: String,
    /// Replays; without, whatever is missed is lost.
    pub replay: Option<String>,
    /// Beginning of the topics to listen to.
    pub topic: String,
}

/// Keeps the index up to date with one worker, which has been added to it.
pub struct Subscriber {
    worker: WorkerId,
    source: Source,
    index: IndexHandle,
    status: Arc<WorkerStatus>,
    track: Track,
    /// Whether blocks may be cached that nobody knows of.
    is_stale: bool,
}

/// Why a connection came to its end.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the publisher is not reached")]
    Socket(#[from] ZmqError),
    #[error("the publisher has closed the connection")]
    Closed,
    #[error(transparent)]
    Index(#[from] Ended),
}

/// What a replay came to.
enum Outcome {
    Done,
    Restarted,
}

impl Subscriber {
    /// For a worker that publishes there.
    pub fn new(worker: WorkerId, source: Source, index: IndexHandle) -> Self {
        let status = Arc::new(WorkerStatus::default());
        Self { worker, source, index, status, track: Track::default(), is_stale: false }
    }

    /// Its state, to look at from elsewhere.
    pub fn status(&self) -> Arc<WorkerStatus> {
        self.status.clone()
    }

    /// Listens until cancelled, or until the index ends.
    ///
    /// # Cancel safety
    /// Dropping it leaves the index with what was applied.
    pub async fn run(mut self, until: CancellationToken) {
        let listen = async {
            loop {
                let Err(lost) = self.connection().await;
                if let Lost::Index(_) = lost {
                    return;
                }
                tracing::debug!(worker = self.worker.0, source = %self.source.events, %lost, "trying again");
                self.track.disconnected();
                if self.mark(Health::Connecting).await.is_err() {
                    return;
                }
                sleep(RETRY).await;
            }
        };
        select! {
            () = listen => {}
            () = until.cancelled() => {}
        }
    }

    async fn connection(&mut self) -> Result<Infallible, Lost> {
        let mut socket = SubSocket::new();
        let mut events = socket.monitor();
        socket.subscribe(&self.source.topic).await?;
        socket.connect(&self.source.events).await?;
        // What was published before, or while nobody listened.
        self.catch_up().await?;
        loop {
            let message = select! {
                biased;
                message = socket.recv() => message?,
                () = disconnected(&mut events) => return Err(Lost::Closed),
            };
            match numbered(&message) {
                Some((number, payload)) => self.hear(number, payload).await?,
                None => tracing::debug!(worker = self.worker.0, "a message that is no batch of KV events"),
            }
        }
    }

    /// A batch that was published just now.
    async fn hear(&mut self, number: u64, payload: Bytes) -> Result<(), Ended> {
        let mut live = self.track.live(number);
        if live == Live::Restart {
            self.restart().await?;
            live = self.track.live(number);
        }
        for _ in 0..REPLAYS {
            if live != Live::Gap || self.source.replay.is_none() {
                break;
            }
            add(&self.status.counts.gaps, 1);
            self.catch_up().await?;
            live = self.track.after_replay(number);
        }
        match live {
            Live::Known => Ok(()),
            Live::Next => self.apply(number, payload).await,
            Live::Gap | Live::Restart => {
                self.lose_before(number).await?;
                self.apply(number, payload).await
            }
        }
    }

    /// Asks for what was missed, and applies it.
    async fn catch_up(&mut self) -> Result<(), Ended> {
        self.mark(Health::CatchingUp).await?;
        if !self.replays().await? {
            // If it has published nothing yet, its first batch will say so.
            self.is_stale = true;
            if self.track.needs_proof() {
                add(&self.status.counts.resyncs, 1);
                self.track.restarted();
                self.clear().await?;
            }
        }
        self.mark(if self.is_stale { Health::Stale } else { Health::Live }).await
    }

    /// Whether there is a replay to be had.
    async fn replays(&mut self) -> Result<bool, Ended> {
        let Some(url) = self.source.replay.clone() else { return Ok(false) };
        for _ in 0..REPLAYS {
            match self.replay(&url).await? {
                Ok(Outcome::Done) => return Ok(true),
                Ok(Outcome::Restarted) => self.restart().await?,
                Err(error) => {
                    tracing::debug!(worker = self.worker.0, %error, "a replay of KV events failed");
                    sleep(RETRY).await;
                }
            }
        }
        Ok(false)
    }

    async fn replay(&mut self, url: &str) -> Result<Result<Outcome, ReplayError>, Ended> {
        let mut replay = match Replay::ask(url, self.track.ask_from()).await {
            Ok(replay) => replay,
            Err(error) => return Ok(Err(error)),
        };
        let mut is_first = true;
        loop {
            let (number, payload) = match replay.next().await {
                Ok(Some(batch)) => batch,
                // It has not even the last one that was heard.
                Ok(None) if is_first && self.track.needs_proof() => return Ok(Ok(Outcome::Restarted)),
                Ok(None) => return Ok(Ok(Outcome::Done)),
                Err(error) => return Ok(Err(error)),
            };
            match self.track.replayed(number, key::text(&payload), is_first) {
                Replayed::Proof => {}
                Replayed::Restart => return Ok(Ok(Outcome::Restarted)),
                Replayed::Next => self.apply(number, payload).await?,
                Replayed::Hole => {
                    self.lose_before(number).await?;
                    self.apply(number, payload).await?;
                }
            }
            is_first = false;
        }
    }

    async fn apply(&mut self, number: u64, payload: Bytes) -> Result<(), Ended> {
        if number == 0 {
            // Nothing was before it.
            self.is_stale = false;
            self.mark(Health::Live).await?;
        }
        self.track.applied(number, key::text(&payload));
        self.index.batch(self.worker, payload, self.status.clone()).await
    }

    /// The worker has begun another life, with nothing cached.
    async fn restart(&mut self) -> Result<(), Ended> {
        add(&self.status.counts.restarts, 1);
        tracing::info!(worker = self.worker.0, "the worker has restarted: its cache counts as empty");
        self.track.restarted();
        self.is_stale = false;
        self.clear().await
    }

    /// What was before batch `number` cannot be had any more.
    async fn lose_before(&mut self, number: u64) -> Result<(), Ended> {
        add(&self.status.counts.resyncs, 1);
        tracing::info!(
            worker = self.worker.0,
            number,
            "KV events were lost: the worker's cache counts as empty"
        );
        self.track.give_up_before(number);
        self.is_stale = true;
        self.clear().await?;
        self.mark(Health::Stale).await
    }

    async fn clear(&self) -> Result<(), Ended> {
        self.index.clear(self.worker).await
    }

    /// In order with what is applied.
    async fn mark(&self, health: Health) -> Result<(), Ended> {
        self.index.send(Command::Mark { status: self.status.clone(), health }).await
    }
}

/// Returns when the publisher has left.
async fn disconnected(events: &mut monitor::Receiver<SocketEvent>) {
    loop {
        match events.next().await {
            Some(SocketEvent::Disconnected(_)) => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}
