//! What one sender contributes to a transfer.

use std::sync::Arc;

use tokio::time::Instant;

use crate::ids::{PeerId, TransferKey};
use crate::layout::Conversion;
use crate::receive::CheckedManifest;
use crate::tally::Tally;

/// A sender that was let in, and what came of it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) sender: PeerId,
    /// The slot and generation under which its writes are counted.
    pub(super) arrivals: TransferKey,
    pub(super) conversion: Arc<Conversion>,
    pub(super) arrived: Tally,
    pub(super) manifest: Option<CheckedManifest>,
    /// Which writes it made in all, once known: from its manifest or its withdrawal.
    pub(super) announced: Option<Tally>,
    /// It said that it writes no more.
    pub(super) withdrawn: bool,
    /// What it wrote is here, or lost, from then on.
    pub(super) quiet_at: Option<Instant>,
    /// Nothing of it can arrive any more.
    pub(super) quiet: bool,
}

impl Part {
    pub(super) fn new(sender: PeerId, arrivals: TransferKey, conversion: Arc<Conversion>) -> Self {
        Self {
            sender,
            arrivals,
            conversion,
            arrived: Tally::default(),
            manifest: None,
            announced: None,
            withdrawn: false,
            quiet_at: None,
            quiet: false,
        }
    }

    /// Everything that it announced is here, each once.
    pub(super) fn is_whole(&self) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.writes == self.arrived)
    }

    /// As many writes as it announced are here, or more, and they are not the same ones.
    pub(super) fn is_wrong(&self) -> bool {
        let announced = self.manifest.as_ref().map(|manifest| manifest.writes);
        announced
            .is_some_and(|announced| announced.writes <= self.arrived.writes && announced != self.arrived)
    }
}
