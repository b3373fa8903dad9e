//! The owner's side: which blocks may be read, and until when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::OfferTicket;
use crate::checksum::{Selection, hash_ranges};
use crate::control::Outbox;
use crate::layout::{Conversion, Side};
use crate::node::NodeInner;
use crate::offload;
use crate::ticket::{checksums_from_wire, checksums_to_wire};
use crate::wire::{Body, Confirm, Confirmed, OfferGone};
use crate::{ExpectError, TransferLimits};

/// Blocks that peers may read; made by [`TransferNode::offer`](crate::TransferNode::offer).
///
/// It ends when it is dropped, or at its time. The blocks are the owner's to reuse from then on, at once: a reader that is too
/// late learns so.
pub struct Offered {
    node: Arc<NodeInner>,
    ticket: OfferTicket,
}

impl Offered {
    pub(crate) fn new(node: Arc<NodeInner>, ticket: OfferTicket) -> Self {
        Self { node, ticket }
    }

    /// What readers need; opaque, to be carried to them by any way. Several may use it.
    #[must_use]
    pub fn ticket(&self) -> Vec<u8> {
        self.ticket.encode()
    }

    /// Extends the offer: it expires so long from now. `false` when it is over already.
    #[must_use = "an offer that is over is not renewed"]
    pub fn renew(&self, expires_in: Duration) -> bool {
        self.node.offers().renew(self.ticket.id, Instant::now() + expires_in)
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.node.offers().remove(self.ticket.id);
        self.node.counters().offers_live.sub(1);
    }
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("blocks", &self.ticket.blocks.len()).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Offer {
    blocks: Arc<[u32]>,
    tokens: u32,
    expires_at: Instant,
}

impl Offer {
    fn is_live(&self) -> bool {
        self.expires_at > Instant::now()
    }
}

/// Why an offer is not confirmed, mostly.
const OVER: &str = "it expired or was taken back";

/// All offers of a node.
#[derive(Debug, Default)]
pub(crate) struct Offers(Mutex<BTreeMap<u64, Offer>>);

impl Offers {
    pub(crate) fn insert(
        &self,
        id: u64,
        blocks: &[u32],
        tokens: u32,
        expires_in: Duration,
        limits: &TransferLimits,
    ) -> Result<(), ExpectError> {
        let mut offers = self.lock();
        if offers.len() >= limits.offers {
            return Err(ExpectError::Full { limit: limits.offers });
        }
        let offer = Offer { blocks: blocks.into(), tokens, expires_at: Instant::now() + expires_in };
        offers.insert(id, offer);
        Ok(())
    }

    fn renew(&self, id: u64, expires_at: Instant) -> bool {
        let mut offers = self.lock();
        let offer = offers.get_mut(&id).filter(|offer| offer.is_live());
        offer.map(|offer| offer.expires_at = expires_at).is_some()
    }

    fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    fn live(&self, id: u64) -> Option<Offer> {
        self.lock().get(&id).filter(|offer| offer.is_live()).cloned()
    }

    /// Answers a reader that has read: hashes what it may have read, and says so if the offer is live even after that.
    ///
    /// Answers leave in the order of their last looks at the offer. Of several readers of one offer behind one connection the
    /// first to ask takes the first answer, whomever it was meant for: so nobody gets one that is older than what it read.
    pub(crate) async fn confirm(
        node: Arc<NodeInner>,
        pair: Arc<Conversion>,
        confirm: Confirm,
        outbox: Outbox,
    ) {
        let hasher = node.clone();
        let hashed = offload::run(move || hasher.offers().hash(&hasher, &pair, &confirm)).await;
        let hashed = hashed.unwrap_or_else(|| Err("the owner shuts down".to_owned()));
        let offers = node.offers().lock();
        let live = offers.get(&confirm.id).is_some_and(Offer::is_live);
        let gone = |reason| Body::OfferGone(OfferGone { id: confirm.id, reason });
        outbox.send(match hashed {
            Ok(confirmed) if live => Body::Confirmed(confirmed),
            Ok(_) => gone(OVER.to_owned()),
            Err(reason) => gone(reason),
        });
    }

    /// `pair`: how the reader's KV would become ours.
    fn hash(&self, node: &NodeInner, pair: &Conversion, confirm: &Confirm) -> Result<Confirmed, String> {
        let conversion =
            Conversion::of_pull(pair.destination, pair.source).map_err(|differ| differ.to_string())?;
        let offer = self.live(confirm.id).ok_or(OVER)?;
        let asked = confirm.checksums.max(checksums_to_wire(node.checksums()));
        let mode = checksums_from_wire(asked).ok_or("unknown checksum mode")?;
        let (layers, units) = (conversion.source.layout.layers, conversion.units(offer.tokens));
        let hash = |(layer, unit)| {
            let block = |index: u32| offer.blocks[index as usize];
            hash_ranges(node.pool(), conversion.ranges(Side::Source, (layer, unit), offer.tokens, block))
        };
        let selection = Selection::new(mode, confirm.id, layers, units);
        let hashes = selection.iter().map(hash).flat_map(u64::to_le_bytes).collect();
        Ok(Confirmed { id: confirm.id, checksums: asked, hashes })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Offer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
