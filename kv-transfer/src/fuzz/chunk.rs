//! The headers of staged chunks, and where their units would be scattered.

use super::{Accepted, OURS, Refused, Verdict};
use crate::layout::Conversion;
use crate::plan::unit_tiles;
use crate::staging::{HEADER_BYTES, Header};

const TOKENS: u32 = 41;
const PAYLOAD_BYTES: u64 = 64 << 10;

pub(super) fn run(bytes: &[u8]) -> Verdict {
    let mut header = [0; HEADER_BYTES as usize];
    let len = bytes.len().min(header.len());
    header[..len].copy_from_slice(&bytes[..len]);
    let conversion = Conversion::between(OURS, OURS).expect("one layout");
    let (_, scatter) = conversion.staged(PAYLOAD_BYTES).expect("room for some");
    let (layers, units) = (OURS.layout.layers, conversion.units(TOKENS));
    let Ok(header) = Header::decode(&header, layers, units, scatter.source.blocks) else { return Refused };
    assert!(header.layer < layers && !header.units.is_empty());
    let blocks = OURS.layout.blocks_for(TOKENS);
    for (&unit, place) in header.units.iter().zip(0..) {
        for tile in unit_tiles(&scatter, (place, unit), |index| blocks - 1 - index, TOKENS) {
            let (source, destination) = tile.row(tile.rows() - 1);
            assert!(source + tile.len <= PAYLOAD_BYTES, "reads within the chunk");
            assert!(
                destination + tile.len <= u64::from(blocks) * OURS.layout.block_bytes(),
                "writes within its blocks"
            );
        }
    }
    Accepted
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let header = |layer, units: &[u32]| {
        let mut bytes = [0; HEADER_BYTES as usize];
        Header::encode(layer, units.iter().copied(), &mut bytes);
        bytes[..8 + 4 * units.len()].to_vec()
    };
    vec![("one", header(0, &[0])), ("some", header(1, &[0, 2, 1]))]
}
