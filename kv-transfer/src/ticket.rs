//! What a receiver hands out so that a sender can find it, and may write these blocks once.

use std::time::Duration;

use prost::Message;

use crate::ids::{NodeId, TransferKey};
use crate::wire::GeometryWire;
use crate::{ChecksumMode, KvGeometry, OpenError};

/// Longest ticket that is looked at.
const MAX_TICKET_BYTES: usize = 4 << 20;
const VERSION: u32 = 2;

/// A ticket, checked: its blocks are distinct and lie in the receiver's pool, its geometry is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) endpoint: String,
    pub(crate) node: NodeId,
    pub(crate) key: TransferKey,
    /// Known to whoever holds the ticket; attaching needs it.
    pub(crate) secret: u64,
    pub(crate) geometry: KvGeometry,
    pub(crate) model: String,
    pub(crate) tokens: u32,
    /// The least checksum mode that the receiver accepts.
    pub(crate) checksums: ChecksumMode,
    pub(crate) blocks: Vec<u32>,
    pub(crate) expires_in: Duration,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TicketWire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(string, tag = "2")]
    endpoint: String,
    #[prost(bytes = "vec", tag = "3")]
    node: Vec<u8>,
    #[prost(uint32, tag = "4")]
    slot: u32,
    #[prost(uint32, tag = "5")]
    generation: u32,
    #[prost(fixed64, tag = "6")]
    secret: u64,
    #[prost(message, required, tag = "7")]
    geometry: GeometryWire,
    #[prost(string, tag = "8")]
    model: String,
    #[prost(uint32, tag = "9")]
    tokens: u32,
    #[prost(uint32, tag = "10")]
    checksums: u32,
    #[prost(uint32, repeated, tag = "11")]
    blocks: Vec<u32>,
    #[prost(uint64, tag = "12")]
    expires_in_ms: u64,
}

impl Ticket {
    pub(crate) fn encode(&self) -> Vec<u8> {
        TicketWire {
            version: VERSION,
            endpoint: self.endpoint.clone(),
            node: self.node.0.to_vec(),
            slot: self.key.slot.index() as u32,
            generation: self.key.generation.number(),
            secret: self.secret,
            geometry: GeometryWire::from(&self.geometry),
            model: self.model.clone(),
            tokens: self.tokens,
            checksums: checksums_to_wire(self.checksums),
            blocks: self.blocks.clone(),
            expires_in_ms: self.expires_in.as_millis() as u64,
        }
        .encode_to_vec()
    }

    /// Reads a ticket that came by way of strangers.
    pub(crate) fn decode(bytes: &[u8], max_blocks: usize) -> Result<Self, OpenError> {
        let wire: TicketWire = decode(bytes)?;
        if wire.version != VERSION {
            return Err(bad(format!("version {} where {VERSION} is spoken", wire.version)));
        }
        let geometry = wire.geometry.checked().map_err(bad)?;
        check_blocks(&wire.blocks, wire.tokens, &geometry, max_blocks).map_err(bad)?;
        Ok(Self {
            endpoint: wire.endpoint,
            node: node_from_wire(&wire.node)?,
            key: TransferKey::from_wire(wire.slot, wire.generation)
                .ok_or_else(|| bad(format!("slot {}.{} cannot exist", wire.slot, wire.generation)))?,
            secret: wire.secret,
            geometry,
            model: wire.model,
            tokens: wire.tokens,
            checksums: mode_from_wire(wire.checksums)?,
            blocks: wire.blocks,
            expires_in: Duration::from_millis(wire.expires_in_ms),
        })
    }
}

/// A ticket's message, of whichever kind.
pub(crate) fn decode<T: Message + Default>(bytes: &[u8]) -> Result<T, OpenError> {
    if bytes.len() > MAX_TICKET_BYTES {
        return Err(bad(format!("{} bytes are more than {MAX_TICKET_BYTES}", bytes.len())));
    }
    T::decode(bytes).map_err(|error| bad(error.to_string()))
}

pub(crate) fn bad(reason: String) -> OpenError {
    OpenError::BadTicket { reason }
}

pub(crate) fn node_from_wire(bytes: &[u8]) -> Result<NodeId, OpenError> {
    NodeId::from_wire(bytes).ok_or_else(|| bad("the node id is not 16 bytes".to_owned()))
}

pub(crate) fn mode_from_wire(word: u32) -> Result<ChecksumMode, OpenError> {
    checksums_from_wire(word).ok_or_else(|| bad(format!("unknown checksum mode {word}")))
}

/// Whether a sequence of `tokens` can lie in `blocks` of that pool.
pub(crate) fn check_blocks(
    blocks: &[u32],
    tokens: u32,
    geometry: &KvGeometry,
    max_blocks: usize,
) -> Result<(), String> {
    if blocks.is_empty() || blocks.len() > max_blocks {
        return Err(format!("{} blocks where 1 to {max_blocks} are allowed", blocks.len()));
    }
    check_distinct(blocks, geometry.blocks)?;
    if blocks.len() != geometry.layout.blocks_for(tokens) as usize {
        return Err(format!("{tokens} tokens do not fill {} blocks", blocks.len()));
    }
    Ok(())
}

fn check_distinct(blocks: &[u32], pool_blocks: u32) -> Result<(), String> {
    let mut sorted = blocks.to_vec();
    sorted.sort_unstable();
    if let Some(block) = sorted.last().filter(|&&block| block >= pool_blocks) {
        return Err(format!("block {block} is outside a pool of {pool_blocks}"));
    }
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("block {} is named twice", pair[0])),
        None => Ok(()),
    }
}

pub(crate) fn checksums_to_wire(mode: ChecksumMode) -> u32 {
    match mode {
        ChecksumMode::Off => 0,
        ChecksumMode::Sampled => 1,
        ChecksumMode::Full => 2,
    }
}

pub(crate) fn checksums_from_wire(word: u32) -> Option<ChecksumMode> {
    [ChecksumMode::Off, ChecksumMode::Sampled, ChecksumMode::Full].get(word as usize).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket(blocks: Vec<u32>) -> Ticket {
        Ticket {
            endpoint: "tcp:127.0.0.1:1".to_owned(),
            node: NodeId([7; 16]),
            key: TransferKey::from_wire(9, 10).unwrap(),
            secret: 11,
            geometry: KvGeometry::plain(2, 100, 4096),
            model: "model".to_owned(),
            tokens: blocks.len() as u32,
            checksums: ChecksumMode::Sampled,
            blocks,
            expires_in: Duration::from_millis(1500),
        }
    }

    proptest! {
        #[test]
        fn tickets_read_back_as_written(blocks in prop::collection::hash_set(0u32..100, 1..100)) {
            let ticket = ticket(blocks.into_iter().collect());
            prop_assert_eq!(Ticket::decode(&ticket.encode(), 100), Ok(ticket));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Ticket::decode(&bytes, 100);
        }

        #[test]
        fn a_flipped_byte_gives_a_valid_ticket_or_an_error(at: prop::sample::Index, to: u8) {
            let mut bytes = ticket(vec![5, 6, 7]).encode();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(ticket) = Ticket::decode(&bytes, 100) {
                prop_assert!(ticket.blocks.iter().all(|&block| block < ticket.geometry.blocks));
            }
        }
    }

    #[test]
    fn blocks_outside_twice_none_or_too_many_are_refused() {
        for blocks in [vec![], vec![1, 1], vec![100], (0..100).collect()] {
            assert!(matches!(Ticket::decode(&ticket(blocks).encode(), 99), Err(OpenError::BadTicket { .. })));
        }
    }
}
