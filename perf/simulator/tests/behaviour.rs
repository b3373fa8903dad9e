//! What the simulated system does.

mod common;

use std::fmt::Write as _;

use baton_policy::{
    profile::{Disaggregate, Profile as RoutingProfile},
    view::Role,
};
use baton_simulator::{
    Cancel, Ending, PromptPiece, RoleChange, Routing, Served, SimRequest, Simulated, Start, System, simulate,
};

fn one(at: f64, prompt_tokens: u32, output_tokens: u32) -> SimRequest {
    SimRequest { start: Start::At(at), prompt_tokens, output_tokens, pieces: Vec::new(), cancel: None }
}

fn run(system: &System, requests: Vec<SimRequest>) -> Simulated {
    simulate(system, &common::traffic(requests)).expect("a good system")
}

fn all_of(simulated: &Simulated, ending: Ending) -> Vec<Served> {
    simulated.served().filter(|served| served.ending == ending).collect()
}

fn fleet(prefill: usize, decode: usize) -> System {
    System::of(&common::shared(common::profile()), prefill, decode)
}

#[test]
fn one_request_takes_what_the_profile_says() {
    let profile = common::profile();
    let simulated = run(&fleet(1, 1).with_routing(Routing::RoundRobin), vec![one(5.0, 6_000, 3)]);
    let served = simulated.at(0);
    let expected = profile.prompt_ms(6_000, 0) + profile.overhead.request_ms + profile.overhead.call_ms;
    assert!((served.ttft_ms.unwrap_or(0.0) - expected).abs() < 1e-9, "{served:?}, {expected}");
    let steps = profile.decode.step_ms(1, 6_000) + profile.decode.step_ms(1, 6_001);
    let moved = served.transfer_ms.unwrap_or(0.0);
    assert!((served.tpot_ms.unwrap_or(0.0) - (moved + steps) / 2.0).abs() < 1e-9, "{served:?}");
    // All but the last group of layers moved while it was computed.
    let link_ms = profile.transfer.link_ms(6_000, &profile.kv);
    assert!((moved - link_ms / 8.0 - profile.transfer.latency_ms).abs() < 1e-9, "{moved} of {link_ms}");
    assert_eq!((served.prefill_worker, served.decode_worker), (Some(0), Some(1)));
}

#[test]
fn the_same_seed_gives_the_same_bytes_with_every_routing() {
    for routing in [Routing::RoundRobin, Routing::LeastLoaded, Routing::baton()] {
        let system = fleet(2, 3).with_routing(routing);
        let bytes = || {
            let simulated = run(&system, common::sessions(2_000, 15.0, 50, 3));
            simulated.served().fold(String::new(), |mut text, served| {
                let _ = writeln!(text, "{served:?}");
                text
            })
        };
        let first = bytes();
        assert_eq!(first, bytes(), "{}", system.routing.name());
        assert_eq!(first.lines().count(), 2_000);
    }
}

#[test]
fn a_prompt_that_begins_as_another_did_is_computed_from_there() {
    let piece = |id, tokens| PromptPiece { id, tokens, answer_of: None };
    let with = |at, pieces: Vec<PromptPiece>| SimRequest { pieces, ..one(at, 4_000, 4) };
    let requests = vec![
        with(0.0, vec![piece(1, 3_000), piece(2, 1_000)]),
        with(2_000.0, vec![piece(1, 3_000), piece(3, 1_000)]),
        with(4_000.0, vec![piece(4, 3_000), piece(2, 1_000)]),
    ];
    let mut system = fleet(1, 1).with_routing(Routing::RoundRobin);
    let cached = |system: &System| -> Vec<u32> {
        run(system, requests.clone()).served().map(|served| served.cached_tokens).collect()
    };
    assert_eq!(cached(&system), [0, 2_992, 0], "whole blocks of what is the same from the beginning on");
    system.prefix_cache = false;
    assert_eq!(cached(&system), [0, 0, 0]);
}

#[test]
fn what_is_least_recently_used_leaves_the_cache_from_its_leaves() {
    let mut profile = common::profile();
    profile.kv.capacity_tokens = 16 * 1_000;
    let system = System::of(&common::shared(profile), 1, 1).with_routing(Routing::RoundRobin);
    let of = |at, id| SimRequest {
        pieces: vec![
            PromptPiece { id: 0, tokens: 1_600, answer_of: None },
            PromptPiece { id, tokens: 6_400, answer_of: None },
        ],
        ..one(at, 8_000, 1)
    };
    // Each has 500 blocks, of which 100 are the same: two and a half fit.
    let requests = vec![of(0.0, 1), of(2e3, 2), of(4e3, 3), of(6e3, 1), of(8e3, 3)];
    let cached: Vec<u32> = run(&system, requests).served().map(|served| served.cached_tokens).collect();
    assert_eq!(cached[..3], [0, 1_600, 1_600]);
    // Of the first, the beginning that all have, and what of its own was not needed.
    assert!((1_600..7_984).contains(&cached[3]), "{cached:?}");
    assert_eq!(cached[4], 7_984, "all but the last block, whose last token is always computed");
}

#[test]
fn the_next_turn_finds_its_answer_where_it_was_generated() {
    let piece = |id, tokens| PromptPiece { id, tokens, answer_of: None };
    let first = SimRequest { pieces: vec![piece(1, 800)], ..one(0.0, 800, 401) };
    let answer = PromptPiece { id: 2, tokens: 400, answer_of: Some(0) };
    let second = SimRequest {
        start: Start::After { index: 0, think_ms: 100.0 },
        pieces: vec![piece(1, 800), answer, piece(3, 50)],
        ..one(0.0, 1_250, 10)
    };
    let cached = |prefill| {
        let system = fleet(prefill, 1).with_routing(Routing::RoundRobin);
        run(&system, vec![first.clone(), second.clone()]).at(1).cached_tokens
    };
    assert_eq!(cached(0), 1_200, "the one worker has all of it");
    assert_eq!(cached(1), 800, "the prefill worker has the prompt");
}

#[test]
fn a_client_that_leaves_ends_its_request_and_frees_its_blocks() {
    let mut profile = common::tight();
    profile.kv.capacity_tokens = 16 * 300;
    for (prefill, decode) in [(1, 1), (0, 1)] {
        let system = System::of(&common::shared(profile.clone()), prefill, decode);
        for after in [0.0, 1.0, 20.0, 60.0, 80.0, 95.0, 300.0, 2_000.0] {
            let mut requests = common::poisson(60, 30.0, 900.0, 200.0, 5);
            requests.iter_mut().for_each(|request| {
                request.prompt_tokens = request.prompt_tokens.min(2_000);
                request.output_tokens = request.output_tokens.min(1_000);
            });
            for request in requests.iter_mut().step_by(2) {
                request.cancel = Some(Cancel::AfterMs(after));
            }
            // The last one needs all memory there is.
            requests.push(one(1e6, 4_000, 700));
            let simulated = run(&system, requests);
            let last = simulated.at(60);
            assert_eq!(last.ending, Ending::Complete, "{prefill}:{decode} after {after} ms");
            assert_eq!(all_of(&simulated, Ending::Unfinished).len(), 0);
            let cancelled = all_of(&simulated, Ending::Cancelled);
            assert!(cancelled.iter().all(|served| served.index % 2 == 0 && served.total_ms > after - 1e-6));
            assert!(!cancelled.is_empty() || after > 1_000.0);
        }
    }
}

#[test]
fn a_client_may_leave_after_some_tokens() {
    let requests = vec![SimRequest { cancel: Some(Cancel::AfterTokens(3)), ..one(0.0, 100, 50) }];
    let simulated = run(&fleet(1, 1), requests);
    assert_eq!((simulated.at(0).ending, simulated.at(0).tokens.1), (Ending::Cancelled, 3));
}

#[test]
fn who_takes_too_long_is_late_and_who_fits_nowhere_is_told() {
    let mut system = fleet(0, 1).with_routing(Routing::LeastLoaded);
    system.deadline_ms = Some(1_000.0);
    let simulated = run(&system, vec![one(0.0, 100, 5_000), one(0.0, 100, 10), one(0.0, 9_000_000, 10)]);
    let endings: Vec<Ending> = simulated.served().map(|served| served.ending).collect();
    assert_eq!(endings, [Ending::Late, Ending::Complete, Ending::NeverFits]);
}

#[test]
fn a_closed_loop_has_so_many_under_way_and_sessions_wait_for_their_answers() {
    let mut requests: Vec<SimRequest> =
        (0..40).map(|_| SimRequest { start: Start::WhenFree, ..one(0.0, 200, 20) }).collect();
    requests.push(SimRequest { start: Start::After { index: 3, think_ms: 250.0 }, ..one(0.0, 10, 2) });
    let traffic = baton_simulator::Traffic::try_new(requests, 4).expect("good requests");
    let simulated = simulate(&fleet(1, 1), &traffic).expect("a good system");
    assert_eq!(all_of(&simulated, Ending::Complete).len(), 41);
    let overhead = common::profile().overhead.request_ms;
    let ends = |served: &Served| served.sent_ms + served.total_ms - overhead;
    for served in simulated.served().take(40) {
        let under_way = simulated
            .served()
            .take(40)
            .filter(|other| other.sent_ms <= served.sent_ms && ends(other) > served.sent_ms + 1e-9)
            .count();
        assert!(under_way <= 4, "{under_way} at {}", served.sent_ms);
    }
    let thought = simulated.at(40).sent_ms - ends(&simulated.at(3));
    assert!((thought - 250.0).abs() < 1e-6, "{thought}");
}

#[test]
fn who_computes_a_prompt_is_the_schedulers_own_decision() {
    let local = |disaggregate| {
        let profile = RoutingProfile { disaggregate, ..RoutingProfile::default() };
        let routing = Routing::Baton { profile: Box::new(profile), admission: Box::default() };
        let simulated = run(&fleet(2, 2).with_routing(routing), common::poisson(600, 2.0, 3_000.0, 100.0, 2));
        assert_eq!(all_of(&simulated, Ending::Complete).len(), 600);
        simulated.served().filter(|served| served.prefill_worker.is_none()).count()
    };
    assert_eq!((local(Disaggregate::Always), local(Disaggregate::Never)), (0, 600));
    let by_estimate = local(Disaggregate::Estimate);
    assert!((20..300).contains(&by_estimate), "{by_estimate}");
}

#[test]
fn too_many_are_refused_at_once_or_after_they_waited() {
    let simulated = run(&fleet(1, 1), common::poisson(6_000, 400.0, 2_000.0, 400.0, 1));
    let refused = all_of(&simulated, Ending::Refused);
    assert!(refused.len() > 1_000, "{}", refused.len());
    assert!(refused.iter().all(|served| served.ttft_ms.is_none() && served.total_ms <= 30_020.0));
    assert_eq!(refused.len() + all_of(&simulated, Ending::Complete).len(), 6_000);
}

#[test]
fn transfers_share_links() {
    let mut profile = common::profile();
    profile.transfer.bytes_per_second = 2e9;
    let requests = |count: usize| (0..count).map(|_| one(0.0, 6_000, 2)).collect::<Vec<_>>();
    let system =
        |prefill| System::of(&common::shared(profile.clone()), prefill, 1).with_routing(Routing::RoundRobin);
    let longest = |simulated: &Simulated| {
        simulated.served().filter_map(|served| served.transfer_ms).fold(0.0, f64::max)
    };
    let (alone, four) = (longest(&run(&system(1), requests(1))), longest(&run(&system(4), requests(4))));
    let link_ms = profile.transfer.link_ms(6_000, &profile.kv);
    assert!((four - alone - 3.0 * link_ms).abs() < 1e-6, "{alone} alone, {four} of four, {link_ms} each");
}

#[test]
fn a_worker_that_changes_its_role_ends_what_it_has_and_starts_anew() {
    let mut system = fleet(1, 2).with_routing(Routing::LeastLoaded);
    system.changes = vec![RoleChange { at_ms: 20_000.0, worker: 2, role: Role::Prefill }];
    let simulated = run(&system, common::poisson(3_000, 20.0, 800.0, 100.0, 4));
    assert_eq!(all_of(&simulated, Ending::Complete).len(), 3_000);
    let startup_ms = common::profile().startup_s * 1e3;
    for served in simulated.served() {
        if served.sent_ms > 20_000.0 {
            assert_eq!(served.decode_worker, Some(1), "{served:?}");
        }
        if served.sent_ms < 20_000.0 + startup_ms {
            assert_ne!(served.prefill_worker, Some(2), "{served:?}");
        }
    }
    let prefilled = simulated.served().filter(|served| served.prefill_worker == Some(2)).count();
    assert!(prefilled > 500, "{prefilled}");
}

#[test]
fn what_can_not_be_simulated_is_refused() {
    let nobody = System::of(&common::shared(common::profile()), 2, 0);
    assert!(simulate(&nobody, &common::traffic(vec![one(0.0, 1, 1)])).is_err());
    let wrong = |request| baton_simulator::Traffic::try_new(vec![request], 1).expect_err("wrong").to_string();
    assert!(wrong(one(f64::NAN, 1, 1)).starts_with("request 0: "));
    assert!(wrong(one(0.0, 0, 1)).contains("token"));
    let later = Start::After { index: 0, think_ms: 0.0 };
    assert!(wrong(SimRequest { start: later, ..one(0.0, 1, 1) }).contains("earlier"));
}
