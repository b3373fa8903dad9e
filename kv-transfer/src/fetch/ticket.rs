//! What an owner hands out so that a reader can find its blocks.

use prost::Message;

use crate::ids::NodeId;
use crate::ticket::{bad, check_blocks, checksums_to_wire, decode, mode_from_wire, node_from_wire};
use crate::wire::GeometryWire;
use crate::{ChecksumMode, KvGeometry, OpenError};

const VERSION: u32 = 1;

/// A ticket, checked: its blocks are distinct and lie in the owner's pool, its geometry is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfferTicket {
    pub(crate) endpoint: String,
    pub(crate) node: NodeId,
    /// Known to whoever holds the ticket.
    pub(crate) id: u64,
    pub(crate) geometry: KvGeometry,
    pub(crate) model: String,
    pub(crate) tokens: u32,
    /// The least checksum mode that the owner wants.
    pub(crate) checksums: ChecksumMode,
    pub(crate) blocks: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfferTicketWire {
    /// Of pulls; a ticket for pushing has another number in this place.
    #[prost(uint32, tag = "16")]
    version: u32,
    #[prost(string, tag = "2")]
    endpoint: String,
    #[prost(bytes = "vec", tag = "3")]
    node: Vec<u8>,
    #[prost(fixed64, tag = "6")]
    id: u64,
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
}

impl OfferTicket {
    pub(crate) fn encode(&self) -> Vec<u8> {
        OfferTicketWire {
            version: VERSION,
            endpoint: self.endpoint.clone(),
            node: self.node.0.to_vec(),
            id: self.id,
            geometry: GeometryWire::from(&self.geometry),
            model: self.model.clone(),
            tokens: self.tokens,
            checksums: checksums_to_wire(self.checksums),
            blocks: self.blocks.clone(),
        }
        .encode_to_vec()
    }

    /// Reads a ticket that came by way of strangers.
    pub(crate) fn decode(bytes: &[u8], max_blocks: usize) -> Result<Self, OpenError> {
        let wire: OfferTicketWire = decode(bytes)?;
        if wire.version != VERSION {
            return Err(bad("it is not of an offer, or of another version".to_owned()));
        }
        let geometry = wire.geometry.checked().map_err(bad)?;
        check_blocks(&wire.blocks, wire.tokens, &geometry, max_blocks).map_err(bad)?;
        Ok(Self {
            endpoint: wire.endpoint,
            node: node_from_wire(&wire.node)?,
            id: wire.id,
            geometry,
            model: wire.model,
            tokens: wire.tokens,
            checksums: mode_from_wire(wire.checksums)?,
            blocks: wire.blocks,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket() -> OfferTicket {
        OfferTicket {
            endpoint: "tcp:127.0.0.1:1".to_owned(),
            node: NodeId([7; 16]),
            id: 11,
            geometry: KvGeometry::plain(2, 100, 4096),
            model: "model".to_owned(),
            tokens: 3,
            checksums: ChecksumMode::Sampled,
            blocks: vec![5, 9, 7],
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = OfferTicket::decode(&bytes, 100);
        }

        #[test]
        fn a_flipped_byte_gives_a_sound_ticket_or_an_error(at: prop::sample::Index, to: u8) {
            let mut bytes = ticket().encode();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(ticket) = OfferTicket::decode(&bytes, 100) {
                prop_assert!(ticket.blocks.iter().all(|&block| block < ticket.geometry.blocks));
                prop_assert_eq!(OfferTicket::decode(&ticket.encode(), 100), Ok(ticket));
            }
        }
    }

    #[test]
    fn one_kind_of_ticket_is_not_the_other() {
        assert_eq!(OfferTicket::decode(&ticket().encode(), 100), Ok(ticket()));
        crate::ticket::Ticket::decode(&ticket().encode(), 100).unwrap_err();
    }
}
