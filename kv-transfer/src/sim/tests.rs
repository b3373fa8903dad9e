//! Thousands of worlds: 18,000 in some seconds.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::net::Faults;
use super::schedule::{Climate, Report, run};

const CALM: Climate = Climate {
    faults: Faults { failed: 0, arrival_lost: 0, arrival_repeated: 0, corrupted: 0 },
    disasters: 0,
};
const STORMY: Climate = Climate { disasters: 4, ..CALM };
const FAILING: Climate = Climate { faults: Faults { failed: 20, ..CALM.faults }, disasters: 2 };
const LOSSY: Climate = Climate { faults: Faults { arrival_lost: 20, ..CALM.faults }, disasters: 1 };
const REPEATING: Climate =
    Climate { faults: Faults { arrival_repeated: 20, arrival_lost: 20, ..CALM.faults }, disasters: 1 };
const CORRUPTING: Climate = Climate { faults: Faults { corrupted: 20, ..CALM.faults }, disasters: 1 };

/// Runs the worlds of `seeds` on all processors; says how many transfers there were, and how many arrived.
fn check(climate: Climate, worlds: u64) -> (usize, usize) {
    if let Some(seed) = std::env::var("BATON_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let report = run(seed, climate, true);
        assert_eq!(report.violations, [""; 0]);
        return (report.transfers, report.received);
    }
    let (next, transfers, received) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
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
                    transfers.fetch_add(report.transfers, Ordering::Relaxed);
                    received.fetch_add(report.received, Ordering::Relaxed);
                }
            });
        }
    });
    (transfers.into_inner(), received.into_inner())
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
fn on_a_calm_network_what_nobody_gives_up_arrives() {
    let (transfers, received) = check(CALM, 2000);
    assert!(received * 10 > transfers * 4, "{received} of {transfers}");
}

#[test]
fn deaths_pauses_and_cut_connections_leave_right_bytes_or_an_error_and_no_leak() {
    let (transfers, received) = check(STORMY, 8000);
    assert!(received * 10 > transfers * 2, "{received} of {transfers}");
}

#[test]
fn failed_writes_are_errors_at_both_ends() {
    check(FAILING, 2000);
}

#[test]
fn lost_arrivals_end_at_the_deadline() {
    check(LOSSY, 2000);
}

#[test]
fn repeated_arrivals_do_not_make_up_for_lost_ones() {
    check(REPEATING, 2000);
}

#[test]
fn corrupted_bytes_are_not_served() {
    check(CORRUPTING, 2000);
}
