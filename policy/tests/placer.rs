//! What a placer is told, and what it knows then.

mod common;

use std::sync::Arc;

use baton_policy::{
    admission::{Ask, Limits, Verdict},
    placer::{Account, Ended, Moved, Placer, Served},
    profile::{Disaggregate, Profile},
    view::{Generated, InFlight, Placed, Prompted, Report, RequestView, Role, WorkerView},
};
use common::{request, worker};

fn placer(disaggregate: Disaggregate, roles: &[Role]) -> Placer {
    let profile = Profile { disaggregate, ..Profile::default() };
    let mut placer = Placer::new(profile, Limits::default());
    placer.fleet = common::fleet(0, 0);
    for (index, role) in roles.iter().enumerate() {
        placer.seated(index, worker(&format!("w{index}"), *role));
    }
    placer
}

fn place(placer: &mut Placer, now: f64) -> Placed {
    let decision = placer.decide(&placer.view("t", request()), now).expect("somebody generates");
    placer.placed(&decision, now)
}

fn own(placer: &Placer) -> Vec<InFlight> {
    placer.fleet.workers.iter().map(|worker| InFlight { recent: Default::default(), ..worker.own }).collect()
}

const NOTHING: Ended<'_> = Ended { tenant: "t", ttft_ms: None, output_tokens: None, served: Served::Unknown };

#[test]
fn what_a_request_counts_for_is_taken_away_from_who_had_it() {
    let mut placer = placer(Disaggregate::Always, &[Role::Prefill, Role::Decode]);
    let idle = own(&placer);
    let (first, second) = (place(&mut placer, 0.0), place(&mut placer, 0.0));
    assert_eq!(placer.fleet.workers[0].own.prefills, 2);
    placer.first_token(&first, 10.0);
    placer.ended(&first, &Ended { ttft_ms: Some(10.0), ..NOTHING }, 20.0);
    placer.ended(&second, &NOTHING, 20.0);
    let busy_until = |own: Vec<InFlight>| -> Vec<InFlight> {
        own.into_iter().map(|own| InFlight { busy_until: 0.0, ..own }).collect()
    };
    assert_eq!(busy_until(own(&placer)), busy_until(idle));

    // Who is there now has nothing to do with what the one before had.
    let of_former = place(&mut placer, 30.0);
    placer.seated(1, worker("w1", Role::Decode));
    let of_new = place(&mut placer, 40.0);
    placer.ended(&of_former, &NOTHING, 50.0);
    assert_eq!(placer.fleet.workers[1].own.sequences, 1);
    assert_ne!(of_former.decode, of_new.decode);
    placer.ended(&of_new, &NOTHING, 60.0);
    assert_eq!(placer.fleet.workers[1].own.sequences, 0);
}

#[test]
fn admission_knows_the_workers_that_take_requests() {
    let mut placer = placer(Disaggregate::Never, &[Role::Prefill, Role::Decode, Role::Decode]);
    let decision = placer.decide(&placer.view("t", request()), 0.0).expect("idle");
    let mut number = 0;
    // Half of one worker's memory each.
    let mut lets_in = |placer: &mut Placer| {
        number += 1;
        let ask = Ask { growth_tokens: 500_000, ..Ask::new(number, Arc::from("t"), &decision) };
        let verdict = placer.admission.offer(ask, 0.0).0;
        placer.admission.finished(number, 0.0);
        verdict == Verdict::Admitted
    };
    assert!(lets_in(&mut placer));
    assert!(placer.set_draining(1, true) && !placer.set_draining(1, true));
    assert!(lets_in(&mut placer));
    assert!(placer.resized(2, 400_000) && !placer.resized(2, 400_000));
    assert!(!lets_in(&mut placer), "400,000 tokens are left");
    placer.set_draining(1, false);
    assert!(lets_in(&mut placer));
    placer.vacated(1);
    assert!(!lets_in(&mut placer));
    placer.seated(1, worker("w9", Role::Decode));
    assert!(lets_in(&mut placer));
}

#[test]
fn steps_teach_what_all_of_them_take() {
    let mut placer = placer(Disaggregate::Always, &[Role::Decode, Role::Decode]);
    let (mut generated, mut prompted) = (Generated::default(), Prompted::default());
    for _ in 0..400 {
        generated.steps += 10.0;
        generated.sequences += 40.0;
        generated.context_tokens += 4_000.0;
        generated.ms += 500.0;
        prompted.steps += 2.0;
        prompted.tokens += 2_000.0;
        prompted.pairs += 1e6;
        prompted.ms += 240.0;
        placer.reported(0, Report { generated, prompted, ..Report::default() });
    }
    for WorkerView { id, costs, .. } in &placer.fleet.workers {
        let (step, prompt) = (costs.decode.step_ms(4, 400), costs.prefill.predict(1_000, 0));
        assert!((step - 50.0).abs() < 5.0 && (prompt - 120.0).abs() < 12.0, "{id}: {step}, {prompt}");
    }
    let known = placer.fleet.workers[0].costs;
    // Sums that begin anew, and a report of nothing, teach nothing.
    placer.reported(
        0,
        Report { generated: Generated { steps: 4_001.0, ..Generated::default() }, ..Report::default() },
    );
    placer.reported(0, Report::default());
    placer.prompted(0, &Prompted::default());
    assert_eq!(placer.fleet.workers[0].costs, known);
}

#[test]
fn accounts_teach_answers_links_and_what_prompts_take_beside_others() {
    let mut placer = placer(Disaggregate::Never, &[Role::Decode]);
    let account = Account {
        prefill: 0,
        prefill_ms: 0.0,
        cached_tokens: 0,
        moved: Some(Moved { bytes: 1e9, link_ms: 40.0 }),
    };
    let before = placer.fleet.workers[0].costs.beside;
    for _ in 0..100 {
        let (other, placed) = (place(&mut placer, 0.0), place(&mut placer, 0.0));
        let alone_ms = placer.fleet.workers[0].costs.prefill.predict(8_000, 0);
        let served = Served::Told(Account { prefill_ms: alone_ms * 1.2, ..account });
        placer.ended(&placed, &Ended { ttft_ms: Some(9.0), output_tokens: Some(70), served, ..NOTHING }, 0.0);
        placer.ended(&other, &NOTHING, 0.0);
        // The mean of the fleet is looked at with the next report.
        placer.prompted(0, &Prompted { steps: 1.0, tokens: 100.0, pairs: 5_000.0, ms: 12.0 });
    }
    let costs = placer.fleet.workers[0].costs;
    assert!(before > 2.0 && (1.1..1.4).contains(&costs.beside), "{before}, {}", costs.beside);
    let link = placer.fleet.links.classes()[0].cost;
    assert!((link.transfer_ms(1e9) / 40.0 - 1.0).abs() < 0.2, "{link:?}");
    let expected = placer.view("t", RequestView { max_tokens: 500, ..request() }).expected_output_tokens;
    assert!((expected - 70.0).abs() < 1.0, "{expected}");
    assert!(placer.learner().ttft_error_ms.quantile(0.5).is_some());
}

#[test]
fn who_gives_no_account_is_known_by_the_times_of_tokens() {
    let mut placer = placer(Disaggregate::Never, &[Role::Decode]);
    let served = Served::Seen { cached_tokens: 0, step_ms: Some(80.0) };
    for _ in 0..300 {
        let placed = place(&mut placer, 0.0);
        placer.ended(
            &placed,
            &Ended { ttft_ms: Some(900.0), output_tokens: Some(9), served, ..NOTHING },
            0.0,
        );
    }
    let costs = placer.fleet.workers[0].costs;
    let (step, prompt) = (costs.decode.step_ms(1, 0), costs.prefill.predict(8_000, 0));
    assert!((step - 80.0).abs() < 8.0 && (prompt - 900.0).abs() < 90.0, "{step}, {prompt}");
}
