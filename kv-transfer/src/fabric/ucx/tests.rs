//! Two fabrics in one process, driven by hand: what the conformance kit cannot reach.

use std::time::{Duration, Instant};

use super::Ucx;
use crate::fabric::{Event, Fabric, Read, Write};
use crate::ids::PeerId;
use crate::memory::PoolMemory;
use crate::plan::Step;
use crate::{FabricSpec, KvGeometry, TransferConfig};

const POOL_BYTES: u64 = 4 << 20;
const TRANSPORTS: [&str; 3] = ["tcp", "posix,cma", "sysv"];

fn fabric(transports: &str) -> (Ucx, PoolMemory) {
    let geometry = KvGeometry::plain(1, 4, 1 << 20);
    let mut config = TransferConfig::new(FabricSpec::Ucx { transports: None }, geometry, "test");
    let path = std::env::var_os("BATON_TEST_UCX");
    let path = path
        .expect("BATON_TEST_UCX names libucp.so.0, as `./dev test` sets it (BATON_TEST_SKIP_UCX=1 skips)");
    config.ucx_path = Some(path.into());
    Ucx::open(&config, Some(transports)).unwrap()
}

fn is_skipped() -> bool {
    std::env::var_os("BATON_TEST_SKIP_UCX").is_some_and(|skip| skip == "1")
}

/// One that writes to another.
struct Pair {
    initiator: Ucx,
    target: Ucx,
    ours: PoolMemory,
    theirs: PoolMemory,
    /// The target, as the initiator names it, and the other way round.
    to: PeerId,
    from: PeerId,
    seen: (Vec<Event>, Vec<Event>),
}

impl Pair {
    fn new(transports: &str) -> Self {
        let ((mut initiator, ours), (mut target, theirs)) = (fabric(transports), fabric(transports));
        let (from, offer) = target.accept(&initiator.address()).unwrap();
        let to = initiator.connect(offer, POOL_BYTES).unwrap();
        Self { initiator, target, ours, theirs, to, from, seen: Default::default() }
    }

    fn write(&mut self, context: u32) {
        let (len, immediate) = (1 << 20, 100 + context);
        let write = Write {
            peer: self.to,
            source: 0,
            destination: 1 << 20,
            len,
            immediate,
            context,
            inner: Step::ONE,
            outer: Step::ONE,
        };
        assert!(self.initiator.post_write(&write).unwrap());
        self.initiator.flush();
    }

    /// Polls both until the initiator saw `count` events.
    fn run_until(&mut self, count: usize) {
        let started = Instant::now();
        while self.seen.0.len() < count {
            assert!(started.elapsed() < Duration::from_secs(20), "nothing happens: {:?}", self.seen);
            self.poll();
        }
    }

    fn poll(&mut self) {
        self.initiator.poll(&mut self.seen.0).unwrap();
        self.target.poll(&mut self.seen.1).unwrap();
    }

    /// Polls both for as long as anything that is on its way would take, and much longer.
    fn linger(&mut self) {
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(200) {
            self.poll();
        }
    }
}

#[test]
fn reads_bring_the_bytes_and_tell_the_peer_nothing() {
    if is_skipped() {
        return;
    }
    for transports in TRANSPORTS {
        let mut pair = Pair::new(transports);
        let bytes: Vec<u8> =
            (0..3u32 << 18).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        pair.theirs.copy_in(7, &bytes);
        for (context, start, end) in [(0, 0, 1 << 20), (1, 1 << 20, bytes.len() as u64)] {
            let read =
                Read { peer: pair.to, source: 7 + start, destination: start, len: end - start, context };
            assert!(pair.initiator.post_read(&read).unwrap());
        }
        pair.run_until(2);
        pair.linger();
        let mut read = vec![0; bytes.len()];
        pair.ours.copy_out(0, &mut read);
        assert!(read == bytes, "{transports}: other bytes");
        pair.seen.0.sort_by_key(|event| format!("{event:?}"));
        assert_eq!(pair.seen, (vec![Event::Done(0), Event::Done(1)], vec![]), "{transports}");
    }
}

#[test]
fn a_write_lands_at_its_target_until_the_peer_is_disconnected_there() {
    if is_skipped() {
        return;
    }
    for transports in TRANSPORTS {
        let mut pair = Pair::new(transports);
        pair.ours.copy_in(0, &[5; 1 << 20]);
        pair.write(3);
        pair.run_until(1);
        pair.linger();
        let landed = Event::Landed { from: Some(pair.from), immediate: 103 };
        assert_eq!(pair.seen, (vec![Event::Done(3)], vec![landed]), "{transports}");
        let mut last = [0];
        pair.theirs.copy_out((2 << 20) - 1, &mut last);
        assert_eq!(last, [5]);

        pair.target.disconnect(pair.from);
        pair.seen = Default::default();
        pair.write(3);
        pair.run_until(1);
        pair.linger();
        assert_eq!(pair.seen, (vec![Event::Done(3)], vec![]), "{transports}: not heard any more");
    }
}

#[test]
fn nothing_is_heard_of_a_target_that_was_disconnected_with_writes_under_way() {
    if is_skipped() {
        return;
    }
    for transports in TRANSPORTS {
        let mut pair = Pair::new(transports);
        (0..20).for_each(|context| pair.write(context));
        pair.initiator.disconnect(pair.to);
        pair.linger();
        assert_eq!(pair.seen.0, vec![], "{transports}");
        let write = Write {
            peer: pair.to,
            source: 0,
            destination: 0,
            len: 1,
            immediate: 0,
            context: 30,
            inner: Step::ONE,
            outer: Step::ONE,
        };
        assert!(pair.initiator.post_write(&write).is_err());
    }
}

/// The target does nothing at all, as one that is stopped: only the end of the data path brings the writes back.
#[test]
fn all_that_is_under_way_comes_back_when_its_data_path_is_ended() {
    if is_skipped() {
        return;
    }
    for transports in TRANSPORTS {
        let mut pair = Pair::new(transports);
        (0..100).for_each(|context| pair.write(context));
        pair.initiator.sever(pair.to);
        let (started, mut events) = (Instant::now(), Vec::new());
        while events.len() < 100 {
            assert!(started.elapsed() < Duration::from_secs(20), "{transports}: {} came back", events.len());
            pair.initiator.poll(&mut events).unwrap();
        }
        let failed =
            |event: &&Event| matches!(event, Event::Failed(_, reason) if reason.contains("ended here"));
        assert_eq!(events.iter().filter(failed).count(), 100, "{transports}: {events:?}");
        pair.initiator.disconnect(pair.to);
    }
}

#[test]
fn writes_to_a_target_that_is_gone_come_back() {
    if is_skipped() {
        return;
    }
    // Within one process only tcp notices: the others look for the peer's process.
    let mut pair = Pair::new("tcp");
    pair.write(0);
    pair.run_until(1);
    // More than a socket holds: some of it is still here when the target goes.
    (1..100).for_each(|context| pair.write(context));
    let Pair { mut initiator, target, to, seen: (mut events, _), .. } = pair;
    drop(target);
    let started = Instant::now();
    while events.len() < 100 {
        assert!(started.elapsed() < Duration::from_secs(20), "{} of 100 came back", events.len());
        initiator.poll(&mut events).unwrap();
    }
    let failed = |event: &&Event| matches!(event, Event::Failed(_, reason) if reason.contains("onnection"));
    assert!(events.iter().filter(failed).count() > 0, "{events:?}");
    let write = Write {
        peer: to,
        source: 0,
        destination: 0,
        len: 1,
        immediate: 0,
        context: 0,
        inner: Step::ONE,
        outer: Step::ONE,
    };
    assert!(initiator.post_write(&write).is_err(), "it is known to be gone");
    initiator.disconnect(to);
}
