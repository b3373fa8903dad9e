//! Some 11,000 worlds in as many seconds on two cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::net::Faults;
use super::schedule::{Climate, Report, run};

pub(super) const CALM: Climate = Climate {
    faults: Faults {
        failed: 0,
        rerouted: 0,
        arrival_lost: 0,
        arrival_repeated: 0,
        corrupted: 0,
        completion_lost: 0,
        stuck: 0,
    },
    disasters: 0,
    restarts: false,
    crowd: false,
};
const STORMY: Climate = Climate { disasters: 4, ..CALM };
const FAILING: Climate = Climate { faults: Faults { failed: 20, ..CALM.faults }, disasters: 2, ..CALM };
const REROUTED: Climate = Climate { faults: Faults { rerouted: 100, ..CALM.faults }, ..CALM };
const REROUTED_AND_STORMY: Climate = Climate { disasters: 3, ..REROUTED };
const LOSSY: Climate = Climate { faults: Faults { arrival_lost: 20, ..CALM.faults }, disasters: 1, ..CALM };
const REPEATING: Climate = Climate {
    faults: Faults { arrival_repeated: 20, arrival_lost: 20, ..CALM.faults },
    disasters: 1,
    ..CALM
};
const CORRUPTING: Climate = Climate { faults: Faults { corrupted: 20, ..CALM.faults }, disasters: 1, ..CALM };
const FORGETFUL: Climate =
    Climate { faults: Faults { completion_lost: 10, ..CALM.faults }, disasters: 2, ..CALM };
const STICKY: Climate = Climate { faults: Faults { stuck: 10, ..CALM.faults }, disasters: 2, ..CALM };
const RESTARTING: Climate = Climate { disasters: 3, restarts: true, ..CALM };
const CROWDED: Climate = Climate { crowd: true, ..CALM };
const CROWDED_AND_STORMY: Climate = Climate { disasters: 3, ..CROWDED };

/// Runs the worlds of `seeds` on all processors; says how many transfers there were, how many arrived, and what was seen.
pub(super) fn check(climate: Climate, worlds: u64) -> Report {
    if let Some(seed) = std::env::var("BATON_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let report = run(seed, climate, true);
        assert_eq!(report.violations, [""; 0]);
        return report;
    }
    let (next, total) = (AtomicU64::new(0), Mutex::new(Report::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= worlds {
                        return;
                    }
                    let report = run(seed, climate, false);
                    assert!(report.violations.is_empty(), "BATON_SIM_SEED={seed}: {:#?}", report.violations);
                    let stuck = climate.crowd && climate.disasters == 0 && report.received == 0;
                    assert!(!stuck, "BATON_SIM_SEED={seed}: none of {} got through", report.transfers);
                    total.lock().unwrap().add(&report);
                }
            });
        }
    });
    total.into_inner().unwrap()
}

#[test]
fn a_seed_replays_to_the_byte() {
    for seed in 0..50 {
        let first: Report = run(seed, STORMY, false);
        assert_eq!(first, run(seed, STORMY, false), "seed {seed}");
        assert_ne!(first.trace, run(seed + 1, STORMY, false).trace);
    }
}

#[test]
fn a_restart_a_crowd_and_full_checksums_replay_too() {
    for seed in 0..20 {
        for climate in [RESTARTING, CROWDED_AND_STORMY, CORRUPTING] {
            assert_eq!(run(seed, climate, false), run(seed, climate, false), "seed {seed}");
        }
    }
}

#[test]
fn on_a_calm_network_what_nobody_gives_up_arrives() {
    let Report { transfers, received, pulls, seen, .. } = check(CALM, 1200);
    assert!(received * 10 > transfers * 4, "{received} of {transfers}");
    assert!(pulls * 6 > transfers && seen.fetched * 2 > seen.fetches, "{seen:?}");
    assert!(seen.fetched_converted * 5 > seen.fetched && seen.offers_gone * 8 > seen.fetches, "{seen:?}");
    assert!(seen.joined * 20 > received, "{} of {received} had several senders", seen.joined);
}

#[test]
fn deaths_pauses_and_cut_connections_leave_right_bytes_or_an_error_and_no_leak() {
    let Report { transfers, received, seen, .. } = check(STORMY, 4000);
    assert!(received * 10 > transfers * 2, "{received} of {transfers}");
    assert!(seen.fetched * 3 > seen.fetches && seen.offers_gone * 12 > seen.fetches, "{seen:?}");
    assert!(seen.fetched_converted * 5 > seen.fetched, "{seen:?}");
    assert!(seen.joined * 12 > received, "{} of {received} had several senders", seen.joined);
}

#[test]
fn a_node_restarted_under_its_name_is_not_taken_for_its_former_life() {
    let Report { transfers, received, seen, .. } = check(RESTARTING, 1500);
    assert!(received * 10 > transfers * 2, "{received} of {transfers}");
    assert!(seen.stale_incarnations > 120, "{seen:?}");
    assert!(seen.fetched * 3 > seen.fetches, "{seen:?}");
}

#[test]
fn a_crowd_gets_through_with_few_blocks_slots_and_permits() {
    let Report { transfers, received, seen, .. } = check(CROWDED, 400);
    assert!(received * 10 > transfers * 5, "{received} of {transfers}");
    assert!(seen.shortages > transfers, "{seen:?}");
    assert!(seen.joined > 100, "{seen:?}");
    assert!(seen.fetched * 3 > seen.fetches, "{seen:?}");
}

#[test]
fn a_crowd_in_a_storm_ends() {
    let Report { transfers, received, seen, .. } = check(CROWDED_AND_STORMY, 300);
    assert!(received * 10 > transfers * 2, "{received} of {transfers}");
    assert!(seen.shortages > 500, "{seen:?}");
}

#[test]
fn failed_writes_are_errors_at_both_ends() {
    check(FAILING, 900);
}

/// Each agent takes its source blocks for something else as soon as it may, and the oracle sees whoever reads them then.
#[test]
fn writes_that_do_not_come_back_end_their_peer_or_their_data_plane_before_their_source_is_used_again() {
    for climate in [FORGETFUL, STICKY] {
        let Report { transfers, received, seen, .. } = check(climate, 600);
        assert!(received * 10 > transfers * 2, "{received} of {transfers}");
        assert!(seen.severed > 50 && seen.failed_planes > 50, "{seen:?}");
    }
}

#[test]
fn failed_paths_cost_time_and_no_transfer() {
    let (with, without) = (check(REROUTED, 600), check(CALM, 600));
    // Some have no patience for the drain.
    assert!(with.received * 10 > without.received * 8, "{} of {}", with.received, without.received);
}

#[test]
fn failed_paths_in_a_storm_leave_right_bytes_or_an_error_and_no_leak() {
    let Report { transfers, received, .. } = check(REROUTED_AND_STORMY, 900);
    assert!(received * 10 > transfers * 2, "{received} of {transfers}");
}

#[test]
fn lost_arrivals_end_at_the_deadline() {
    check(LOSSY, 900);
}

#[test]
fn repeated_arrivals_do_not_make_up_for_lost_ones() {
    check(REPEATING, 900);
}

#[test]
fn corrupted_bytes_are_not_served() {
    check(CORRUPTING, 900);
}
