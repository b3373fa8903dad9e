//! A pool's shape, and the verdict on exchanging KV with it.

use prost::Message;

use super::{Accepted, OURS, Refused, Verdict};
use crate::KvGeometry;
use crate::layout::{Conversion, Side};
use crate::wire::GeometryWire;

pub(super) fn run(bytes: &[u8]) -> Verdict {
    let Ok(wire) = GeometryWire::decode(bytes) else { return Refused };
    let Ok(geometry) = wire.checked() else { return Refused };
    let again = GeometryWire::decode(GeometryWire::from(&geometry).encode_to_vec().as_slice());
    assert_eq!(again.ok().and_then(|wire| wire.checked().ok()), Some(geometry), "reads back as written");
    within(&geometry);
    for (source, destination) in [(geometry, OURS), (OURS, geometry)] {
        if let Ok(conversion) = Conversion::between(source, destination) {
            convert(&conversion);
        }
    }
    Accepted
}

/// The first and the last piece lie in the pool.
fn within(geometry: &KvGeometry) {
    let layout = geometry.layout;
    let pool = geometry.pool_bytes();
    assert!(pool > 0 && isize::try_from(pool).is_ok(), "it could be mapped");
    assert!(!layout.heads().is_empty() && layout.heads().end <= layout.kv_heads);
    for (layer, block) in [(0, 0), (layout.layers - 1, geometry.blocks - 1)] {
        let mut bytes = 0;
        for piece in geometry.pieces(layer, block) {
            assert!(piece.start < piece.end && piece.end as u64 <= pool, "a piece is in the pool");
            bytes += piece.len() as u64;
        }
        assert_eq!(bytes, layout.block_bytes());
    }
}

/// A sequence that fills whatever is smaller: the two pools, or some tokens.
fn convert(conversion: &Conversion) {
    for side in [Side::Source, Side::Destination] {
        let held = conversion.geometry(side).layout.heads();
        let heads = &conversion.heads;
        assert!(heads.is_empty() || held.start <= heads.start && heads.end <= held.end, "heads are held");
    }
    assert!(conversion.senders > 0);
    if !conversion.is_needed() {
        return;
    }
    let tokens_of =
        |geometry: &KvGeometry| u64::from(geometry.blocks) * u64::from(geometry.layout.block_tokens);
    let tokens = tokens_of(&conversion.source).min(tokens_of(&conversion.destination)).min(1000) as u32;
    let last = (conversion.source.layout.layers - 1, conversion.units(tokens) - 1);
    let mut lengths = [0, 0];
    for (side, bytes) in [Side::Source, Side::Destination].into_iter().zip(&mut lengths) {
        let pool = conversion.geometry(side).pool_bytes();
        for range in conversion.ranges(side, last, tokens, |index| index) {
            assert!(range.end as u64 <= pool, "a row is in the pool");
            *bytes += range.len();
        }
    }
    assert!(lengths[0] == lengths[1] && lengths[0] > 0, "both sides hash the same bytes");
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let encode = |geometry| GeometryWire::from(&geometry).encode_to_vec();
    super::peers().into_iter().map(|(name, geometry)| (name, encode(geometry))).collect()
}
