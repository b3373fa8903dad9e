//! Manifests from a sender of any shape, checked against what a receiver of ours asked for.

use std::sync::Arc;

use prost::Message;

use super::{Accepted, OURS, Refused, Verdict};
use crate::TransferError;
use crate::layout::{Conversion, Side};
use crate::receive::{CheckedManifest, Wanted};
use crate::ticket::checksums_from_wire;
use crate::wire::{GeometryWire, Manifest};

/// What the sender says, and what was asked for.
#[derive(Clone, PartialEq, prost::Message)]
struct Input {
    #[prost(message, required, tag = "1")]
    sender: GeometryWire,
    #[prost(message, required, tag = "2")]
    manifest: Manifest,
    #[prost(uint32, tag = "3")]
    tokens: u32,
    #[prost(uint32, tag = "4")]
    checksums: u32,
    #[prost(fixed64, tag = "5")]
    seed: u64,
}

pub(super) fn run(bytes: &[u8]) -> Verdict {
    let Ok(Input { sender, manifest, tokens, checksums, seed }) = Input::decode(bytes) else {
        return Refused;
    };
    let Ok(sender) = sender.checked() else { return Refused };
    let Ok(conversion) = Conversion::between(sender, OURS) else { return Refused };
    // The receiver's own numbers are sound.
    let tokens = 1 + tokens % (OURS.blocks * OURS.layout.block_tokens);
    let checksums = checksums_from_wire(checksums % 3).unwrap_or_default();
    if !conversion.is_needed() {
        return Refused;
    }
    let wanted = Wanted { conversion: Arc::new(conversion), tokens, checksums, seed };
    match CheckedManifest::check(&manifest, &wanted) {
        Ok(checked) => {
            verify(&checked, &manifest, &wanted);
            Accepted
        }
        Err(error) => {
            assert!(matches!(error, TransferError::Manifest { .. }), "it names the field: {error}");
            Refused
        }
    }
}

/// What comparing the hashes relies on.
fn verify(checked: &CheckedManifest, manifest: &Manifest, wanted: &Wanted) {
    let conversion = &checked.hashed.conversion;
    assert_eq!(checked.hashed.hashes.len(), checked.hashed.selection.len());
    assert_eq!(checked.writes.writes, manifest.writes);
    assert!(manifest.writes > 0);
    assert_eq!(checked.bytes, conversion.bytes(wanted.tokens));
    assert!(checked.hashed_bytes() > 0 || checked.hashed.hashes.is_empty());
    let units = conversion.units(wanted.tokens);
    for (layer, unit) in checked.hashed.selection.iter().take(200) {
        assert!(layer < OURS.layout.layers && unit < units);
        for range in conversion.ranges(Side::Destination, (layer, unit), wanted.tokens, |index| index) {
            assert!(range.end as u64 <= OURS.pool_bytes(), "hashed within our pool");
        }
        assert!(conversion.tokens(unit, wanted.tokens).start < wanted.tokens, "a difference has a place");
    }
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use crate::checksum::Selection;

    let input = |sender: crate::KvGeometry, mode: u32| {
        let (tokens, seed) = (41, 5);
        let conversion = Conversion::between(sender, OURS).expect("convertible");
        let (layers, units) = (OURS.layout.layers, conversion.units(tokens));
        let selection = Selection::new(checksums_from_wire(mode).expect("a mode"), seed, layers, units);
        let manifest = Manifest {
            writes: 7,
            bytes: conversion.bytes(tokens),
            layers,
            units,
            pieces: u64::from(layers) * u64::from(units),
            tokens,
            checksums: mode,
            hashes: vec![9; selection.len() * 8],
            ..Manifest::default()
        };
        let input = Input {
            sender: GeometryWire::from(&sender),
            manifest,
            tokens: tokens - 1,
            checksums: mode,
            seed,
        };
        input.encode_to_vec()
    };
    let needed = |sender| Conversion::between(sender, OURS).is_ok_and(|conversion| conversion.is_needed());
    let peers = super::peers().into_iter().filter(|&(_, peer)| needed(peer)).zip(0u32..);
    peers.map(|((name, peer), number)| (name, input(peer, number % 3))).collect()
}
