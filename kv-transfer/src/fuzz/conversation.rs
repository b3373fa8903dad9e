//! What peers that were let in may say, in any order and about any transfer, to the table of receiving.
//!
//! The input is a list of steps: a byte that says who, and either a frame or one of the receiver's own doings. A key's
//! generation 0 means that of the slot's transfer, as those are drawn anew in each run.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Accepted, Refused, Verdict, frame, immediate};
use crate::TensorParallel;
use crate::ids::{PeerId, TransferKey};
use crate::receive::{Effect, ReceiveTable};
use crate::stats::Counters;
use crate::wire::{Body, Key};

/// From here on a step is the receiver's own.
const OWN_STEPS: u8 = 0xf0;
const PEERS: [u64; 3] = [1, 2, 3];

pub(super) fn run(mut bytes: &[u8]) -> Verdict {
    let counters = Arc::new(Counters::default());
    let (mut table, keys, _) = immediate::table(&counters);
    let mut now = Instant::now();
    let mut effects = Vec::new();
    let mut verdict = Refused;
    while let Some((&who, rest)) = bytes.split_first() {
        bytes = rest;
        if who >= OWN_STEPS {
            own_step(&mut table, who, &keys, &mut now, &mut effects);
            continue;
        }
        let Ok(body) = frame::next(&mut bytes) else { break };
        let known = hear(&mut table, PeerId(u64::from(who % 4)), body, &keys, &mut effects);
        if known {
            verdict = Accepted;
        }
    }
    // Whatever was said: when all are dead and drained, nothing is held.
    for peer in PEERS {
        table.peer_lost(PeerId(peer), "peer", &mut effects);
    }
    table.close(None, &mut effects);
    table.tick(now + Duration::from_secs(1), &mut effects);
    for peer in PEERS {
        table.peer_drained(PeerId(peer), &mut effects);
    }
    assert!(table.is_empty(), "{table:?}");
    assert_eq!((counters.incoming_live.get(), counters.quarantined_blocks.get()), (0, 0));
    let quiet = effects.iter().filter(|effect| matches!(effect, Effect::Quiet(_))).count();
    assert_eq!(quiet, keys.len(), "each transfer falls quiet once");
    verdict
}

fn own_step(
    table: &mut ReceiveTable,
    step: u8,
    keys: &[TransferKey; 2],
    now: &mut Instant,
    effects: &mut Vec<Effect>,
) {
    match step - OWN_STEPS {
        0 | 1 => table.abort(keys[usize::from(step & 1)], effects),
        2 => table.peer_lost(PeerId(1), "peer", effects),
        3 => table.peer_lost(PeerId(2), "peer", effects),
        4 => *now += Duration::from_millis(100),
        5 => *now += Duration::from_secs(4),
        6 => {
            table.peer_lost(PeerId(1), "peer", effects);
            table.peer_drained(PeerId(1), effects);
        }
        7 => keys.iter().for_each(|&key| table.part_drained(key, PeerId(1), effects)),
        _ => {}
    }
    table.tick(*now, effects);
}

/// As the control task of a connection does; whether it was about a transfer that there is.
fn hear(
    table: &mut ReceiveTable,
    from: PeerId,
    body: Body,
    keys: &[TransferKey; 2],
    effects: &mut Vec<Effect>,
) -> bool {
    let named = |key: Key| match keys.get(key.slot as usize) {
        Some(&known) if key.generation == 0 => Some(known),
        _ => key.checked(),
    };
    let key = match &body {
        Body::Attach(attach) => named(attach.key),
        Body::Manifest(manifest) => named(manifest.key),
        Body::Withdrawn(withdrawn) => named(withdrawn.key),
        Body::Want(want) => named(want.key),
        Body::Recall(recall) => named(recall.key),
        Body::Amend(amend) => named(amend.key),
        Body::Stray(stray) => named(stray.key),
        _ => None,
    };
    let Some(key) = key else { return false };
    match body {
        Body::Attach(attach) => {
            let single = immediate::conversion(TensorParallel::SINGLE);
            let _ = table.attach(from, &single, key, attach.secret, attach.staged);
        }
        Body::Manifest(manifest) => table.manifest(from, key, &manifest, effects),
        Body::Recall(_) => {
            table.recall(from, key);
        }
        Body::Amend(amend) => table.amend(from, key, &amend, effects),
        Body::Stray(stray) => table.stray(from, key, stray.sequence, effects),
        Body::Want(want) => table.want(from, key, want.chunks, effects),
        Body::Withdrawn(withdrawn) => {
            table.withdrawn(from, key, &withdrawn, effects);
        }
        _ => {}
    }
    keys.contains(&key)
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use crate::tally::Tally;
    use crate::wire::{Amend, Attach, Manifest, Recall, Stray, Withdrawn, encode};

    let key = |slot| Key { slot, generation: 0 };
    let say = |peer: u8, body| [vec![peer], encode(body)].concat();
    let withdrawn =
        |slot, writes| Body::Withdrawn(Withdrawn { key: key(slot), writes, reason: "it gave up".to_owned() });
    let manifest = |slot, doubtful| {
        let hashes = vec![0; 8 * 4];
        Body::Manifest(Manifest {
            key: key(slot),
            writes: 2,
            bytes: 1024,
            layers: 2,
            units: 2,
            pieces: 4,
            tokens: 8,
            checksums: 2,
            hashes,
            doubtful,
        })
    };
    let recall = Body::Recall(Recall { key: key(0) });
    let stray = Body::Stray(Stray { key: key(0), sequence: 0 });
    let amend = Body::Amend(Amend { key: key(0), writes: 3, doubtful: Tally::first(1) });
    let attach = Body::Attach(Attach { key: key(1), secret: 3, staged: true });
    vec![
        ("withdraw", say(1, withdrawn(0, Some(Tally::first(2))))),
        ("one_of_two_withdraws", [say(2, withdrawn(1, None)), vec![0xf4, 0xf3]].concat()),
        ("manifest_then_death", [say(1, manifest(0, None)), vec![0xf2, 0xf5]].concat()),
        ("doubtful_writes", [say(1, manifest(0, Some(Tally::first(1)))), vec![0xf4; 4]].concat()),
        (
            "recalled_and_amended",
            [say(1, manifest(0, None)), say(1, recall), say(1, stray), say(1, amend), vec![0xf7]].concat(),
        ),
        ("expired_then_withdrawn", [vec![0xf5, 0xf5, 0xf5], say(1, withdrawn(1, None))].concat()),
        ("attach_again", [say(3, attach), vec![0xf1], say(1, withdrawn(1, Some(Tally::first(0))))].concat()),
    ]
}
