//! The slot table under named cases and under random schedules.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::checksum::Selection;
use crate::ids::{Immediate, Sequence};
use crate::layout::Conversion;
use crate::tally::Tally;
use crate::wire::{Manifest, Withdrawn};
use crate::{KvLayout, TensorParallel};

const LAYERS: u32 = 2;
const SECRET: u64 = 77;
const SENDER: PeerId = PeerId(1);
const OTHER: PeerId = PeerId(2);
const EXPIRY: Duration = Duration::from_secs(10);

/// A pool of 12 blocks of one token, with all of the model's two heads or one of them.
fn geometry(rank: u32, size: u32) -> KvGeometry {
    let plain = KvGeometry::plain(LAYERS, 12, 32);
    let tensor_parallel = TensorParallel { rank, size };
    KvGeometry { layout: KvLayout { kv_heads: 2, tensor_parallel, ..plain.layout }, ..plain }
}

struct Bench {
    /// Whether the senders are two ranks, `SENDER` the first and `OTHER` the second.
    ranks: bool,
    /// Whether all writes are of chunks.
    staged: bool,
    arrivals: BTreeMap<(TransferKey, PeerId), TransferKey>,
    table: ReceiveTable,
    now: Instant,
    counters: Arc<Counters>,
    effects: Vec<Effect>,
    /// Writes that each transfer saw.
    landed: BTreeMap<(TransferKey, PeerId), u32>,
}

impl Bench {
    fn new() -> Self {
        let counters = Arc::new(Counters::default());
        let rules = TableRules {
            geometry: geometry(0, 1),
            checksums: ChecksumMode::Sampled,
            slots: 3,
            blocks_per_transfer: 8,
            chunks: 2,
        };
        let table = ReceiveTable::new(rules, counters.clone());
        let (ranks, arrivals, landed) = (false, BTreeMap::new(), BTreeMap::new());
        Self {
            ranks,
            staged: false,
            arrivals,
            table,
            now: Instant::now(),
            counters,
            effects: Vec::new(),
            landed,
        }
    }

    fn expect(&mut self, blocks: &[u32]) -> Result<Arc<IncomingCell>, ExpectError> {
        let tokens = blocks.len() as u32;
        self.table.expect(&Expected { blocks, tokens, secret: SECRET, expires_in: EXPIRY }, self.now)
    }

    fn attached(&mut self, blocks: &[u32]) -> Arc<IncomingCell> {
        let cell = self.expect(blocks).unwrap();
        self.attach(SENDER, cell.key, SECRET).unwrap();
        cell
    }

    fn conversion(&self, peer: PeerId) -> Arc<Conversion> {
        let source = if self.ranks { geometry(u32::from(peer == OTHER), 2) } else { geometry(0, 1) };
        Arc::new(Conversion::between(source, geometry(0, 1)).unwrap())
    }

    fn attach(&mut self, peer: PeerId, key: TransferKey, secret: u64) -> Result<(), AttachError> {
        let arrivals = self.table.attach(peer, &self.conversion(peer), key, secret, self.staged)?;
        self.arrivals.insert((key, peer), arrivals);
        if self.staged {
            self.table.want(peer, key, 3, &mut self.effects);
        }
        Ok(())
    }

    /// The transfer's next write.
    fn land(&mut self, key: TransferKey) {
        self.land_from(SENDER, key);
    }

    fn land_from(&mut self, peer: PeerId, key: TransferKey) {
        let landed = self.landed.entry((key, peer)).or_default();
        *landed += 1;
        let write = *landed - 1;
        let arrivals = self.arrivals.get(&(key, peer)).copied().unwrap_or(key);
        self.land_number(peer, arrivals, write);
    }

    fn land_number(&mut self, from: PeerId, key: TransferKey, write: u32) {
        let immediate = Immediate { key, sequence: Sequence::of(write) };
        self.table.write_landed(Some(from), immediate.encode(), &mut self.effects);
    }

    fn announce(&mut self, cell: &IncomingCell, writes: u32) {
        self.announce_from(SENDER, cell, writes);
    }

    fn announce_from(&mut self, peer: PeerId, cell: &IncomingCell, writes: u32) {
        self.announce_with(peer, cell, writes, &[]);
    }

    /// The writes of these numbers may land or not.
    fn announce_with(&mut self, peer: PeerId, cell: &IncomingCell, writes: u32, doubtful: &[u32]) {
        let mut tally = Tally::default();
        doubtful.iter().for_each(|&write| tally.add(Sequence::of(write)));
        let units = cell.blocks.len() as u32;
        let selection = Selection::new(ChecksumMode::Sampled, SECRET, LAYERS, units);
        let manifest = Manifest {
            key: cell.key.into(),
            writes,
            bytes: self.conversion(peer).bytes(units),
            layers: LAYERS,
            units,
            pieces: u64::from(LAYERS * units),
            tokens: units,
            checksums: 1,
            hashes: vec![0; selection.len() * 8],
            doubtful: (tally.writes > 0).then_some(tally),
        };
        self.table.manifest(peer, cell.key, &manifest, &mut self.effects);
    }

    fn withdraw(&mut self, key: TransferKey, writes: Option<u32>) {
        self.withdraw_from(SENDER, key, writes);
    }

    fn withdraw_from(&mut self, peer: PeerId, key: TransferKey, writes: Option<u32>) {
        let (writes, reason) = (writes.map(Tally::first), "gave up".to_owned());
        let withdrawn = Withdrawn { key: key.into(), writes, reason };
        self.table.withdrawn(peer, key, &withdrawn, &mut self.effects);
    }

    /// Says of some chunks that have landed that they are in the blocks, or are not what they should be.
    fn scatter(&mut self, sound: bool) {
        let is_scatter = |effect: &mut Effect| matches!(effect, Effect::Scatter(_));
        let scatters: Vec<Effect> = self.effects.extract_if(.., is_scatter).collect();
        for effect in scatters {
            let Effect::Scatter(scatter) = effect else { unreachable!("extracted") };
            let outcome = if sound { Ok(()) } else { Err("it is empty".to_owned()) };
            self.table.scattered(&scatter, outcome, &mut self.effects);
        }
    }

    /// Says of the transfers that are to be drained that they are.
    fn drain(&mut self) {
        let is_drain = |effect: &mut Effect| matches!(effect, Effect::Drain { .. });
        let drains: Vec<Effect> = self.effects.extract_if(.., is_drain).collect();
        for effect in drains {
            let Effect::Drain { key, sender, stray } = effect else { unreachable!("extracted") };
            match stray {
                Some(sequence) => self.table.stray_drained(key, sender, sequence, &mut self.effects),
                None => self.table.part_drained(key, sender, &mut self.effects),
            }
        }
    }

    fn quiet(&self, cell: &Arc<IncomingCell>) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Quiet(quiet) if Arc::ptr_eq(quiet, cell)))
    }

    fn told(&self, key: TransferKey) -> bool {
        self.effects
            .iter()
            .any(|effect| matches!(effect, Effect::TellAbort { key: told, .. } if *told == key))
    }

    /// Blocks owned, and quarantined ones, recounted from the slots.
    fn check(&self) {
        let owned = |state: &State| match state {
            State::Free | State::PartOf(_) => (0, 0),
            State::Live(live) => (live.cell.blocks.len(), 0),
            State::Fenced(fenced) => (fenced.cell.blocks.len(), fenced.cell.blocks.len()),
        };
        let counts: Vec<_> = self.table.slots.iter().map(|entry| owned(&entry.state)).collect();
        let busy = self.table.busy.iter().filter(|&&busy| busy).count();
        assert_eq!(busy, counts.iter().map(|(owned, _)| owned).sum::<usize>(), "conservation of blocks");
        let fenced: usize = counts.iter().map(|(_, fenced)| fenced).sum();
        assert_eq!(self.counters.quarantined_blocks.get(), fenced as u64);
        let used = self.table.slots.iter().filter(|entry| !matches!(entry.state, State::Free)).count();
        assert_eq!(self.table.free.len() + used, 3);
        assert_eq!(self.counters.incoming_live.get(), used as u64);
    }
}

#[test]
fn completes_whichever_comes_last() {
    for manifest_first in [true, false] {
        let mut bench = Bench::new();
        let cell = bench.attached(&[1, 2]);
        if manifest_first {
            bench.announce(&cell, 2);
        }
        bench.land(cell.key);
        assert!(!bench.quiet(&cell), "one write is missing");
        bench.land(cell.key);
        if !manifest_first {
            assert!(!bench.quiet(&cell), "the manifest is missing");
            bench.announce(&cell, 2);
        }
        assert!(bench.quiet(&cell) && bench.table.is_empty());
        bench.check();
    }
}

#[test]
fn writes_of_an_old_generation_complete_nothing() {
    let mut bench = Bench::new();
    let old = bench.attached(&[1]);
    bench.table.abort(old.key, &mut bench.effects);
    bench.withdraw(old.key, Some(0));
    assert!(bench.quiet(&old));
    // The free list is first in, first out: fill the others to get the same slot again.
    let (_a, _b) = (bench.expect(&[8]).unwrap(), bench.expect(&[9]).unwrap());
    let new = bench.attached(&[1]);
    assert_eq!(new.key.slot, old.key.slot);
    bench.announce(&new, 1);
    bench.land(old.key);
    assert!(!bench.quiet(&new));
    assert_eq!((bench.counters.late_writes.get(), bench.counters.writes_received.get()), (1, 0));
    bench.land(new.key);
    assert!(bench.quiet(&new));
}

#[test]
fn nobody_else_can_complete_attach_or_withdraw() {
    let mut bench = Bench::new();
    let cell = bench.expect(&[1]).unwrap();
    assert!(bench.attach(SENDER, cell.key, SECRET + 1).is_err(), "forged");
    bench.attach(SENDER, cell.key, SECRET).unwrap();
    assert!(bench.attach(OTHER, cell.key, SECRET).is_err(), "taken");
    bench.announce(&cell, 1);
    bench.land_number(OTHER, cell.key, 0);
    bench.withdraw_from(OTHER, cell.key, None);
    assert!(bench.effects.is_empty());
    assert_eq!(bench.counters.late_writes.get(), 1);
    bench.land(cell.key);
    assert!(bench.quiet(&cell));
}

#[test]
fn blocks_stay_fenced_until_the_sender_withdraws() {
    let mut bench = Bench::new();
    let cell = bench.attached(&[1, 2]);
    bench.now += EXPIRY;
    bench.table.tick(bench.now, &mut bench.effects);
    assert!(bench.told(cell.key) && !bench.quiet(&cell));
    assert_eq!(bench.expect(&[2]).unwrap_err(), ExpectError::BlockBusy { block: 2 });
    assert_eq!(bench.table.next_deadline(), None, "no time lifts this fence");
    bench.withdraw(cell.key, Some(0));
    assert!(bench.quiet(&cell));
    bench.expect(&[2]).unwrap();
}

#[test]
fn a_death_is_drained_and_what_was_announced_may_still_complete() {
    let mut bench = Bench::new();
    let (whole, torn) = (bench.attached(&[1]), bench.attached(&[2]));
    bench.announce(&whole, 1);
    bench.table.peer_lost(SENDER, "peer", &mut bench.effects);
    assert!(bench.effects.is_empty(), "both wait for the drain");
    bench.land(whole.key);
    assert!(bench.quiet(&whole));
    bench.now += 3 * EXPIRY;
    bench.table.tick(bench.now, &mut bench.effects);
    assert!(!bench.quiet(&torn), "no time lifts this fence");
    bench.table.peer_drained(SENDER, &mut bench.effects);
    assert!(bench.quiet(&torn) && bench.table.is_empty());
    bench.check();
}

#[test]
fn what_was_announced_by_the_dead_and_did_not_come_fails_when_it_is_drained() {
    let mut bench = Bench::new();
    let cell = bench.attached(&[1]);
    bench.announce(&cell, 2);
    bench.land(cell.key);
    bench.table.peer_lost(SENDER, "peer", &mut bench.effects);
    assert!(!bench.told(cell.key) && !bench.table.renew(cell.key, EXPIRY, bench.now));
    bench.table.peer_drained(SENDER, &mut bench.effects);
    assert!(bench.quiet(&cell) && bench.table.is_empty());
    assert_eq!(bench.counters.incoming_failed.get(), 1);
}

#[test]
fn a_withdrawal_with_a_count_waits_for_it_and_one_without_for_the_drain() {
    let mut bench = Bench::new();
    let (counted, lossy, unknown) = (bench.attached(&[1]), bench.attached(&[2]), bench.attached(&[3]));
    for (cell, writes) in [(&counted, Some(2)), (&lossy, Some(2)), (&unknown, None)] {
        bench.land(cell.key);
        bench.withdraw(cell.key, writes);
        assert!(!bench.quiet(cell), "{writes:?}");
        bench.withdraw(cell.key, writes);
    }
    bench.now += 3 * EXPIRY;
    bench.table.tick(bench.now, &mut bench.effects);
    bench.land(counted.key);
    assert!(bench.quiet(&counted), "all that it wrote is here");
    assert!(!bench.quiet(&lossy) && !bench.quiet(&unknown), "no time lifts these");
    let drains = bench.effects.iter().filter(|effect| matches!(effect, Effect::Drain { .. })).count();
    assert_eq!(drains, 3, "each once, however often it is said");
    bench.drain();
    assert!(bench.quiet(&lossy) && bench.quiet(&unknown));
    bench.check();
}

#[test]
fn a_manifest_below_the_count_is_a_lie() {
    let mut bench = Bench::new();
    let cell = bench.attached(&[1]);
    bench.land(cell.key);
    bench.land(cell.key);
    bench.announce(&cell, 1);
    assert!(bench.told(cell.key) && !bench.quiet(&cell));
}

#[test]
fn a_repeated_write_does_not_stand_for_a_lost_one() {
    let mut bench = Bench::new();
    let (early, late) = (bench.attached(&[1]), bench.attached(&[2]));
    bench.announce(&early, 2);
    for cell in [&early, &late] {
        bench.land_number(SENDER, cell.key, 0);
        bench.land_number(SENDER, cell.key, 0);
    }
    bench.announce(&late, 2);
    for cell in [&early, &late] {
        assert!(bench.told(cell.key) && !bench.quiet(cell), "failed, and fenced");
    }
}

#[test]
fn a_doubtful_write_is_waited_for_until_it_cannot_land_any_more() {
    let mut bench = Bench::new();
    let cell = bench.attached(&[1]);
    // The second was posted again as the third.
    bench.land_number(SENDER, cell.key, 0);
    bench.land_number(SENDER, cell.key, 2);
    bench.announce_with(SENDER, &cell, 3, &[1]);
    assert!(!bench.quiet(&cell), "it may still land, in a block that would be somebody else's");
    bench.drain();
    assert!(bench.quiet(&cell) && !bench.told(cell.key) && bench.table.is_empty());
    assert_eq!(bench.table.next_deadline(), None);
    bench.check();
}

#[test]
fn blocks_of_an_uncertain_sender_are_drained() {
    for manifest_first in [false, true] {
        let mut bench = Bench::new();
        let cell = bench.attached(&[1]);
        bench.table.abort(cell.key, &mut bench.effects);
        bench.land_number(SENDER, cell.key, 0);
        if manifest_first {
            // It was on its way when the transfer was aborted.
            bench.announce_with(SENDER, &cell, 2, &[1]);
        }
        bench.withdraw(cell.key, None);
        assert!(!bench.quiet(&cell), "a write may land yet");
        bench.drain();
        assert!(bench.quiet(&cell));
        bench.check();
    }
}

#[test]
fn the_chunk_of_a_stray_write_is_granted_anew_when_nothing_can_land_there() {
    let mut bench = Bench { staged: true, ..Bench::new() };
    let (first, second) = (bench.attached(&[1]), bench.attached(&[2]));
    let grants = |bench: &Bench, of: &IncomingCell| {
        let granted = |effect: &&Effect| matches!(effect, Effect::Grant { key, .. } if *key == of.key);
        bench.effects.iter().filter(granted).count()
    };
    assert_eq!((grants(&bench, &first), grants(&bench, &second)), (2, 0), "there are two chunks");
    bench.table.stray(SENDER, first.key, 0, &mut bench.effects);
    assert_eq!((grants(&bench, &first), grants(&bench, &second)), (2, 0), "its write may land yet");
    bench.drain();
    assert_eq!(grants(&bench, &first) + grants(&bench, &second), 3);
    bench.check();
}

#[test]
fn a_number_that_comes_round_waits_for_the_stray_that_had_it() {
    let mut bench = Bench { staged: true, ..Bench::new() };
    let cell = bench.attached(&[1]);
    bench.table.stray(SENDER, cell.key, 0, &mut bench.effects);
    bench.table.stray(SENDER, cell.key, 0, &mut bench.effects);
    let drains =
        |bench: &Bench| bench.effects.iter().filter(|effect| matches!(effect, Effect::Drain { .. })).count();
    assert_eq!(drains(&bench), 1, "however often it is said");
    let granted =
        |bench: &Bench| bench.effects.iter().filter(|effect| matches!(effect, Effect::Grant { .. })).count();
    for write in 1..Sequence::COUNT {
        assert_eq!(granted(&bench) as u32, 1 + write, "each chunk that comes back is granted again");
        bench.land_number(SENDER, cell.key, write);
        bench.scatter(true);
        bench.table.want(SENDER, cell.key, 1, &mut bench.effects);
    }
    let before = granted(&bench);
    bench.table.want(SENDER, cell.key, 1, &mut bench.effects);
    assert_eq!(granted(&bench), before, "the next number is the stray's");
    // It lands late, and stands for no other.
    bench.land_number(SENDER, cell.key, 0);
    bench.scatter(true);
    bench.table.want(SENDER, cell.key, 1, &mut bench.effects);
    assert_eq!(granted(&bench), before);
    bench.drain();
    assert!(granted(&bench) > before);
    bench.check();
}

#[test]
fn a_doubtful_write_that_landed_is_not_waited_for() {
    let mut bench = Bench::new();
    let cell = bench.attached(&[1]);
    bench.announce_with(SENDER, &cell, 3, &[1]);
    [2, 1, 0].into_iter().for_each(|write| bench.land_number(SENDER, cell.key, write));
    assert!(bench.quiet(&cell) && bench.table.is_empty());
    assert_eq!(bench.table.next_deadline(), None);
}

#[test]
fn a_missing_write_that_was_not_doubtful_is_an_error() {
    let mut bench = Bench::new();
    let cell = bench.attached(&[1]);
    bench.announce_with(SENDER, &cell, 3, &[1]);
    [0, 1].into_iter().for_each(|write| bench.land_number(SENDER, cell.key, write));
    bench.drain();
    assert_eq!(bench.counters.incoming_failed.get(), 1, "the doubtful one does not stand for it");
    assert!(bench.quiet(&cell), "its sender has nothing under way");
    bench.check();
}

#[test]
fn impossible_requests_leave_no_trace() {
    let mut bench = Bench::new();
    assert_eq!(bench.expect(&[]).unwrap_err(), ExpectError::Empty);
    assert_eq!(bench.expect(&[3, 4, 3]).unwrap_err(), ExpectError::DuplicateBlock { block: 3 });
    assert_eq!(bench.expect(&[12]).unwrap_err(), ExpectError::NoSuchBlock { block: 12, blocks: 12 });
    let nine: Vec<u32> = (0..9).collect();
    assert_eq!(bench.expect(&nine).unwrap_err(), ExpectError::TooManyBlocks { blocks: 9, limit: 8 });
    let held: Vec<_> = (0..3).map(|i| bench.expect(&[i]).unwrap()).collect();
    assert_eq!(bench.expect(&[7]).unwrap_err(), ExpectError::Full { limit: 3 });
    drop(held);
    bench.check();
}

#[test]
fn a_renewed_lease_ends_later_and_one_that_is_over_stays_over() {
    let mut bench = Bench::new();
    let cell = bench.attached(&[1]);
    bench.now += EXPIRY / 2;
    assert!(bench.table.renew(cell.key, EXPIRY, bench.now));
    bench.now += EXPIRY * 3 / 4;
    bench.table.tick(bench.now, &mut bench.effects);
    assert!(!bench.told(cell.key), "it would have expired");
    bench.check();
    bench.now += EXPIRY / 4;
    bench.table.tick(bench.now, &mut bench.effects);
    assert!(bench.told(cell.key) && !bench.table.renew(cell.key, EXPIRY, bench.now));
    bench.withdraw(cell.key, Some(0));
    assert_eq!(bench.table.next_deadline(), None);
}

#[test]
fn two_ranks_make_one_transfer_each_counted_apart() {
    let mut bench = Bench { ranks: true, ..Bench::new() };
    let cell = bench.attached(&[1, 2]);
    bench.attach(OTHER, cell.key, SECRET).unwrap();
    assert!(bench.attach(PeerId(3), cell.key, SECRET).is_err(), "both ranks are here");
    bench.announce_from(SENDER, &cell, 2);
    bench.announce_from(OTHER, &cell, 2);
    (0..2).for_each(|_| bench.land_from(SENDER, cell.key));
    bench.land_from(OTHER, cell.key);
    assert!(!bench.quiet(&cell), "the second rank's last write is missing");
    bench.check();
    bench.land_from(OTHER, cell.key);
    assert!(bench.quiet(&cell) && bench.table.is_empty());
    bench.check();
}

#[test]
fn one_rank_giving_up_ends_the_transfer_and_the_fence_waits_for_the_other() {
    let mut bench = Bench { ranks: true, ..Bench::new() };
    let cell = bench.attached(&[1]);
    bench.attach(OTHER, cell.key, SECRET).unwrap();
    bench.withdraw_from(OTHER, cell.key, Some(0));
    assert!(bench.told(cell.key) && !bench.quiet(&cell), "the first rank may still write");
    assert_eq!(bench.expect(&[1]).unwrap_err(), ExpectError::BlockBusy { block: 1 });
    bench.withdraw_from(SENDER, cell.key, Some(0));
    assert!(bench.quiet(&cell));
    bench.check();
}

#[test]
fn a_rank_for_which_there_is_no_slot_is_refused() {
    let mut bench = Bench { ranks: true, ..Bench::new() };
    let cells = [0, 1, 2].map(|block| bench.attached(&[block]));
    assert_eq!(bench.attach(OTHER, cells[0].key, SECRET), Err(AttachError::Full { slots: 3 }));
    bench.table.abort(cells[1].key, &mut bench.effects);
    bench.withdraw(cells[1].key, Some(0));
    bench.attach(OTHER, cells[0].key, SECRET).unwrap();
    bench.check();
}

#[derive(Clone, Debug)]
enum Step {
    Expect(u32),
    Attach(usize, bool),
    Land(usize, bool),
    Announce(usize, bool, u32),
    Withdraw(usize, bool, Option<u32>),
    Abort(usize),
    Renew(usize, u64),
    Scatter(bool),
    Drain,
    Lose(bool),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u32..10).prop_map(Step::Expect),
        3 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(i, ours)| Step::Attach(i, ours)),
        4 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(i, ours)| Step::Land(i, ours)),
        3 => (0usize..8, prop::bool::weighted(0.8), 0u32..4).prop_map(|(i, ours, writes)| Step::Announce(i, ours, writes)),
        2 => (0usize..8, prop::bool::weighted(0.8), prop::option::of(0u32..4))
            .prop_map(|(i, ours, writes)| Step::Withdraw(i, ours, writes)),
        2 => (0usize..8).prop_map(Step::Abort),
        1 => (0usize..8, 0u64..20_000).prop_map(|(i, ms)| Step::Renew(i, ms)),
        3 => prop::bool::weighted(0.9).prop_map(Step::Scatter),
        2 => Just(Step::Drain),
        1 => any::<bool>().prop_map(Step::Lose),
        1 => (0u64..20_000).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens in whatever order: no block is lost or owned twice, every write is counted once, every transfer
    /// becomes quiet exactly once, and the table empties when the peers are gone and time has passed.
    #[test]
    fn conservation_under_any_schedule(steps in steps(), ranks: bool, staged: bool) {
        let mut bench = Bench { ranks, staged, ..Bench::new() };
        let peer = |ours| if ours { SENDER } else { OTHER };
        let mut cells: Vec<Arc<IncomingCell>> = Vec::new();
        let mut landed = 0;
        for step in steps {
            let pick = |i: usize| (!cells.is_empty()).then(|| cells[i % cells.len()].clone());
            match step {
                Step::Expect(block) => cells.extend(bench.expect(&[block, block + 1])),
                Step::Attach(i, ours) => if let Some(cell) = pick(i) {
                    let _ = bench.attach(peer(ours), cell.key, SECRET);
                },
                Step::Land(i, ours) => if let Some(cell) = pick(i) {
                    bench.land_from(peer(ours), cell.key);
                    landed += 1;
                },
                Step::Announce(i, ours, writes) => if let Some(cell) = pick(i) { bench.announce_from(peer(ours), &cell, writes); },
                Step::Withdraw(i, ours, writes) => if let Some(cell) = pick(i) { bench.withdraw_from(peer(ours), cell.key, writes); },
                Step::Abort(i) => if let Some(cell) = pick(i) { bench.table.abort(cell.key, &mut bench.effects); },
                Step::Renew(i, ms) => if let Some(cell) = pick(i) {
                    bench.table.renew(cell.key, Duration::from_millis(ms), bench.now);
                },
                Step::Scatter(sound) => bench.scatter(sound),
                Step::Drain => bench.drain(),
                Step::Lose(ours) => bench.table.peer_lost(peer(ours), "peer", &mut bench.effects),
                Step::Wait(ms) => {
                    bench.now += Duration::from_millis(ms);
                    bench.table.tick(bench.now, &mut bench.effects);
                }
            }
            bench.check();
            prop_assert_eq!(bench.counters.late_writes.get() + bench.counters.writes_received.get(), landed);
        }
        bench.scatter(true);
        bench.now += 2 * EXPIRY;
        bench.table.tick(bench.now, &mut bench.effects);
        for peer in [SENDER, OTHER] {
            bench.table.peer_lost(peer, "peer", &mut bench.effects);
        }
        bench.drain();
        for peer in [SENDER, OTHER] {
            bench.table.peer_drained(peer, &mut bench.effects);
        }
        prop_assert!(bench.table.is_empty());
        prop_assert_eq!(bench.table.next_deadline(), None);
        prop_assert_eq!(bench.table.chunks.free(), 2);
        bench.check();
        let mut quiet = BTreeMap::new();
        for effect in &bench.effects {
            if let Effect::Quiet(cell) = effect {
                *quiet.entry(cell.key).or_insert(0) += 1;
            }
        }
        prop_assert!(quiet.values().all(|&times| times == 1));
        prop_assert_eq!(quiet.len(), cells.len());
    }
}
