//! Each rule of placement, by the smallest fleet that shows it.

mod common;

use baton_policy::{
    cost::LinkCost,
    decide::Decider,
    profile::{Disaggregate, Filter, Picker, Profile, parse},
    view::{Cached, FleetView, LinkClass, Links, Placed, Report, RequestView, Role},
};
use common::{fleet, request, worker};

fn decide(fleet: &FleetView, request: &RequestView<'_>, profile: Profile) -> (Option<usize>, usize) {
    let decision = Decider::new(profile).decide(fleet, request, 0.0).expect("somebody can serve it");
    (decision.prefill, decision.decode)
}

fn always() -> Profile {
    Profile { disaggregate: Disaggregate::Always, ..Profile::default() }
}

#[test]
fn goes_where_the_prompt_is_cached() {
    let fleet = fleet(3, 1);
    let cached = [Cached::default(), Cached::device(6_000), Cached::default()];
    assert_eq!(decide(&fleet, &RequestView { cached: &cached, ..request() }, always()), (Some(1), 3));
}

#[test]
fn device_is_better_than_host_than_disk() {
    let fleet = fleet(3, 1);
    let tiers = |tokens| {
        [
            Cached { disk_tokens: tokens, ..Cached::default() },
            Cached { host_tokens: tokens, ..Cached::default() },
            Cached::device(tokens),
        ]
    };
    let three = tiers(6_000);
    assert_eq!(decide(&fleet, &RequestView { cached: &three, ..request() }, always()).0, Some(2));
    let two = [three[0], three[1], Cached::default()];
    assert_eq!(decide(&fleet, &RequestView { cached: &two, ..request() }, always()).0, Some(1));
}

#[test]
fn a_long_queue_outweighs_a_cached_prompt() {
    let mut fleet = fleet(2, 1);
    let cached = [Cached::device(4_000), Cached::default()];
    let request = RequestView { cached: &cached, ..request() };
    assert_eq!(decide(&fleet, &request, always()).0, Some(0));
    fleet.workers[0].own.prefill_placed(60_000.0, 0.0);
    assert_eq!(decide(&fleet, &request, always()).0, Some(1));
}

#[test]
fn reports_of_others_requests_count() {
    let busy =
        Report { at: Some(0.0), waiting: 3, running: 1, waiting_prompt_tokens: 50_000, ..Report::default() };
    let mut fleet = fleet(2, 1);
    fleet.reported(0, busy);
    assert_eq!(decide(&fleet, &request(), always()).0, Some(1));

    // Those that this scheduler sent there are counted once, and those that it sends there from now on are added to the others.
    let mut fleet = common::fleet(2, 1);
    let own_ms = 2_000.0;
    (0..4).for_each(|_| fleet.workers[0].own.prefill_placed(own_ms, 0.0));
    fleet.reported(0, busy);
    assert_eq!(fleet.workers[0].prefill_queue_ms(0.0), 4.0 * own_ms);
    fleet.reported(0, Report { waiting: 7, ..busy });
    let others_ms = fleet.workers[0].others.prefill_ms;
    assert_eq!(others_ms, fleet.workers[0].costs.prefill.predict(50_000, 0) / 2.0);
    fleet.workers[0].own.prefill_placed(own_ms, 100.0);
    assert_eq!(fleet.workers[0].prefill_queue_ms(100.0), 5.0 * own_ms - 100.0 + others_ms - 100.0);
    assert_eq!(
        fleet.workers[0].prefill_queue_ms(1e9),
        fleet.workers[0].own.prefill_ms * 4.0 / 5.0,
        "they are done"
    );
}

#[test]
fn memory_and_sequences_of_others_count_beside_own_ones() {
    let mut fleet = fleet(1, 1);
    fleet.workers[1].own.sequence_placed(1_000, 3_000);
    fleet.reported(1, Report { at: Some(0.0), running: 4, kv_used_tokens: 8_000, ..Report::default() });
    assert_eq!(fleet.traffic.factor(), 4.0, "one of four is own");
    let decode = &mut fleet.workers[1];
    assert_eq!((decode.sequences(), decode.others.kv_tokens), (4, 6_000));
    assert_eq!(decode.kv_free_tokens(), decode.kv_capacity_tokens - 9_000);
    decode.own.sequence_placed(1_000, 3_000);
    assert_eq!((decode.sequences(), decode.context_tokens()), (5, 8_000));
    assert_eq!(decode.kv_free_tokens(), decode.kv_capacity_tokens - 12_000);
}

#[test]
fn decodes_where_fewer_tokens_are_read() {
    let mut fleet = fleet(1, 2);
    fleet.workers[1].own.sequence_placed(100_000, 100_500);
    assert_eq!(decide(&fleet, &request(), always()).1, 2);
}

#[test]
fn decodes_where_there_is_room() {
    let mut fleet = fleet(1, 2);
    for worker in 1..=2 {
        fleet.workers[worker].own.sequence_placed(10_000, 10_000);
    }
    // The same load, but its growth is promised to others.
    fleet.workers[1].own.reserved_tokens = 999_000;
    assert_eq!(decide(&fleet, &request(), always()).1, 2);
}

#[test]
fn a_slow_link_decides_between_equal_pairs() {
    let mut fleet = fleet(2, 2);
    let class = |name: &str, per_byte_ms| LinkClass {
        name: name.to_owned(),
        cost: LinkCost { fixed_ms: 1.0, per_byte_ms },
        distance: 0.0,
    };
    let classes = vec![class("near", 1.0 / 40.0e6), class("far", 1.0 / 1.0e6)];
    fleet.links = Links::try_new(classes, 2, |from, to| usize::from(from != to)).expect("two groups");
    for (index, group) in [0, 1, 1, 0].into_iter().enumerate() {
        fleet.workers[index].group = group;
    }
    for dice in 0..20 {
        let (prefill, decode) = decide(&fleet, &RequestView { dice, ..request() }, always());
        assert!(matches!((prefill, decode), (Some(0), 3) | (Some(1), 2)), "{prefill:?} {decode}");
    }
}

#[test]
fn only_connected_pairs_are_used() {
    let mut fleet = fleet(2, 1);
    fleet.links.set_connected(0, 2, false);
    for dice in 0..20 {
        assert_eq!(decide(&fleet, &RequestView { dice, ..request() }, always()).0, Some(1));
    }
    fleet.links.set_connected(1, 2, false);
    assert_eq!(decide(&fleet, &request(), always()), (None, 2), "it prefills for itself");
}

#[test]
fn disaggregation_follows_from_the_estimate() {
    // A short prompt beside nobody is computed where it decodes; a long one beside many would stop their streams.
    let mut fleet = fleet(1, 1);
    fleet.links = Links::uniform(LinkCost { fixed_ms: 50.0, ..LinkCost::default() });
    let short = RequestView { prompt_tokens: 64, ..request() };
    assert_eq!(decide(&fleet, &short, Profile::default()), (None, 1));
    for _ in 0..20 {
        fleet.workers[1].own.sequence_placed(2_000, 2_200);
    }
    assert_eq!(decide(&fleet, &request(), Profile::default()), (Some(0), 1));
}

#[test]
fn mostly_cached_prompts_stay_where_they_decode() {
    let mut fleet = fleet(1, 1);
    fleet.workers[1].own.sequence_placed(2_000, 2_200);
    assert_eq!(decide(&fleet, &request(), Profile::default()), (Some(0), 1));
    let cached = [Cached::default(), Cached::device(7_990)];
    assert_eq!(decide(&fleet, &RequestView { cached: &cached, ..request() }, Profile::default()), (None, 1));
}

#[test]
fn thresholds_count_what_is_not_cached() {
    let fleet = fleet(1, 1);
    let profile = |uncached_tokens| Profile {
        disaggregate: Disaggregate::Threshold { uncached_tokens },
        ..Profile::default()
    };
    let cached = [Cached::default(), Cached::device(7_000)];
    let request = RequestView { cached: &cached, ..request() };
    assert_eq!(decide(&fleet, &request, profile(1_000)), (Some(0), 1));
    assert_eq!(decide(&fleet, &request, profile(1_001)), (None, 1));
    let never = Profile { disaggregate: Disaggregate::Never, ..Profile::default() };
    assert_eq!(decide(&fleet, &common::request(), never), (None, 1));
}

#[test]
fn filters_exclude() {
    let check = |change: &dyn Fn(&mut FleetView), request: &RequestView<'_>| {
        let mut fleet = fleet(0, 2);
        change(&mut fleet);
        for dice in 0..20 {
            let request = RequestView { dice, ..*request };
            assert_eq!(decide(&fleet, &request, Profile::default()), (None, 1));
        }
    };
    check(&|fleet| fleet.workers[0].is_draining = true, &request());
    check(&|fleet| fleet.workers[0].failed_at = Some(-10.0), &request());
    check(&|fleet| fleet.workers[0].kv_capacity_tokens = 8_999, &request());
    check(&|_| (), &RequestView { tried: &[0], ..request() });
    check(&|_| (), &RequestView { subset: &[1], ..request() });
    let lora = |fleet: &mut FleetView| {
        fleet.workers[1].adapters = std::sync::Arc::new(["lora".to_owned()].into());
    };
    check(&lora, &RequestView { adapter: Some("lora"), ..request() });
    let label = |fleet: &mut FleetView| {
        let labels = [("gpu".to_owned(), "h200".to_owned())];
        fleet.workers[1].labels = std::sync::Arc::new(labels.into());
    };
    check(&label, &RequestView { labels: &[("gpu", "h200")], ..request() });
}

#[test]
fn a_wish_gives_way_when_nobody_fulfils_it() {
    let mut fleet = fleet(0, 1);
    fleet.workers[0].failed_at = Some(-10.0);
    assert_eq!(decide(&fleet, &request(), Profile::default()), (None, 0));
    let prefix = Profile { filters: vec![Filter::Prefix { min_share: 0.5 }], ..Profile::default() };
    assert_eq!(decide(&fleet, &request(), prefix), (None, 0));
}

#[test]
fn a_refusal_says_which_filter() {
    let mut fleet = fleet(1, 2);
    fleet.workers[1].is_draining = true;
    fleet.workers[2].kv_capacity_tokens = 10;
    let refused = Decider::default().decide(&fleet, &request(), 0.0).expect_err("nobody can");
    assert_eq!(
        refused.to_string(),
        "no worker can generate for this request: of 2 capacity excludes 1, drain excludes 1"
    );
}

#[test]
fn equals_take_turns_and_own_requests_spread() {
    let mut fleet = fleet(4, 4);
    let mut decider = Decider::new(always());
    let mut prefills = [0; 4];
    // No report comes between them.
    for dice in 0..40 {
        let decision = decider.decide(&fleet, &RequestView { dice, ..request() }, 0.0).expect("idle");
        let prefill = decision.prefill.expect("always apart");
        prefills[prefill] += 1;
        let placed = Placed {
            prefill: fleet.seat_of(prefill),
            decode: fleet.seat_of(decision.decode),
            compute_ms: decision.compute_ms,
            prompt_tokens: 8_000,
            growth_tokens: 8_200,
            ttft_ms: 0.0,
        };
        fleet.placed(&placed, 0.0);
    }
    assert_eq!(prefills, [10; 4]);
    assert!(fleet.workers[4..].iter().all(|worker| worker.own.sequences == 10));
    let firsts: std::collections::BTreeSet<_> = (0..64)
        .map(|dice| decide(&common::fleet(4, 4), &RequestView { dice, ..request() }, always()))
        .collect();
    assert!(
        firsts.len() > 4,
        "schedulers that do not know of each other begin at different workers: {firsts:?}"
    );
}

#[test]
fn near_best_draws_among_the_near_and_no_others() {
    let mut fleet = fleet(0, 3);
    fleet.workers[1].own.sequence_placed(10, 20);
    fleet.workers[2].own.sequence_placed(500_000, 500_100);
    let profile = Profile { picker: Picker::NearBest { within_ms: 3_000.0 }, ..Profile::default() };
    let mut counts = [0; 3];
    for dice in 0..300 {
        counts[decide(&fleet, &RequestView { dice, ..request() }, profile.clone()).1] += 1;
    }
    assert!(counts[0] > counts[1] && counts[1] > 20 && counts[2] == 0, "{counts:?}");
}

#[test]
fn of_two_drawn_the_cheaper_wins() {
    let mut fleet = fleet(0, 3);
    fleet.workers[2].own.sequence_placed(500_000, 500_100);
    let profile = Profile { picker: Picker::PowerOfTwo, ..Profile::default() };
    let mut counts = [0; 3];
    for dice in 0..300 {
        counts[decide(&fleet, &RequestView { dice, ..request() }, profile.clone()).1] += 1;
    }
    assert!(counts[0] > 50 && counts[1] > 50 && counts[2] == 0, "{counts:?}");
}

#[test]
fn scorers_add_to_the_estimate() {
    let fleet = fleet(0, 4);
    let session = parse("scorers: [{name: estimate}, {name: session}]").expect("a profile");
    for dice in 0..20 {
        let request = RequestView { dice, session_worker: Some(2), ..request() };
        assert_eq!(decide(&fleet, &request, session.clone()).1, 2);
    }
}

#[test]
fn a_worker_of_both_roles_serves_as_either() {
    let mut fleet = fleet(0, 1);
    fleet.workers.push(worker("both", Role::Both));
    fleet.workers[1].own.sequence_placed(900_000, 900_100);
    let (prefill, decode) = decide(&fleet, &request(), always());
    assert_eq!((prefill, decode), (Some(1), 0));
}

#[test]
fn ranked_choices_begin_with_the_winner() {
    let mut fleet = fleet(6, 1);
    for index in 0..6 {
        fleet.workers[index].own.prefill_placed(100.0 * (index + 1) as f64, 0.0);
    }
    let decision = Decider::new(always()).decide(&fleet, &request(), 0.0).expect("six can");
    assert_eq!(decision.prefill_choices, [0, 1, 2, 3]);
}
