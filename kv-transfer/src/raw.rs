//! A fabric with nothing on top: the limit that the transfer protocol is measured against.

use crate::fabric::{Event, Fabric, Offer, Read, Write};
use crate::ids::PeerId;
use crate::node::open_fabric;
use crate::{FabricError, PoolMemory, StartError, TransferConfig};

/// One end of a stream of one-sided writes or reads: no tickets, no counting, no checks. Not for shm, whose offers are descriptors.
pub struct RawFabric {
    fabric: Box<dyn Fabric>,
    pool: PoolMemory,
    events: Vec<Event>,
    target: Option<PeerId>,
}

impl RawFabric {
    /// Opens the configured fabric over a pool of its own.
    ///
    /// # Errors
    /// As [`TransferNode::start`](crate::TransferNode::start).
    pub async fn open(config: &TransferConfig) -> Result<Self, StartError> {
        let (fabric, pool) = open_fabric(config).await?;
        Ok(Self { fabric, pool, events: Vec::with_capacity(1024), target: None })
    }

    /// What the peer that receives must know.
    #[must_use]
    pub fn address(&self) -> Vec<u8> {
        self.fabric.address()
    }

    /// Lets the peer at `address` write here; returns what it needs.
    ///
    /// # Errors
    /// An address that the fabric cannot use, or a fabric whose offers are more than bytes.
    pub fn accept(&mut self, address: &[u8]) -> Result<Vec<u8>, FabricError> {
        let (_, offer) = self.fabric.accept(address)?;
        if offer.descriptors.is_empty() { Ok(offer.bytes) } else { Err(self.fault("offers are descriptors")) }
    }

    /// Writes go to the pool behind `offer` from here on.
    ///
    /// # Errors
    /// An offer that the fabric cannot use.
    pub fn connect(&mut self, offer: Vec<u8>) -> Result<(), FabricError> {
        let offer = Offer { bytes: offer, descriptors: Vec::new() };
        self.target = Some(self.fabric.connect(offer, self.pool.region().len() as u64)?);
        Ok(())
    }

    /// Writes that [`write`](Self::write) makes of `ranges`.
    #[must_use]
    pub fn count(&self, ranges: &[(u64, u64, u64)]) -> u32 {
        let step = self.fabric.capabilities().max_write_bytes;
        ranges.iter().map(|&(_, _, bytes)| bytes.div_ceil(step) as u32).sum()
    }

    /// Writes `(source, destination, bytes)`, each within both pools, as fast as the fabric takes them; returns
    /// when the last has completed here.
    ///
    /// # Errors
    /// No connection, or a failed write.
    pub fn write(&mut self, ranges: &[(u64, u64, u64)]) -> Result<(), FabricError> {
        self.stream(ranges, |fabric, peer, (source, destination, len), context| {
            fabric.post_write(&Write::contiguous(peer, source, destination, len, context))
        })
    }

    /// Reads `(source, destination, bytes)`: from the peer's pool into ours.
    ///
    /// # Errors
    /// No connection, or a failed read.
    pub fn read(&mut self, ranges: &[(u64, u64, u64)]) -> Result<(), FabricError> {
        self.stream(ranges, |fabric, peer, (source, destination, len), context| {
            fabric.post_read(&Read { peer, source, destination, len, context })
        })
    }

    fn stream(
        &mut self,
        ranges: &[(u64, u64, u64)],
        post: impl Fn(&mut dyn Fabric, PeerId, (u64, u64, u64), u32) -> Result<bool, FabricError>,
    ) -> Result<(), FabricError> {
        let Some(peer) = self.target else { return Err(self.fault("not connected")) };
        let capabilities = self.fabric.capabilities();
        let mut pieces = ranges.iter().flat_map(|&(source, destination, bytes)| {
            let step = capabilities.max_write_bytes;
            (0..bytes)
                .step_by(step as usize)
                .map(move |at| (source + at, destination + at, step.min(bytes - at)))
        });
        let mut free: Vec<u32> = (0..capabilities.max_in_flight as u32).collect();
        let mut next = pieces.next();
        while next.is_some() || free.len() < capabilities.max_in_flight {
            while let (Some(piece), Some(&context)) = (next, free.last()) {
                if !post(self.fabric.as_mut(), peer, piece, context)? {
                    break;
                }
                free.pop();
                next = pieces.next();
            }
            self.fabric.flush();
            self.fabric.poll(&mut self.events)?;
            for event in self.events.drain(..) {
                match event {
                    Event::Done(context) => free.push(context),
                    Event::Failed(_, reason) | Event::Again(_, reason) => {
                        return Err(FabricError { fabric: "raw", operation: "stream", reason });
                    }
                    Event::Landed { .. } | Event::Fault { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// Returns when `writes` have landed here.
    ///
    /// # Errors
    /// The fabric's.
    pub fn receive(&mut self, writes: u32) -> Result<(), FabricError> {
        let mut landed = 0;
        while landed < writes {
            self.fabric.poll(&mut self.events)?;
            let arrivals = self.events.drain(..).filter(|event| matches!(event, Event::Landed { .. }));
            landed += arrivals.count() as u32;
        }
        Ok(())
    }

    fn fault(&self, reason: &str) -> FabricError {
        FabricError { fabric: self.fabric.capabilities().name, operation: "raw", reason: reason.to_owned() }
    }
}
