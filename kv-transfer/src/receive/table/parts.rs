//! What one sender contributes to a transfer.

use std::sync::Arc;

use super::staging::Staged;
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
    /// Of a sender whose writes are all of chunks.
    pub(super) staged: Option<Staged>,
    pub(super) arrived: Tally,
    pub(super) manifest: Option<CheckedManifest>,
    /// What it announced, while that does not hold.
    pub(super) recalled: Option<CheckedManifest>,
    /// Which writes it made in all, once known: from its manifest or its withdrawal.
    pub(super) announced: Option<Tally>,
    /// Writes of it failed on their way, and may land yet.
    pub(super) uncertain: bool,
    /// It said that it writes no more.
    pub(super) withdrawn: bool,
    /// Its process is gone.
    pub(super) dead: bool,
    /// The data thread was told to drain it.
    pub(super) draining: bool,
    /// Nothing of it can arrive any more.
    pub(super) quiet: bool,
}

impl Part {
    pub(super) fn new(
        sender: PeerId,
        arrivals: TransferKey,
        conversion: Arc<Conversion>,
        staged: bool,
    ) -> Self {
        Self {
            sender,
            arrivals,
            conversion,
            staged: staged.then(Staged::default),
            arrived: Tally::default(),
            manifest: None,
            recalled: None,
            announced: None,
            uncertain: false,
            withdrawn: false,
            dead: false,
            draining: false,
            quiet: false,
        }
    }

    /// Nothing of it can arrive any more, and nothing that arrived is on its way to the blocks.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet && self.is_scattered()
    }

    /// No chunk of it is on its way to the blocks.
    fn is_scattered(&self) -> bool {
        self.staged.as_ref().is_none_or(|staged| staged.scattering == 0)
    }

    /// Everything that it announced is here, each once; of doubtful writes, what will ever come.
    pub(super) fn is_whole(&self) -> bool {
        let Some(manifest) = &self.manifest else { return false };
        let all = manifest.writes == self.arrived;
        // A write that came twice may stand for one that is not in the blocks yet.
        self.is_scattered() && (all || self.is_settled() && manifest.allows(self.arrived))
    }

    /// As many writes as it announced are here, or more, and they are not the same ones; or fewer will ever be.
    pub(super) fn is_wrong(&self) -> bool {
        let Some(manifest) = &self.manifest else { return false };
        let different = manifest.writes.writes <= self.arrived.writes && manifest.writes != self.arrived;
        different || self.is_scattered() && self.is_settled() && !manifest.allows(self.arrived)
    }

    /// It writes no more, as it said with its manifest; some of what it wrote may be on its way.
    pub(super) fn has_announced(&self) -> bool {
        self.uncertain && self.announced.is_some()
    }

    /// Writes of it failed on their way, and none can land any more.
    fn is_settled(&self) -> bool {
        self.quiet && self.uncertain
    }
}
