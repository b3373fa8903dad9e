//! What a decision costs, by the size of the fleet: `cargo bench -p baton-policy`. Half of the workers prefill, half decode, in eight groups with three classes of links.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use baton_policy::{
    cost::PrefillCost,
    decide::Decider,
    dice::Dice,
    learn::Learner,
    profile::Profile,
    record::Record,
    view::{Cached, FleetView, RequestView},
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn cached(fleet: &FleetView) -> Vec<Cached> {
    let mut dice = Dice::new(3);
    let some = |dice: &mut Dice| if dice.below(10) == 0 { dice.below(8_000) as u32 } else { 0 };
    fleet.workers.iter().map(|_| Cached::device(some(&mut dice))).collect()
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for workers in [10, 100, 1_000] {
        let busy = common::random_fleet(workers / 2, workers / 2, 8, 1);
        let idle = common::fleet(workers / 2, workers / 2);
        for (name, fleet) in [("busy", &busy), ("idle, all alike", &idle)] {
            let cached = cached(fleet);
            let mut decider = Decider::default();
            let mut dice = 0;
            group.bench_with_input(BenchmarkId::new(name, workers), fleet, |bencher, fleet| {
                bencher.iter(|| {
                    dice += 1;
                    let request = RequestView { cached: &cached, dice, ..common::request() };
                    black_box(decider.decide(fleet, &request, 1.0))
                });
            });
        }
    }
    group.finish();
}

fn records(criterion: &mut Criterion) {
    let fleet = common::random_fleet(500, 500, 8, 1);
    let profile = Profile::default();
    let mut decider = Decider::new(profile.clone());
    let request = common::request();
    if let Ok(decision) = decider.decide(&fleet, &request, 1.0) {
        criterion.bench_function("record of a decision", |bencher| {
            bencher.iter(|| {
                black_box(Record::new("r".to_owned(), &decision, profile.weights, &fleet, &request, 1.0))
            });
        });
    }
}

fn learning(criterion: &mut Criterion) {
    let mut learner = Learner::default();
    let mut dice = Dice::new(1);
    criterion.bench_function("learn from a prompt", |bencher| {
        bencher.iter(|| {
            let new = 100 + dice.below(20_000) as u64;
            let took = PrefillCost::default().predict(new, 1_000) * (0.9 + 0.2 * dice.unit());
            black_box(learner.prefilled("w", new, 1_000, took))
        });
    });
}

criterion_group!(benches, decisions, records, learning);
criterion_main!(benches);
