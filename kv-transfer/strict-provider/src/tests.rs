//! Each rule, broken on purpose: does it bite? And those who obey: are they served, in an order that is none?
//!
//! The calls go through the tables that C would use; libfabric itself is not needed here.

mod side;

use std::time::{Duration, Instant};

use crate::rules::Rule;
use crate::settings::Settings;
use crate::sys;
use side::{Failure, Message, Seen, Side};

/// Kind but for what a test changes: no whims, nothing held back.
fn calm() -> Settings {
    Settings { eagain: 0, hold: 0, ..Settings::default() }
}

/// An initiator and a target that know each other.
fn pair(settings: Settings) -> (Side, Side) {
    let (initiator, target) = (Side::open(settings.clone()), Side::open(settings));
    target.insert(&initiator.name());
    initiator.insert(&target.name());
    (initiator, target)
}

/// Polls both sides until `done` says so.
fn drive(sides: [&Side; 2], mut done: impl FnMut([Vec<Seen>; 2]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done([sides[0].poll(), sides[1].poll()]) {
        assert!(Instant::now() < deadline, "nothing more happens");
    }
}

/// Drives until the initiator has `count` outcomes.
fn outcomes(initiator: &Side, target: &Side, count: usize) -> Vec<Seen> {
    let mut all = Vec::new();
    drive([initiator, target], |[mut ours, _]| {
        all.append(&mut ours);
        all.len() >= count
    });
    all
}

/// What a message is refused with at once, and the rule in the log.
fn refused(change: impl FnOnce(&mut Message), errno: u32, rule: Rule) {
    let (initiator, target) = pair(calm());
    let mut message = Message::write(&initiator, &target, 0..64, 0);
    change(&mut message);
    assert_eq!(initiator.post(&message), -(errno as isize));
    assert_eq!(initiator.violations(), [rule]);
}

/// What the target refuses, with the rule in its log; the initiator hears of it by an error completion.
fn refused_by_target(change: impl FnOnce(&mut Message), rule: Rule) {
    let (initiator, target) = pair(calm());
    let mut message = Message::write(&initiator, &target, 0..8, 5);
    change(&mut message);
    assert_eq!(initiator.post(&message), 0);
    let failure = Failure { context: message.context, err: sys::FI_EINVAL, status: 7 };
    assert_eq!(outcomes(&initiator, &target, 1), [Seen::Failed(failure)]);
    assert_eq!(target.violations(), [rule]);
}

#[test]
fn a_write_that_obeys_arrives_with_its_immediate() {
    for delivery in [true, false] {
        let (initiator, target) = pair(calm());
        initiator.fill(7);
        let mut message = Message::write(&initiator, &target, 100..5000, 0xfeed_beef);
        if !delivery {
            message.flags &= !u64::from(sys::FI_DELIVERY_COMPLETE);
        }
        assert_eq!(initiator.post(&message), 0);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        drive([&initiator, &target], |[mut a, mut b]| {
            ours.append(&mut a);
            theirs.append(&mut b);
            !ours.is_empty() && !theirs.is_empty()
        });
        assert_eq!(ours, [Seen::Done(message.context)]);
        assert_eq!(theirs, [Seen::Data(0xfeed_beef)]);
        assert!(target.bytes()[100..5000].iter().all(|&byte| byte == 7));
        assert!(target.bytes()[5000..].iter().all(|&byte| byte == 0));
        assert_eq!((initiator.violations(), target.violations()), (vec![], vec![]));
    }
}

#[test]
fn a_read_brings_the_peers_bytes_and_the_peer_is_not_told() {
    let (initiator, target) = pair(calm());
    target.fill(9);
    let message = Message::read(&initiator, &target, 0..300);
    assert_eq!(initiator.post(&message), 0);
    assert_eq!(outcomes(&initiator, &target, 1), [Seen::Done(message.context)]);
    assert!(initiator.bytes()[..300].iter().all(|&byte| byte == 9));
    assert_eq!(target.poll(), []);
}

#[test]
fn a_descriptor_must_be_there_and_of_an_open_region() {
    refused(|message| message.descriptor = 0, sys::FI_EINVAL, Rule::Descriptor);
    refused(|message| message.descriptor += 8, sys::FI_EINVAL, Rule::Descriptor);
}

#[test]
fn local_and_remote_iov_are_one_each_even_for_no_bytes() {
    refused(|message| message.iovs = 2, sys::FI_EINVAL, Rule::Iov);
    refused(|message| message.rma_iovs = 2, sys::FI_EINVAL, Rule::Iov);
    refused(|message| message.remote_len += 1, sys::FI_EINVAL, Rule::Iov);
    refused(
        |message| (message.len, message.remote_len, message.rma_iovs) = (0, 0, 0),
        sys::FI_EINVAL,
        Rule::Iov,
    );
}

#[test]
fn a_local_range_stays_in_its_region() {
    refused(|message| message.local += Side::BYTES - 63, sys::FI_EINVAL, Rule::LocalRange);
    refused(|message| message.local -= 1, sys::FI_EINVAL, Rule::LocalRange);
}

#[test]
fn a_message_has_a_largest_size_which_is_not_the_attributes() {
    let (initiator, target) = pair(Settings { max_rma_bytes: 1000, ..calm() });
    assert_eq!(initiator.option(sys::FI_OPT_MAX_RMA_SIZE as i32), Ok(1000));
    assert_eq!(initiator.post(&Message::write(&initiator, &target, 0..1000, 0)), 0);
    let message = Message::write(&initiator, &target, 0..1001, 0);
    assert_eq!(initiator.post(&message), -(sys::FI_EMSGSIZE as isize));
    assert_eq!(initiator.violations(), [Rule::MessageSize]);
}

#[test]
fn flags_that_efa_does_not_take_are_refused() {
    refused(|message| message.flags |= u64::from(sys::FI_FENCE), sys::FI_EOPNOTSUPP, Rule::Flags);
    refused(|message| message.flags |= u64::from(sys::FI_INJECT), sys::FI_EOPNOTSUPP, Rule::Flags);
    refused(|message| message.flags |= sys::FI_RMA_EVENT, sys::FI_EOPNOTSUPP, Rule::Flags);
    refused(|message| message.data = 1 << 32, sys::FI_EINVAL, Rule::Flags);
}

#[test]
fn a_context_is_there_aligned_and_used_once() {
    refused(|message| message.context = 0, sys::FI_EINVAL, Rule::Context);
    refused(|message| message.context += 4, sys::FI_EINVAL, Rule::Context);
    let (initiator, target) = pair(calm());
    let message = Message::write(&initiator, &target, 0..8, 0);
    assert_eq!(initiator.post(&message), 0);
    assert_eq!(initiator.post(&message), -(sys::FI_EINVAL as isize));
    assert_eq!(initiator.violations(), [Rule::Context]);
    outcomes(&initiator, &target, 1);
    assert_eq!(initiator.post(&message), 0, "free again");
}

#[test]
fn a_context_belongs_to_the_provider_while_in_flight() {
    let (initiator, target) = pair(calm());
    let message = Message::write(&initiator, &target, 0..8, 0);
    assert_eq!(initiator.post(&message), 0);
    // The last word of an fi_context2: somebody took it for an fi_context.
    initiator.scribble(message.context + 56);
    outcomes(&initiator, &target, 1);
    assert_eq!(initiator.violations(), [Rule::ContextChanged]);
}

#[test]
fn a_target_must_be_in_the_address_vector() {
    refused(|message| message.target += 1, sys::FI_EINVAL, Rule::UnknownTarget);
    let (initiator, target) = pair(calm());
    initiator.remove(0);
    let message = Message::write(&initiator, &target, 0..8, 0);
    assert_eq!(initiator.post(&message), -(sys::FI_EINVAL as isize));
}

#[test]
fn a_target_must_have_inserted_the_initiator() {
    let (initiator, target) = (Side::open(calm()), Side::open(calm()));
    initiator.insert(&target.name());
    let message = Message::write(&initiator, &target, 0..8, 5);
    assert_eq!(initiator.post(&message), 0);
    let failure = Failure { context: message.context, err: sys::FI_ENOTCONN, status: 14 };
    assert_eq!(outcomes(&initiator, &target, 1), [Seen::Failed(failure)]);
    assert_eq!(target.violations(), [Rule::UnknownInitiator]);
    assert!(target.bytes().iter().all(|&byte| byte == 0), "nothing was written");
}

#[test]
fn keys_and_remote_ranges_are_checked_by_the_target() {
    refused_by_target(|message| message.key ^= 1, Rule::RemoteKey);
    refused_by_target(|message| message.remote += Side::BYTES - 7, Rule::RemoteRange);
    refused_by_target(|message| message.remote = u64::MAX - 3, Rule::RemoteRange);
}

#[test]
fn credits_run_out_and_only_polling_gives_them_back() {
    let (initiator, target) = pair(Settings { tx_size: 4, ..calm() });
    let posts = (0..5).map(|i| initiator.post(&Message::write(&initiator, &target, i..i + 1, 0)));
    let again = -(sys::FI_EAGAIN as isize);
    assert_eq!(posts.collect::<Vec<_>>(), [0, 0, 0, 0, again]);
    let fifth = Message::write(&initiator, &target, 4..5, 0);
    for _ in 0..20_000 {
        assert_eq!(initiator.post(&fifth), again);
    }
    assert_eq!(initiator.violations(), [Rule::NoPolling]);
    outcomes(&initiator, &target, 4);
    assert_eq!(initiator.post(&fifth), 0);
}

#[test]
fn a_device_says_try_again_with_room_to_spare() {
    let (initiator, target) = pair(Settings { eagain: 2, ..calm() });
    let codes: Vec<isize> = (0..32)
        .map(|i| {
            initiator.poll();
            initiator.post(&Message::write(&initiator, &target, i..i + 1, 0))
        })
        .collect();
    assert!(codes.contains(&0) && codes.contains(&-(sys::FI_EAGAIN as isize)), "{codes:?}");
}

#[test]
fn a_queue_smaller_than_what_is_in_flight_overruns() {
    let (initiator, target) = (Side::with_queue(calm(), 2), Side::open(calm()));
    target.insert(&initiator.name());
    initiator.insert(&target.name());
    let post = |i| initiator.post(&Message::write(&initiator, &target, i..i + 1, 0));
    assert_eq!([post(0), post(1), post(2)], [0, 0, -(sys::FI_EOVERRUN as isize)]);
    assert_eq!(initiator.violations(), [Rule::QueueOverrun]);
    assert_eq!(initiator.read_code(), -(sys::FI_EOVERRUN as isize));
}

#[test]
fn a_target_that_does_not_read_its_queue_loses_it() {
    let (initiator, target) = (Side::open(calm()), Side::with_queue(calm(), 8));
    target.insert(&initiator.name());
    initiator.insert(&target.name());
    for i in 0..32 {
        assert_eq!(initiator.post(&Message::write(&initiator, &target, i..i + 1, i as u64)), 0);
    }
    // All arrive at once, and the target takes one at a time.
    drive([&initiator, &initiator], |_| target.read_one() == -(sys::FI_EOVERRUN as isize));
    assert_eq!(target.violations(), [Rule::QueueOverrun]);
}

#[test]
fn posts_with_more_wait_for_one_without() {
    let (initiator, target) = pair(calm());
    let mut first = Message::write(&initiator, &target, 0..8, 1);
    first.flags |= u64::from(sys::FI_MORE);
    assert_eq!(initiator.post(&first), 0);
    for _ in 0..1000 {
        assert_eq!((initiator.poll(), target.poll()), (vec![], vec![]));
    }
    assert_eq!(initiator.post(&Message::write(&initiator, &target, 8..16, 2)), 0);
    assert_eq!(outcomes(&initiator, &target, 2).len(), 2);
}

#[test]
fn nothing_keeps_its_order() {
    const WRITES: usize = 40;
    let (initiator, target) = pair(Settings { hold: 6, ..calm() });
    for i in 0..WRITES {
        assert_eq!(initiator.post(&Message::write(&initiator, &target, i..i + 1, i as u64)), 0);
    }
    let (mut done, mut landed) = (Vec::new(), Vec::new());
    drive([&initiator, &target], |[ours, theirs]| {
        done.extend(ours);
        landed.extend(theirs);
        done.len() == WRITES && landed.len() == WRITES
    });
    let posted: Vec<Seen> = (0..WRITES as u64).map(Seen::Data).collect();
    assert_ne!(landed, posted);
    let mut sorted = landed.clone();
    sorted.sort();
    assert_eq!(sorted, posted, "each once");
    let mut in_order = done.clone();
    in_order.sort();
    assert_ne!(done, in_order, "completions neither");
}

#[test]
fn the_end_of_a_write_is_there_before_its_beginning() {
    let (initiator, target) = pair(Settings { hold: 1000, seed: 3, ..calm() });
    initiator.fill(5);
    assert_eq!(initiator.post(&Message::write(&initiator, &target, 0..100, 1)), 0);
    drive([&initiator, &target], |_| target.bytes()[99] == 5);
    assert_eq!(target.bytes()[0], 0);
    drive([&initiator, &target], |[_, theirs]| theirs == [Seen::Data(1)]);
    assert_eq!(target.bytes()[0], 5);
}

#[test]
fn without_delivery_complete_the_initiator_is_done_before_the_bytes_are_there() {
    let settings = Settings { hold: 1000, seed: 3, ..calm() };
    let (initiator, target) = (Side::open(calm()), Side::open(settings));
    target.insert(&initiator.name());
    initiator.insert(&target.name());
    initiator.fill(5);
    let mut message = Message::write(&initiator, &target, 0..100, 1);
    message.flags &= !u64::from(sys::FI_DELIVERY_COMPLETE);
    assert_eq!(initiator.post(&message), 0);
    outcomes(&initiator, &target, 1);
    assert_eq!(target.bytes()[0], 0);
}

#[test]
fn the_source_is_read_after_the_post() {
    let (initiator, target) = pair(calm());
    initiator.fill(1);
    assert_eq!(initiator.post(&Message::write(&initiator, &target, 0..8, 0)), 0);
    initiator.fill(2);
    outcomes(&initiator, &target, 1);
    assert_eq!(target.bytes()[0], 2, "whoever reuses the source too early sends the wrong bytes");
}

#[test]
fn a_peer_that_died_is_unresponsive_then_unreachable() {
    let (initiator, target) = pair(calm());
    let message = Message::write(&initiator, &target, 0..8, 0);
    assert_eq!(initiator.post(&message), 0);
    initiator.poll();
    drop(target);
    let lost = |err, status| Seen::Failed(Failure { context: message.context, err, status });
    assert_eq!(outcomes(&initiator, &initiator, 1), [lost(sys::FI_ECONNABORTED, 13)]);
    assert_eq!(initiator.post(&message), 0);
    assert_eq!(outcomes(&initiator, &initiator, 1), [lost(sys::FI_EHOSTUNREACH, 15)]);
}

#[test]
fn a_successor_with_the_same_number_does_not_take_its_predecessors_writes() {
    let settings = Settings { qpn: Some(40_001), ..calm() };
    let initiator = Side::open(calm());
    let target = Side::open(settings.clone());
    initiator.insert(&target.name());
    let message = Message::write(&initiator, &target, 0..8, 0);
    drop(target);
    let successor = Side::open(settings);
    successor.insert(&initiator.name());
    assert_eq!(initiator.post(&message), 0);
    assert!(matches!(outcomes(&initiator, &successor, 1)[..], [Seen::Failed(_)]));
    assert!(successor.bytes().iter().all(|&byte| byte == 0));
}

#[test]
fn a_removed_peer_writes_here_no_more() {
    let (initiator, target) = pair(Settings { hold: 1000, seed: 3, ..calm() });
    initiator.fill(5);
    assert_eq!(initiator.post(&Message::write(&initiator, &target, 0..100, 1)), 0);
    drive([&initiator, &target], |_| target.bytes()[99] == 5);
    target.remove(0);
    assert_eq!(outcomes(&initiator, &target, 1).len(), 1, "the initiator hears of it");
    assert_eq!(target.bytes()[0], 0);
    assert_eq!(target.violations(), []);
}

#[test]
fn endpoint_options_come_before_enabling() {
    let bare = Side::disabled(calm());
    assert_eq!(bare.enable(), -(sys::FI_EOPBADSTATE as i32));
    assert_eq!(bare.violations(), [Rule::Options]);
    bare.switch_off();
    assert_eq!(bare.enable(), 0);
    assert_eq!(bare.set(sys::FI_OPT_SHARED_MEMORY_PERMITTED, false), -(sys::FI_EOPBADSTATE as i32));
    assert_eq!(bare.violations(), [Rule::Options, Rule::Options]);
}

#[test]
fn a_region_outlives_its_operations_and_a_queue_its_endpoint() {
    let (mut initiator, target) = pair(calm());
    assert_eq!(initiator.post(&Message::write(&initiator, &target, 0..8, 0)), 0);
    assert_eq!(initiator.close_queue(), -(sys::FI_EBUSY as i32));
    initiator.close_region();
    assert_eq!(initiator.violations(), [Rule::CloseOrder, Rule::CloseOrder]);
}

#[test]
fn two_threads_at_once_are_seen() {
    let side = Side::open(calm());
    let seen = || !side.violations().is_empty();
    let deadline = Instant::now() + Duration::from_secs(20);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !seen() && Instant::now() < deadline {
                    (0..1000).for_each(|_| drop(side.poll()));
                }
            });
        }
    });
    assert_eq!(side.violations()[0], Rule::Threads);
}

#[test]
fn memory_that_is_not_there_is_not_registered() {
    let side = Side::open(calm());
    assert_eq!(side.register(4096, 4096), -(sys::FI_EFAULT as i32));
}
