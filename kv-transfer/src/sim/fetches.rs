//! The readers of pulls: they fetch, give up, call again, and check what they got and why they did not.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::Net;
use super::agents::Host;
use super::blocks::{Lease, Use};
use super::pulls::Pull;
use crate::{ExpectError, FetchError, Fetching, OpenError, TransferError};

/// Longer than a fetch takes, whatever happens.
const LONGEST: Duration = Duration::from_secs(10);
/// Who finds no room tries again for so long, in a crowd.
const PATIENCE: Duration = Duration::from_millis(300);

/// One who reads an offer.
pub(super) struct Reader {
    pub(super) net: Net,
    pub(super) host: Host,
    pub(super) pull: Arc<Pull>,
    /// The owner has all heads of this node.
    pub(super) covered: bool,
    pub(super) converted: bool,
    pub(super) random: SmallRng,
}

impl Reader {
    pub(super) async fn read(mut self, ticket: oneshot::Receiver<Vec<u8>>) {
        let Ok(ticket) = ticket.await else { return };
        for _ in 0..self.random.random_range(1..3) {
            sleep(self.milliseconds(60)).await;
            self.net.running(self.host.number).await;
            let blocks = self.host.layout.blocks_for(self.pull.tokens) as usize;
            let Some(lease) = self.host.blocks.take(blocks, &mut self.random) else {
                self.net.lock().seen.shortages += 1;
                continue;
            };
            lease.used_as(Use::Fetching(self.random.random()));
            self.net.lock().seen.fetches += 1;
            let patience = self.random.random_bool(0.2).then(|| self.milliseconds(150));
            if let Some(fetching) = self.start(&ticket, &lease, patience).await {
                self.finish(fetching, lease, patience).await;
            }
        }
    }

    fn milliseconds(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.random.random_range(0..below))
    }

    async fn start(&self, ticket: &[u8], lease: &Lease, patience: Option<Duration>) -> Option<Fetching> {
        let started = async {
            let give_up = Instant::now() + PATIENCE;
            loop {
                match self.host.node.fetch(ticket, &lease.ids).await {
                    Err(FetchError::Open(OpenError::Full { .. }))
                        if self.pull.crowd && Instant::now() < give_up =>
                    {
                        self.net.lock().seen.shortages += 1;
                        sleep(Duration::from_millis(5)).await;
                    }
                    started => return started,
                }
            }
        };
        match timeout(patience.unwrap_or(LONGEST), started).await {
            Ok(Ok(fetching)) => {
                if !self.covered {
                    self.violation("was started though its owner lacks heads");
                }
                Some(fetching)
            }
            Ok(Err(error)) => {
                self.refused(&error);
                None
            }
            Err(_) => {
                self.gives_up(patience);
                None
            }
        }
    }

    /// Why nothing was read.
    fn refused(&self, error: &FetchError) {
        self.note(&format!("refused: {error}"));
        let fair = match error {
            FetchError::Partial { .. } => !self.covered,
            FetchError::Open(OpenError::Full { .. }) => true,
            FetchError::Open(OpenError::StaleIncarnation { .. }) => {
                self.net.lock().seen.stale_incarnations += 1;
                !self.pull.kept
            }
            FetchError::Open(
                OpenError::Unreachable { .. } | OpenError::TimedOut { .. } | OpenError::ShuttingDown,
            ) => !self.pull.kept,
            FetchError::Open(OpenError::DataPlane(_)) | FetchError::Blocks(ExpectError::DataPlane(_)) => {
                self.pull.stuck
            }
            FetchError::Blocks(_) | FetchError::Open(_) => false,
        };
        if !fair {
            self.violation(&format!("was refused: {error:?}"));
        }
    }

    async fn finish(&mut self, mut fetching: Fetching, lease: Lease, patience: Option<Duration>) {
        // While it is under way nothing else may be received into its blocks.
        let expected = || {
            let (blocks, tokens) = (&lease.ids[..1], self.host.layout.block_tokens);
            self.host.node.expect(blocks, tokens, LONGEST).is_ok()
        };
        let tried = self.random.random_bool(0.2);
        let unclaimed = tried && expected();
        let mut verdict = timeout(patience.unwrap_or(LONGEST), fetching.wait()).await;
        if verdict.is_err() && self.random.random_bool(0.3) {
            self.note("called again");
            verdict = timeout(LONGEST, fetching.wait()).await;
        }
        self.net.running(self.host.number).await;
        match verdict {
            Ok(Ok(received)) => {
                self.note(&format!("fetched {received:?}"));
                if unclaimed {
                    self.violation("did not keep its blocks to itself");
                }
                self.right(&lease);
            }
            Ok(Err(error)) => {
                self.failed(&error);
                // Otherwise nothing writes the blocks any more.
                if error == TransferError::ShuttingDown && timeout(LONGEST, fetching.abort()).await.is_err() {
                    self.violation("is not quiet");
                }
            }
            Err(_) => {
                self.gives_up(patience);
                if self.random.random_bool(0.5) {
                    // The lease goes with it, and comes back when nobody writes any more.
                    fetching.hold(lease);
                } else if timeout(LONGEST, fetching.abort()).await.is_err() {
                    self.violation("is not quiet");
                }
            }
        }
    }

    fn right(&self, lease: &Lease) {
        if let Some(row) = lease.first_different(self.pull.tag, self.pull.tokens) {
            self.violation(&format!("is wrong at {row:?}"));
        }
        let seen = &mut self.net.lock().seen;
        seen.fetched += 1;
        seen.fetched_converted += usize::from(self.converted);
    }

    /// Why what was read is not used.
    fn failed(&self, error: &TransferError) {
        self.note(&format!("not fetched: {error}"));
        let fair = match error {
            TransferError::OfferGone { .. } => {
                self.net.lock().seen.offers_gone += 1;
                true
            }
            TransferError::PeerLost { .. } | TransferError::Write { .. } | TransferError::ShuttingDown => {
                true
            }
            TransferError::Checksum { .. } => self.pull.corrupted,
            TransferError::Overdue { .. } | TransferError::DataPlane(_) => self.pull.stuck,
            _ => false,
        };
        if !fair || self.pull.kept {
            self.violation(&format!("failed: {error:?}"));
        }
    }

    fn gives_up(&self, patience: Option<Duration>) {
        self.note("given up");
        if patience.is_none() {
            self.violation("takes too long");
        }
    }

    fn note(&self, what: &str) {
        self.net.note(|| format!("pull {} of node {}: {what}", self.pull.tag, self.host.number));
    }

    fn violation(&self, what: &str) {
        let Self { pull, host, net, .. } = self;
        net.lock().violations.push(format!("the fetch of pull {} by node {} {what}", pull.tag, host.number));
    }
}
