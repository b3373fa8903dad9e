//! Immediates: any word, from a sender that was let in or from anybody, into a table with live transfers.
//!
//! The input is a list of arrivals of five bytes: who and against which part, and what its word differs by.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Accepted, OURS, Refused, Verdict};
use crate::ids::{Immediate, PeerId, Sequence, TransferKey};
use crate::layout::Conversion;
use crate::receive::{Expected, ReceiveTable, TableRules};
use crate::stats::Counters;
use crate::{ChecksumMode, KvGeometry, KvLayout, TensorParallel};

const ARRIVAL_BYTES: usize = 5;
const MAX_ARRIVALS: usize = 256;
const SECRET: u64 = 3;

/// A table that expects one transfer of a single sender and one of two ranks, all attached.
pub(super) fn table(counters: &Arc<Counters>) -> (ReceiveTable, [TransferKey; 2], [TransferKey; 3]) {
    let rules = TableRules {
        geometry: OURS,
        checksums: ChecksumMode::Sampled,
        slots: 6,
        blocks_per_transfer: 16,
        chunks: 2,
    };
    let mut table = ReceiveTable::new(rules, counters.clone());
    let mut expect = |blocks: &[u32]| {
        let expected = Expected { blocks, tokens: 8, secret: SECRET, expires_in: Duration::from_secs(10) };
        table.expect(&expected, Instant::now()).expect("a fresh table").key
    };
    let (single, ranks) = (expect(&[1, 2]), expect(&[3, 4]));
    let mut attach = |sender: u64, parallel, key| {
        table.attach(PeerId(sender), &conversion(parallel), key, SECRET, false).expect("its own ticket")
    };
    let rank = |rank| TensorParallel { rank, size: 2 };
    let parts =
        [attach(1, TensorParallel::SINGLE, single), attach(1, rank(0), ranks), attach(2, rank(1), ranks)];
    (table, [single, ranks], parts)
}

pub(super) fn conversion(tensor_parallel: TensorParallel) -> Arc<Conversion> {
    let sender = KvGeometry { layout: KvLayout { tensor_parallel, ..OURS.layout }, ..OURS };
    Arc::new(Conversion::between(sender, OURS).expect("one model"))
}

pub(super) fn run(bytes: &[u8]) -> Verdict {
    let counters = Arc::new(Counters::default());
    let (mut table, _, parts) = table(&counters);
    let (arrivals, _) = bytes.as_chunks::<ARRIVAL_BYTES>();
    let mut effects = Vec::new();
    let (mut seen, mut known) = (0, 0);
    for &[who, a, b, c, d] in arrivals.iter().take(MAX_ARRIVALS) {
        let differs = u32::from_le_bytes([a, b, c, d]);
        let part = parts.get(usize::from(who) % 4).copied();
        let base = part.map_or(0, |key| Immediate { key, sequence: Sequence::of(0) }.encode());
        let (word, from) = (base ^ differs, u64::from(who / 4 % 4));
        let decoded = Immediate::decode(word);
        assert!(decoded.is_none_or(|immediate| immediate.encode() == word), "reads back as written");
        // Peer 0 is what a fabric says that does not know.
        table.write_landed((from > 0).then_some(PeerId(from)), word, &mut effects);
        let senders = [1, 1, 2];
        let mine = |(key, sender): (&TransferKey, u64)| {
            decoded.is_some_and(|immediate| immediate.key == *key) && (from == 0 || from == sender)
        };
        known += u64::from(parts.iter().zip(senders).any(mine));
        seen += 1;
    }
    let counted = (counters.writes_received.get(), counters.late_writes.get());
    assert_eq!(counted, (known, seen - known), "counted for its own part, or late");
    assert!(effects.is_empty(), "nothing completes or fails without a manifest");
    assert_eq!(counters.incoming_live.get(), 3);
    if known > 0 { Accepted } else { Refused }
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("single", vec![0, 0, 0, 0, 0, 4, 1, 0, 0, 0]),
        ("ranks", vec![5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 9, 1, 0, 0, 0]),
        ("other_generation", vec![0, 0, 2, 0, 0, 0, 0, 0, 0, 0]),
    ]
}
