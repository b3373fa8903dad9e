//! Tickets of offers, and what a reader works out from one before it reads.

use super::{Accepted, OURS, Refused, Verdict};
use crate::fetch::OfferTicket;
use crate::layout::Conversion;
use crate::plan::Plan;

const MAX_BLOCKS: usize = 512;

pub(super) fn run(bytes: &[u8]) -> Verdict {
    let Ok(ticket) = OfferTicket::decode(bytes, MAX_BLOCKS) else { return Refused };
    let again = OfferTicket::decode(&ticket.encode(), MAX_BLOCKS);
    assert_eq!(again.as_ref(), Ok(&ticket), "reads back as written");
    assert!(ticket.blocks.iter().all(|&block| block < ticket.geometry.blocks), "in the owner's pool");
    if let Ok(conversion) = Conversion::between(ticket.geometry, OURS)
        && OURS.layout.blocks_for(ticket.tokens) <= OURS.blocks
        && conversion.heads == OURS.layout.heads()
    {
        read(&conversion, &ticket);
    }
    Accepted
}

/// As `fetch` does, into blocks from the first on.
fn read(conversion: &Conversion, ticket: &OfferTicket) {
    let blocks: Vec<u32> = (0..OURS.layout.blocks_for(ticket.tokens)).collect();
    let pairs: Vec<(u32, u32)> = ticket.blocks.iter().copied().zip(0..).collect();
    let plan = Plan::new(conversion, &pairs, &blocks, ticket.tokens);
    for tile in plan.tiles() {
        let (source, destination) = tile.row(tile.rows() - 1);
        for start in [tile.source, source] {
            assert!(start + tile.len <= ticket.geometry.layer_bytes(), "reads within the owner's pool");
        }
        for start in [tile.destination, destination] {
            assert!(start + tile.len <= OURS.layer_bytes(), "writes within ours");
        }
    }
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use crate::ChecksumMode;
    use crate::ids::NodeId;

    let ticket = |geometry: crate::KvGeometry| OfferTicket {
        endpoint: "tcp:127.0.0.1:40000".to_owned(),
        node: NodeId([7; 16]),
        id: 11,
        geometry,
        model: "model".to_owned(),
        tokens: 41,
        checksums: ChecksumMode::Sampled,
        blocks: (0..geometry.layout.blocks_for(41)).map(|index| 50 - index).collect(),
    };
    super::peers().into_iter().map(|(name, geometry)| (name, ticket(geometry).encode())).collect()
}
