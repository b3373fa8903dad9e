//! Tickets, and everything that a sender works out from one before it asks the receiver.

use std::collections::BTreeSet;

use super::{Accepted, OURS, Refused, Verdict};
use crate::ChecksumMode;
use crate::checksum::Selection;
use crate::coverage::Coverage;
use crate::layout::Conversion;
use crate::plan::Plan;
use crate::send::convert;
use crate::ticket::Ticket;

const MAX_BLOCKS: usize = 512;

pub(super) fn run(bytes: &[u8]) -> Verdict {
    let Ok(ticket) = Ticket::decode(bytes, MAX_BLOCKS) else { return Refused };
    assert_eq!(Ticket::decode(&ticket.encode(), MAX_BLOCKS).as_ref(), Ok(&ticket), "reads back as written");
    assert_eq!(ticket.geometry.validate(), Ok(()));
    let distinct: BTreeSet<u32> = ticket.blocks.iter().copied().collect();
    assert_eq!(distinct.len(), ticket.blocks.len(), "each block once");
    assert!(distinct.iter().all(|&block| block < ticket.geometry.blocks), "in the pool");
    assert!((1..=MAX_BLOCKS).contains(&ticket.blocks.len()));
    if let Ok(conversion) = convert(OURS, &ticket) {
        let ours = OURS.blocks;
        assert!(
            conversion.units(ticket.tokens) <= ours,
            "no more than this pool could ever hold: {ticket:?}"
        );
        send(&conversion, &ticket);
    }
    Accepted
}

/// As `open` and `push` do, of the whole sequence.
fn send(conversion: &Conversion, ticket: &Ticket) {
    let (layers, units) = (OURS.layout.layers, conversion.units(ticket.tokens));
    let coverage = Coverage::new(layers, units);
    assert_eq!(coverage.first_missing(), Some((0, 0)));
    let selection = Selection::new(ChecksumMode::Full, ticket.secret, layers, units);
    assert_eq!(selection.len(), layers as usize * units as usize);
    let sampled = Selection::new(ChecksumMode::Sampled, ticket.secret, layers, units);
    assert!(sampled.iter().all(|(layer, unit)| layer < layers && unit < units));
    let pairs: Vec<(u32, u32)> = (0..units).map(|unit| (unit, unit)).collect();
    let plan = Plan::new(conversion, &pairs, &ticket.blocks, ticket.tokens);
    let mut bytes = 0;
    for tile in plan.tiles() {
        bytes += tile.bytes();
        let (source, destination) = tile.row(tile.rows() - 1);
        for start in [tile.source, source] {
            assert!(start + tile.len <= OURS.layer_bytes(), "reads within our pool");
        }
        for start in [tile.destination, destination] {
            assert!(start + tile.len <= ticket.geometry.layer_bytes(), "writes within the peer's");
        }
    }
    assert_eq!(bytes * u64::from(layers), conversion.bytes(ticket.tokens), "what the manifest will say");
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use std::time::Duration;

    use crate::ids::{NodeId, TransferKey};

    let ticket = |geometry: crate::KvGeometry, tokens| Ticket {
        endpoint: "tcp:127.0.0.1:40000".to_owned(),
        node: NodeId([7; 16]),
        key: TransferKey::from_wire(9, 10).expect("a key"),
        secret: 11,
        geometry,
        model: "model".to_owned(),
        tokens,
        checksums: ChecksumMode::Sampled,
        blocks: (0..geometry.layout.blocks_for(tokens)).map(|index| 50 - index).collect(),
        expires_in: Duration::from_millis(1500),
    };
    let usual = super::peers().into_iter().map(|(name, geometry)| (name, ticket(geometry, 41).encode()));
    // A pool that could be, of blocks so large that they hold more tokens than any sender has.
    let huge = crate::KvLayout { block_tokens: 1 << 30, ..OURS.layout };
    let huge = ticket(crate::KvGeometry { layout: huge, blocks: 60 }, u32::MAX - 5);
    usual.chain([("huge_blocks", huge.encode())]).collect()
}
