//! The pruned search finds what looking at every pair finds.

mod common;

use baton_policy::{
    decide::Decider,
    dice::Dice,
    estimate::{Search, Sides, Span, Term, Terms, Weights},
    view::{Cached, FleetView, Objective, RequestView},
};
use proptest::prelude::*;

fn exhaustive(fleet: &FleetView, sides: &Sides<'_>, span: Span<'_>, weights: &Weights) -> Vec<f64> {
    let mut costs: Vec<f64> = span.local.iter().map(|&at| sides.all(None, at).cost(weights)).collect();
    for &prefill in span.prefill {
        for &decode in span.decode {
            if prefill != decode && fleet.links.is_connected(prefill, decode) {
                costs.push(sides.all(Some(prefill), decode).cost(weights));
            }
        }
    }
    costs.sort_by(f64::total_cmp);
    costs
}

fn random_cached(fleet: &FleetView, seed: u64) -> Vec<Cached> {
    let mut dice = Dice::new(seed ^ 1);
    (0..fleet.workers.len())
        .map(|_| match dice.below(4) {
            0 => Cached {
                device_tokens: dice.below(8_000) as u32,
                host_tokens: dice.below(4_000) as u32,
                disk_tokens: dice.below(4_000) as u32,
            },
            _ => Cached::default(),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pruning_loses_nothing(
        seed in any::<u64>(), prefill in 1_usize..30, decode in 1_usize..30, groups in 1_usize..6,
        transfer_weight in prop_oneof![Just(0.0), Just(1.0), 0.1_f64..5.0],
        topology_weight in prop_oneof![Just(0.0), 0.0_f64..300.0],
        with_local in any::<bool>(),
        ttft_ms in prop_oneof![Just(None), (1.0_f64..3_000.0).prop_map(Some)],
        tpot_ms in prop_oneof![Just(None), (1.0_f64..60.0).prop_map(Some)],
    ) {
        let fleet = common::random_fleet(prefill, decode, groups, seed);
        let cached = random_cached(&fleet, seed);
        let objective = Objective { ttft_ms, tpot_ms };
        let request = RequestView { cached: &cached, objective, ..common::request() };
        let weights = Terms::estimate_weights()
            .with(Term::Transfer, transfer_weight)
            .with(Term::Topology, topology_weight)
            .with(Term::Prefix, 20.0)
            .with(Term::KvUsage, 10.0);
        let sides = Sides::new(&fleet, &request, prefill, 0.0);
        let prefills: Vec<usize> = (0..fleet.workers.len()).filter(|&at| fleet.workers[at].prefills()).collect();
        let decodes: Vec<usize> = (0..fleet.workers.len()).filter(|&at| fleet.workers[at].decodes()).collect();
        let local = if with_local { decodes.clone() } else { Vec::new() };
        let span = Span { prefill: &prefills, decode: &decodes, local: &local };
        let found: Vec<_> = Search::default().run(&fleet, &sides, span, &weights).collect();
        let all = exhaustive(&fleet, &sides, span, &weights);
        prop_assert_eq!(found.len(), all.len().min(8));
        for (found, cost) in found.iter().zip(&all) {
            prop_assert!((found.cost - cost).abs() <= 1e-9 * cost.abs().max(1.0), "{found:?} but {cost}");
            let terms = sides.all(found.prefill, found.decode);
            prop_assert!((terms.cost(&weights) - found.cost).abs() <= 1e-9 * cost.abs().max(1.0));
        }
    }

    #[test]
    fn buffers_do_not_remember(seeds in proptest::collection::vec(any::<u64>(), 2..6)) {
        let mut used = Decider::default();
        for seed in seeds {
            let fleet = common::random_fleet(1 + seed as usize % 9, 1 + seed as usize % 7, 1 + seed as usize % 4, seed);
            let request = RequestView { dice: seed, ..common::request() };
            prop_assert_eq!(used.decide(&fleet, &request, 5.0), Decider::default().decide(&fleet, &request, 5.0));
        }
    }
}
