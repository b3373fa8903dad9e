//! Fleets for tests.
#![allow(dead_code, reason = "each test file uses a part")]

use baton_policy::{
    cost::LinkCost,
    dice::Dice,
    view::{FleetView, LinkClass, Links, RequestView, Role, WorkerView},
};

/// So many prefill workers, then so many decode workers, all idle and alike, over one class of links.
pub(crate) fn fleet(prefill: usize, decode: usize) -> FleetView {
    let workers = (0..prefill + decode).map(|index| {
        let role = if index < prefill { Role::Prefill } else { Role::Decode };
        worker(&format!("w{index}"), role)
    });
    FleetView {
        workers: workers.collect(),
        links: Links::uniform(LinkCost::default()),
        ..FleetView::default()
    }
}

pub(crate) fn worker(id: &str, role: Role) -> WorkerView {
    WorkerView { id: id.into(), role, kv_capacity_tokens: 1_000_000, ..WorkerView::default() }
}

/// 8,000 tokens in, 200 out.
pub(crate) fn request() -> RequestView<'static> {
    RequestView {
        prompt_tokens: 8_000,
        max_tokens: 1_000,
        expected_output_tokens: 200.0,
        kv_bytes_per_token: 131_072.0,
        ..RequestView::default()
    }
}

/// A busy fleet: other loads, costs, roles and groups everywhere, some pairs unconnected.
pub(crate) fn random_fleet(prefill: usize, decode: usize, groups: usize, seed: u64) -> FleetView {
    let mut dice = Dice::new(seed);
    let mut fleet = fleet(prefill, decode);
    for worker in &mut fleet.workers {
        worker.group = dice.below(groups) as u16;
        if dice.below(8) == 0 {
            worker.role = Role::Both;
        }
        for _ in 0..dice.below(4) {
            worker.own.prefill_placed(dice.unit() * 500.0, 0.0);
        }
        for _ in 0..dice.below(16) {
            let tokens = dice.below(20_000) as u64;
            worker.own.sequence_placed(tokens, tokens + 200);
        }
        worker.costs.prefill.per_token_ms *= 0.5 + dice.unit();
        worker.costs.decode.fixed_ms *= 0.5 + dice.unit();
    }
    let classes = (0..3).map(|class| LinkClass {
        name: format!("class {class}"),
        cost: LinkCost { fixed_ms: 1.0, per_byte_ms: 10f64.powi(class) / 40.0e6 },
        distance: f64::from(class) / 2.0,
    });
    fleet.links = Links::try_new(classes.collect(), groups, |from, to| (from + to) % 3).expect("few groups");
    for _ in 0..prefill * decode / 10 {
        fleet.links.set_connected(dice.below(prefill), prefill + dice.below(decode), false);
    }
    if dice.below(2) == 0 {
        let alone = dice.below(prefill);
        (0..prefill + decode).for_each(|to| fleet.links.set_connected(alone, to, false));
    }
    fleet
}
