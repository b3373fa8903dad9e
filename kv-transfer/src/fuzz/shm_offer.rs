//! Offers of shared memory: any number of descriptors, of any kind, size and seals.
//!
//! The input is two bytes for each descriptor: what it is, and its seals.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};

use super::{Accepted, Refused, Verdict};
use crate::fabric::shm::{Consumer, ShmFabric};
use crate::fabric::{Event, Fabric, Offer, Read, Write};

const POOL_BYTES: u64 = 8192;
/// Descriptors that a message can carry.
const MAX_DESCRIPTORS: usize = 8;
const SIZES: [u64; 6] = [0, 4096, POOL_BYTES, 1 << 20, 1 << 40, POOL_BYTES - 1];
const SEALS: [SealFlags; 5] =
    [SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL, SealFlags::WRITE, SealFlags::FUTURE_WRITE];

pub(super) fn run(bytes: &[u8]) -> Verdict {
    let (pairs, _) = bytes.as_chunks::<2>();
    let descriptors: Vec<OwnedFd> =
        pairs.iter().take(MAX_DESCRIPTORS).map(|&[kind, seals]| descriptor(kind, seals)).collect();
    let count = descriptors.len();
    let theirs: Vec<OwnedFd> = descriptors.iter().map(|fd| fd.try_clone().expect("a descriptor")).collect();
    let (mut fabric, _pool) = ShmFabric::open(POOL_BYTES, false).expect("a small pool");
    let offer = Offer { bytes: Vec::new(), descriptors };
    let Ok(peer) = fabric.connect(offer, POOL_BYTES) else { return Refused };
    assert_eq!(count, 3, "a pool, a ring and a doorbell");
    let shrunk = theirs.iter().any(|fd| rustix::fs::ftruncate(fd, 0).is_ok());
    assert!(!shrunk, "the peer keeps its descriptors, and must not be able to take pages from under us");
    // The first and the last byte of what was announced; were a file short, this would be a SIGBUS.
    for (context, at) in [(0, 0), (1, POOL_BYTES - 8)] {
        let posted = fabric.post_write(&Write::contiguous(peer, 0, at, 8, context));
        assert!(posted.is_ok(), "a fresh ring has room or is refused: {posted:?}");
        let read = Read { peer, source: at, destination: 0, len: 8, context: context + 2 };
        assert!(fabric.post_read(&read).expect("a connected peer"));
    }
    fabric.flush();
    let mut events = Vec::new();
    fabric.poll(&mut events).expect("no initiator, no fault");
    assert!(events.iter().all(|event| matches!(event, Event::Done(0..4))), "{events:?}");
    fabric.disconnect(peer);
    Accepted
}

fn descriptor(kind: u8, seals: u8) -> OwnedFd {
    match kind % 16 {
        0 => std::io::pipe().expect("a pipe").0.into(),
        1 => Consumer::create().expect("a ring").1,
        2 => rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("an eventfd"),
        kind => memory(SIZES[usize::from(kind) % SIZES.len()], seals),
    }
}

fn memory(len: u64, seals: u8) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("fuzz", flags).expect("a memfd");
    rustix::fs::ftruncate(&fd, len).expect("a sparse file");
    for (bit, seal) in SEALS.into_iter().enumerate() {
        if seals & 1 << bit != 0 {
            // After SEAL no further one can be added.
            let _ = rustix::fs::fcntl_add_seals(&fd, seal);
        }
    }
    fd
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("sound", vec![8, 7, 1, 0, 7, 7]),
        ("larger", vec![9, 7, 1, 0, 9, 7]),
        ("shrinks_only", vec![8, 1, 1, 0, 7, 1]),
    ]
}
