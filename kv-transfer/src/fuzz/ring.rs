//! The ring of immediates, while the peer scribbles over both counters.
//!
//! The input is a list of steps of five bytes: what, and a number.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use super::{Accepted, Refused, Verdict};
use crate::fabric::shm::{Consumer, ENTRIES, Producer};
use crate::memory::Mapping;

/// Where the counters are, by the layout of the ring.
const HEAD: usize = 0;
const TAIL: usize = 64;
const STEP_BYTES: usize = 5;
const MAX_STEPS: usize = 64;

pub(super) fn run(bytes: &[u8]) -> Verdict {
    let (mut consumer, fd) = Consumer::create().expect("a ring");
    let mut producer = Producer::open(&fd).expect("our own ring is sound");
    let scribble = Mapping::shared(fd.as_fd(), TAIL + 4).expect("a mapping");
    let (head, tail) = (scribble.atomic(HEAD), scribble.atomic(TAIL));
    // What each side has done itself; it never believes the shared page about that.
    let (mut pushed, mut taken) = (0u32, 0u32);
    let mut verdict = Accepted;
    let (steps, _) = bytes.as_chunks::<STEP_BYTES>();
    for &[what, a, b, c, d] in steps.iter().take(MAX_STEPS) {
        let number = u32::from_le_bytes([a, b, c, d]);
        match what % 5 {
            0 => head.store(number, Ordering::Relaxed),
            1 => tail.store(number, Ordering::Relaxed),
            2 => match producer.has_room() {
                Ok(true) => {
                    producer.push(number);
                    pushed = pushed.wrapping_add(1);
                    assert_eq!(head.load(Ordering::Relaxed), pushed, "its own count, whatever was there");
                }
                Ok(false) => {}
                Err(_) => verdict = Refused,
            },
            3 => {
                let alleged = head.load(Ordering::Relaxed).wrapping_sub(taken);
                let mut got = 0u32;
                let drained = consumer.drain(|_| got += 1);
                assert_eq!(drained.is_ok(), alleged <= ENTRIES, "a counter is believed if it can be");
                assert_eq!(got, if drained.is_ok() { alleged } else { 0 });
                if drained.is_err() {
                    verdict = Refused;
                }
                taken = taken.wrapping_add(got);
            }
            _ => assert_eq!(consumer.is_empty(), head.load(Ordering::Relaxed) == taken),
        }
    }
    verdict
}

#[cfg(test)]
pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let step = |(what, number): &(u8, u32)| [&[*what], number.to_le_bytes().as_slice()].concat();
    let steps = |steps: &[(u8, u32)]| steps.iter().flat_map(step).collect();
    vec![
        ("push_drain", steps(&[(2, 1), (2, 2), (3, 0), (4, 0), (2, 3), (3, 0)])),
        ("head_ahead", steps(&[(0, ENTRIES), (3, 0), (0, ENTRIES + 1), (4, 0)])),
        ("tail_ahead", steps(&[(1, 5), (2, 1), (2, 2), (3, 0)])),
    ]
}
