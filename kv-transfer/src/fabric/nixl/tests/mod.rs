//! The fabric against itself, and against an agent that is not ours.

mod python;

use std::time::{Duration, Instant};

use super::fabric::Nixl;
use super::offer::OfferWire;
use crate::fabric::{Event, Fabric, Offer, Read, Write};
use crate::ids::PeerId;
use crate::plan::Step;
use crate::{FabricSpec, KvGeometry, PoolMemory, StartError, TransferConfig};
use prost::Message;

/// Far longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
const POOL_BYTES: u64 = 4 * 64 * 4096;

fn is_skipped() -> bool {
    std::env::var_os("BATON_TEST_SKIP_NIXL").is_some_and(|skip| skip == "1")
}

fn config() -> TransferConfig {
    let mut config =
        TransferConfig::new(FabricSpec::Nixl { backend: None }, KvGeometry::plain(4, 64, 4096), "test");
    // What lies behind the pool is nobody's here.
    config.limits.staging_chunks = 0;
    let path = std::env::var_os("BATON_TEST_NIXL");
    let path = path.expect(
        "BATON_TEST_NIXL names the site-packages with nixl-cu13, which ./dev test installs (BATON_TEST_SKIP_NIXL=1 skips)",
    );
    config.nixl_path = Some(path.into());
    config
}

fn open() -> (Nixl, PoolMemory) {
    Nixl::open(&config(), None).unwrap()
}

fn bytes(pool: &PoolMemory, at: u64, len: u64) -> Vec<u8> {
    let mut found = vec![0; len as usize];
    pool.copy_out(at as usize, &mut found);
    found
}

fn pattern(seed: u64, len: u64) -> Vec<u8> {
    (0..len).map(|i| ((i * 31) ^ (i >> 8) ^ seed.wrapping_mul(97)) as u8).collect()
}

/// Polls all until `enough` says so of the events of each.
fn poll(fabrics: &mut [&mut Nixl], mut enough: impl FnMut(&[Vec<Event>]) -> bool) -> Vec<Vec<Event>> {
    let started = Instant::now();
    let mut events: Vec<Vec<Event>> = fabrics.iter().map(|_| Vec::new()).collect();
    while !enough(&events) {
        assert!(started.elapsed() < PATIENCE, "{events:?}");
        for (fabric, events) in fabrics.iter_mut().zip(&mut events) {
            fabric.poll(events).unwrap();
        }
    }
    events
}

/// Both ends of a connection from the first to the second: the second as the first knows it, and the other way.
fn connect(from: &mut Nixl, to: &mut Nixl) -> (PeerId, PeerId) {
    let (initiator, offer) = to.accept(&from.address()).unwrap();
    (from.connect(offer, POOL_BYTES).unwrap(), initiator)
}

#[test]
fn writes_tell_their_target_and_reads_do_not() {
    const WRITES: u64 = 200;
    const LEN: u64 = 1003;
    if is_skipped() {
        return;
    }
    let ((mut a, ours), (mut b, theirs)) = (open(), open());
    let (target, initiator) = connect(&mut a, &mut b);
    for i in 0..WRITES {
        ours.copy_in((i * LEN) as usize, &pattern(i, LEN));
        let (source, destination) = (i * LEN, (WRITES - 1 - i) * LEN + 5);
        let (immediate, context) = (0xf000_0000 | i as u32, i as u32);
        let write = Write {
            peer: target,
            source,
            destination,
            len: LEN,
            immediate,
            context,
            inner: Step::ONE,
            outer: Step::ONE,
        };
        assert!(a.post_write(&write).unwrap());
    }
    a.flush();
    let all = |events: &[Vec<Event>]| events.iter().all(|events| events.len() >= WRITES as usize);
    let events = poll(&mut [&mut a, &mut b], all);
    for i in 0..WRITES {
        assert!(events[0].contains(&Event::Done(i as u32)));
        let immediate = 0xf000_0000 | i as u32;
        assert!(events[1].contains(&Event::Landed { from: Some(initiator), immediate }));
        assert_eq!(bytes(&theirs, (WRITES - 1 - i) * LEN + 5, LEN), pattern(i, LEN));
    }
    assert_eq!((events[0].len(), events[1].len()), (WRITES as usize, WRITES as usize));

    let read = Read { peer: target, source: 5, destination: 900_000, len: LEN, context: 7 };
    assert!(a.post_read(&read).unwrap());
    a.flush();
    let events = poll(&mut [&mut a, &mut b], |events| !events[0].is_empty());
    assert_eq!(events, [vec![Event::Done(7)], vec![]]);
    assert_eq!(bytes(&ours, 900_000, LEN), pattern(WRITES - 1, LEN));
}

#[test]
fn offers_that_nixl_cannot_use_are_refused() {
    if is_skipped() {
        return;
    }
    let ((mut a, _), (mut b, _)) = (open(), open());
    let (_, offer) = b.accept(&a.address()).unwrap();
    let good = OfferWire::decode(offer.bytes.as_slice()).unwrap();
    let cut = good.metadata[..good.metadata.len() / 2].to_vec();
    let own = OfferWire::decode(a.accept(&b.address()).unwrap().1.bytes.as_slice()).unwrap();
    for wire in [OfferWire { metadata: cut, ..good.clone() }, own] {
        let offer = Offer { bytes: wire.encode_to_vec(), descriptors: Vec::new() };
        assert!(a.connect(offer, POOL_BYTES).is_err());
    }
    // What was refused leaves nothing behind.
    connect(&mut a, &mut b);
}

#[test]
fn a_write_outside_of_what_the_peer_registered_fails_and_the_next_goes_on() {
    if is_skipped() {
        return;
    }
    let ((mut a, ours), (mut b, theirs)) = (open(), open());
    let (_, offer) = b.accept(&a.address()).unwrap();
    let mut wire = OfferWire::decode(offer.bytes.as_slice()).unwrap();
    wire.base += POOL_BYTES - 4096;
    let beyond = Offer { bytes: wire.encode_to_vec(), descriptors: Vec::new() };
    let liar = a.connect(beyond, POOL_BYTES).unwrap();
    let honest = connect(&mut a, &mut b).0;
    ours.copy_in(0, &pattern(1, 4096));
    let write = |peer, destination| Write {
        peer,
        source: 0,
        destination,
        len: 4096,
        immediate: 1,
        context: 3,
        inner: Step::ONE,
        outer: Step::ONE,
    };
    assert!(a.post_write(&write(liar, 4096)).unwrap());
    a.flush();
    assert!(!a.post_write(&write(honest, 0)).unwrap(), "nothing goes before the failure is told");
    let events = poll(&mut [&mut a, &mut b], |events| !events[0].is_empty());
    assert!(matches!(events[0][..], [Event::Failed(3, _)]), "{events:?}");

    assert!(a.post_write(&write(honest, 0)).unwrap());
    a.flush();
    poll(&mut [&mut a, &mut b], |events| !events[0].is_empty() && !events[1].is_empty());
    assert_eq!(bytes(&theirs, 0, 4096), pattern(1, 4096));
}

#[test]
fn writes_to_an_agent_that_is_gone_fail_in_time() {
    if is_skipped() {
        return;
    }
    let ((mut a, _), (mut b, _)) = (open(), open());
    let (target, _) = connect(&mut a, &mut b);
    let write = |context| Write {
        peer: target,
        source: 0,
        destination: 0,
        len: 4096,
        immediate: 1,
        context,
        inner: Step::ONE,
        outer: Step::ONE,
    };
    assert!(a.post_write(&write(0)).unwrap());
    a.flush();
    poll(&mut [&mut a, &mut b], |events| !events[0].is_empty() && !events[1].is_empty());
    drop(b);
    for context in 1..4 {
        let started = Instant::now();
        let posted = loop {
            match a.post_write(&write(context)) {
                Ok(false) => a.poll(&mut Vec::new()).unwrap(),
                other => break other,
            }
            assert!(started.elapsed() < PATIENCE);
        };
        // Once the backend has seen it, no new connection can be made.
        if posted.is_err() {
            assert!(context > 1, "{posted:?}");
            continue;
        }
        a.flush();
        let events = poll(&mut [&mut a], |events| !events[0].is_empty());
        assert!(matches!(events[0][..], [Event::Failed(failed, _)] if failed == context), "{events:?}");
    }
    a.disconnect(target);
    assert!(a.post_write(&write(4)).is_err());
}

#[test]
fn writes_to_a_silent_peer_fail_when_it_is_disconnected() {
    if is_skipped() {
        return;
    }
    let ((mut a, _), (mut b, _)) = (open(), open());
    let (target, _) = connect(&mut a, &mut b);
    for context in 0..100 {
        let write = Write {
            peer: target,
            source: 0,
            destination: 0,
            len: 4096,
            immediate: 1,
            context,
            inner: Step::ONE,
            outer: Step::ONE,
        };
        assert!(a.post_write(&write).unwrap());
    }
    a.flush();
    // The other end answers nothing, so that no connection comes about.
    let (mut events, started) = (Vec::new(), Instant::now());
    while started.elapsed() < Duration::from_millis(300) {
        a.poll(&mut events).unwrap();
    }
    assert_eq!(events, []);
    a.disconnect(target);
    a.poll(&mut events).unwrap();
    let mut failed: Vec<u32> = events
        .iter()
        .map(|event| if let Event::Failed(context, _) = event { *context } else { panic!("{event:?}") })
        .collect();
    failed.sort_unstable();
    assert_eq!(failed, (0..100).collect::<Vec<_>>());

    // It was only slow: a new connection works.
    let target = connect(&mut a, &mut b).0;
    let write = Write {
        peer: target,
        source: 0,
        destination: 0,
        len: 9,
        immediate: 2,
        context: 5,
        inner: Step::ONE,
        outer: Step::ONE,
    };
    assert!(a.post_write(&write).unwrap());
    a.flush();
    let events = poll(&mut [&mut a, &mut b], |events| !events[0].is_empty());
    assert_eq!(events[0], [Event::Done(5)]);
}

#[test]
fn a_backend_that_cannot_do_it_is_named_with_those_that_are_there() {
    if is_skipped() {
        return;
    }
    // One that there is not, and one that reaches files only.
    for backend in ["CARRIER_PIGEON", "POSIX"] {
        let error = Nixl::open(&config(), Some(backend)).err().expect("it is refused");
        assert!(matches!(error, StartError::NoBackend { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(backend) && text.contains("UCX"), "{text}");
    }
}
