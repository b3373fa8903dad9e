//! Writes and reads that do not come back although their peer's connection lives.
//!
//! ```text
//!  under way ──overdue──► given up: transfers fail, connection ended, data path ended ──drain──► the data plane fails
//!                          │ all came back                                                        (the fabric goes)
//!                          ▼
//!                         the peer is forgotten, memory goes back to its owners
//! ```
//! Nobody can know whether a network adapter still reads the source of such a write, or a peer writes the destination of such a
//! read. So its memory goes back only when the fabric told its end, or when there is no fabric any more. (What was under way to a
//! peer whose process is gone is another matter; see `lost.rs`.)

use std::collections::BTreeMap;
use std::time::Duration;

use super::DataPlane;
use crate::engine::Sending;
use crate::ids::PeerId;
use crate::own_time::STEP;
use crate::{FabricError, TransferError};

impl DataPlane {
    /// Looks, now and then, for what is under way for too long. Fails when giving it up did not bring it back.
    pub(super) fn watch(&mut self) -> Result<bool, FabricError> {
        let now = self.time.ran();
        if self.in_flight.count == 0 || now < self.look_at {
            return Ok(false);
        }
        self.look_at = now + self.look_after();
        let given_up = self.targets.values().filter_map(|target| Some((target.given_up?, target.in_flight)));
        let stuck: usize = given_up.filter(|&(until, _)| until <= now).map(|(_, in_flight)| in_flight).sum();
        if stuck > 0 {
            return Err(self.stuck(stuck));
        }
        let overdue = self.overdue(now);
        overdue.iter().for_each(|(&peer, &count)| self.give_up_peer(peer, count));
        Ok(!overdue.is_empty())
    }

    /// How often it looks.
    pub(super) fn look_after(&self) -> Duration {
        (self.limits.overdue / 4).min(STEP)
    }

    /// How many are overdue, by peers that are not given up or dead already.
    fn overdue(&self, now: Duration) -> BTreeMap<PeerId, u64> {
        let mut overdue = BTreeMap::new();
        let limit = self.limits.overdue;
        for flying in self.in_flight.entries.iter().flatten() {
            let watched = || {
                let target = self.targets.get(&flying.peer);
                target.is_some_and(|target| target.lost.is_none() && target.given_up.is_none())
            };
            if now.saturating_sub(flying.posted) >= limit && watched() {
                *overdue.entry(flying.peer).or_default() += 1;
            }
        }
        overdue
    }

    fn give_up_peer(&mut self, peer: PeerId, overdue: u64) {
        let Some(target) = self.targets.get_mut(&peer) else { return };
        let after = self.limits.overdue;
        target.given_up = Some(self.time.ran() + self.limits.drain);
        let in_flight = target.in_flight;
        self.counters.overdue_writes.add(overdue);
        tracing::warn!(
            peer = peer.0,
            overdue,
            in_flight,
            ?after,
            "writes did not come back: the peer is given up"
        );
        let error = |sending: &Sending| TransferError::Overdue { peer: sending.cell.endpoint.clone(), after };
        self.end_all(|sending| sending.peer() == peer, error);
        self.fabric.sever(peer);
        self.peers.hang_up(peer);
    }

    fn stuck(&self, count: usize) -> FabricError {
        let (overdue, drain) = (self.limits.overdue, self.limits.drain);
        let reason = format!(
            "{count} writes or reads did not come back within {overdue:?}, nor within {drain:?} after their connection was \
             ended; they may still touch memory here"
        );
        FabricError { fabric: self.capabilities.name, operation: "complete what is under way", reason }
    }
}
