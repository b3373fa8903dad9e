use std::sync::Arc;

use baton_kv_events::{Event, Format, Stored, encode_batch};
use baton_kv_index::WorkerSpec;
use baton_policy::{
    admission::Reason,
    profile::Disaggregate,
    view::{InFlight, Role},
};
use baton_proto::v1::{Account, Timing, WorkerLoad};
use futures::FutureExt as _;

use super::*;
use crate::epp::Asked;

const BLOCK: u32 = 16;

fn router(admission: Limits, disaggregate: Disaggregate) -> Arc<Router> {
    let limits = baton_kv_index::IndexLimits { bytes: 1 << 20, guess_seconds: 30 };
    let (cache, _) = CacheIndex::start(limits).unwrap();
    let profile = Profile { disaggregate, ..Profile::default() };
    let (model, traffic_bytes) = ("m".to_owned(), 1 << 20);
    let config = RouterConfig { model, profile, admission, records: 100, log: None, traffic_bytes };
    let epp = Arc::new(Epp::new(vec!["m".to_owned()]));
    Arc::new(Router::new(config, cache, RouterMetrics::new(&baton_process::Metrics::new()), epp))
}

fn worker(id: &str, role: Role) -> WorkerFacts {
    WorkerFacts {
        id: id.to_owned(),
        incarnation: 1,
        role,
        capacity_tokens: 10_000,
        block_tokens: BLOCK,
        kv_bytes_per_token: 1_000.0,
        ..WorkerFacts::default()
    }
}

/// Two workers of each role, all connected.
fn fleet(admission: Limits, disaggregate: Disaggregate) -> Arc<Router> {
    let router = router(admission, disaggregate);
    for id in ["p0", "p1"] {
        router.joined(&worker(id, Role::Prefill));
    }
    for id in ["d0", "d1"] {
        router.joined(&worker(id, Role::Decode));
        router.paired("p0", id, true);
        router.paired("p1", id, true);
    }
    router
}

fn ask<'a>(request_id: &'a str, prompt: &'a [u32]) -> Ask<'a> {
    Ask {
        request_id,
        prompt,
        prompt_tokens: prompt.len() as u64,
        text: &[],
        max_tokens: 100,
        adapter: None,
        cache_salt: None,
        tenant: "t".into(),
        priority: 0,
        weight: 1.0,
        objective: baton_policy::view::Objective::default(),
        session: None,
        reach: Reach::Front,
        subset: None,
        asked: Asked::Model,
        bytes: 4 * prompt.len() as u64,
    }
}

fn now(router: &Arc<Router>, ask: &Ask<'_>) -> Result<Route, Refused> {
    router.route(ask).now_or_never().expect("it need not wait")
}

/// What the router has sent to each worker.
fn in_flight(router: &Router) -> Vec<(u32, u32, u64, u64)> {
    let own = |own: &InFlight| (own.prefills, own.sequences, own.context_tokens, own.reserved_tokens);
    router.lock().placer.fleet.workers.iter().map(|worker| own(&worker.own)).collect()
}

#[tokio::test]
async fn a_prompt_goes_where_its_beginning_is_cached() {
    let router = fleet(Limits::default(), Disaggregate::Always);
    let prompt: Vec<u32> = (0..4_000).collect();
    for round in 1..=2 {
        let spec =
            WorkerSpec { model: "m".to_owned(), block_tokens: BLOCK, same_hashes: Some("r".to_owned()) };
        let tracked = router.cache().track("p1", spec).await.unwrap();
        router.tracked("p1", 1, tracked.number());
        let stored = Event::Stored(Stored {
            hashes: (1..=200).collect(),
            parent: None,
            token_ids: prompt[..3_200].to_vec(),
            block_tokens: BLOCK as usize,
            lora: None,
            salt: None,
        });
        tracked.told(true, encode_batch(0.0, &[stored], Format::Array).into()).await;
        while router.cache().stats()[0].stored < 200 * round {
            tokio::task::yield_now().await;
        }
        for number in 0..4 {
            let id = format!("r{number}");
            let route = now(&router, &ask(&id, &prompt)).unwrap();
            assert_eq!(route.prefill[0], "p1");
            let record = router.record(&id).unwrap();
            assert!(record.choices[record.winner].terms.get(baton_policy::estimate::Term::Prefill) < 50.0);
        }
        let salted = Ask { cache_salt: Some("other"), ..ask("salted", &prompt) };
        let route = now(&router, &salted).unwrap();
        let record = router.record("salted").unwrap();
        assert!(record.choices[record.winner].terms.get(baton_policy::estimate::Term::Prefill) > 50.0);
        drop(route);
        // Another number for the same worker, as after its restart.
    }
}

#[tokio::test]
async fn what_a_request_counts_for_is_taken_away_exactly_once() {
    let router = fleet(Limits::default(), Disaggregate::Always);
    let none = in_flight(&router);
    let prompt = vec![1; 100];
    let mut routes: Vec<Route> =
        (0..8).map(|number| now(&router, &ask(&number.to_string(), &prompt)).unwrap()).collect();
    assert_eq!(in_flight(&router).iter().map(|own| own.0 + own.1).sum::<u32>(), 16);
    for (number, route) in routes.iter_mut().enumerate() {
        if number % 2 == 0 {
            route.first_token();
            route.first_token();
        }
        if number % 4 == 0 {
            let timing = Timing { prefill_us: 4_000, ..Timing::default() };
            route.account(&Account {
                timing: Some(timing),
                prefill_worker: route.prefill[0].clone(),
                transfer_bytes: 1_000,
                link_bytes_per_second: 1_000_000,
                ..Account::default()
            });
            route.tokens(7);
            route.complete();
        }
    }
    let failed = routes.pop().unwrap();
    let decode = failed.decode.clone();
    let again = router.reroute(&ask("7", &prompt), failed, std::slice::from_ref(&decode)).unwrap();
    assert_ne!(again.decode, decode);
    // A worker goes while it has requests, and another takes its place.
    router.gone("d0", 1);
    router.joined(&worker("d9", Role::Decode));
    drop((routes, again));
    assert_eq!(in_flight(&router), none);
    assert_eq!(router.lock().placer.admission.admitted(), 0);
    assert_eq!(router.lock().placer.admission.reserved_tokens(), 0);
    let outcome = router.record("0").unwrap().outcome.unwrap();
    assert_eq!((outcome.output_tokens, outcome.failed), (7, false));
    assert!(router.record("1").unwrap().outcome.unwrap().failed, "it was not served");
    assert!((router.lock().placer.learner().outputs.expected("t", 100) - 7.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_waits_in_turn_or_is_refused() {
    let limits = Limits { queue_requests: 2, max_wait_ms: 50.0, ..Limits::default() };
    let router = fleet(limits, Disaggregate::Always);
    // Each takes more than half of all.
    let prompt = vec![1; 9_800];
    let first = now(&router, &ask("first", &prompt)).unwrap();
    let second_ask = ask("second", &prompt);
    let second = now(&router, &second_ask).unwrap();
    let third_ask = ask("third", &prompt);
    let mut third = Box::pin(router.route(&third_ask));
    assert!(third.as_mut().now_or_never().is_none());
    let fourth_ask = ask("fourth", &prompt);
    let mut fourth = Box::pin(router.route(&fourth_ask));
    assert!(fourth.as_mut().now_or_never().is_none());
    match now(&router, &ask("fifth", &prompt)) {
        Err(Refused::NotNow(refusal)) => assert_eq!(refusal.reason, Reason::QueueFull),
        _ => panic!("the queue is full"),
    }
    // Nobody waits for the third one any more, so the next is the fourth.
    drop(third);
    drop(first);
    drop(second);
    let fourth = fourth.await.unwrap();
    assert_eq!(router.lock().placer.admission.queued(), 0);

    let late_ask = ask("late", &prompt);
    let other = now(&router, &ask("other", &prompt)).unwrap();
    let mut late = Box::pin(router.route(&late_ask));
    assert!(late.as_mut().now_or_never().is_none());
    std::thread::sleep(Duration::from_millis(60));
    router.look_after_queue();
    match late.await {
        Err(Refused::NotNow(refusal)) => assert_eq!(refusal.reason, Reason::Expired),
        _ => panic!("it waited for too long"),
    }
    drop((fourth, other));
    assert_eq!(router.lock().placer.admission.admitted(), 0);
    assert!(router.lock().waiters.is_empty());
}

#[test]
fn only_workers_that_are_here_and_connected_are_chosen() {
    let router = router(Limits::default(), Disaggregate::Always);
    let prompt = vec![1; 100];
    let refused = |router: &Arc<Router>| match now(router, &ask("r", &prompt)) {
        Err(Refused::Nobody(error)) => error.to_string(),
        _ => panic!("nobody is here"),
    };
    assert!(refused(&router).contains("no decode worker"));
    router.joined(&worker("d0", Role::Decode));
    router.joined(&worker("p0", Role::Prefill));
    let route = now(&router, &ask("r", &prompt)).unwrap();
    assert_eq!((&*route.decode, route.prefill.len(), route.is_local_by_choice), ("d0", 0, false));
    router.paired("p0", "d0", true);
    assert_eq!(now(&router, &ask("r", &prompt)).unwrap().prefill, ["p0"]);
    // Another life of it is another worker.
    router.joined(&WorkerFacts { incarnation: 2, ..worker("d0", Role::Decode) });
    assert_eq!(now(&router, &ask("r", &prompt)).unwrap().prefill.len(), 0);
    router.left("d0");
    assert!(refused(&router).contains("no decode worker"));
    router.joined(&WorkerFacts { incarnation: 2, ..worker("d0", Role::Decode) });
    router.reported("d0", &WorkerLoad { draining: true, ..WorkerLoad::default() });
    assert!(refused(&router).contains("draining"));
    let large = Ask { max_tokens: 9_999, ..ask("r", &prompt) };
    router.reported("d0", &WorkerLoad::default());
    match now(&router, &large) {
        Err(Refused::Nobody(error)) => assert!(error.to_string().contains("10099 tokens"), "{error}"),
        _ => panic!("it fits nowhere"),
    }
    let adapter = Ask { adapter: Some("a"), ..ask("r", &prompt) };
    assert!(now(&router, &adapter).is_err());
    router.adapters("d0", ["a".to_owned()].into());
    assert!(now(&router, &adapter).is_ok());
}

#[test]
fn a_step_s_time_is_learned_from_two_reports() {
    let router = fleet(Limits::default(), Disaggregate::Always);
    let slot = router.lock_slot("d0");
    let costs = || router.lock().placer.fleet.workers[slot].costs.decode;
    let before = costs();
    let mut load = WorkerLoad { decode_steps: 5, decode_us: 5, ..WorkerLoad::default() };
    router.reported("d0", &load);
    for _ in 0..200 {
        load.decode_steps += 10;
        load.decode_us += 500_000;
        load.decode_sequences += 40;
        load.decode_context_tokens += 4_000;
        router.reported("d0", &load);
    }
    assert!((costs().step_ms(4, 400) - 50.0).abs() < 5.0, "{:?} was {before:?}", costs());
    // Who has done nothing yet is taken to be alike.
    router.reported("d1", &WorkerLoad::default());
    let idle = router.lock_slot("d1");
    let idle = router.lock().placer.fleet.workers[idle].costs.decode;
    assert!((idle.step_ms(4, 400) / costs().step_ms(4, 400) - 1.0).abs() < 0.02, "{idle:?}");
}

impl Router {
    fn lock_slot(&self, id: &str) -> usize {
        self.lock().slots.of(id).unwrap()
    }
}

#[tokio::test]
async fn all_that_came_is_traffic_with_the_answers_that_it_had_or_would_have_had() {
    let router = fleet(Limits::default(), Disaggregate::Always);
    let spec = WorkerSpec { model: "m".to_owned(), block_tokens: BLOCK, same_hashes: None };
    let _tracked = router.cache().track("p1", spec).await.unwrap();
    let prompt: Vec<u32> = (0..300).collect();
    let come = |id: &str, tokens: usize, is_complete: bool, is_failed: bool| {
        let mut route = now(&router, &Ask { max_tokens: 50, ..ask(id, &prompt) }).unwrap();
        route.tokens(tokens);
        if is_complete {
            route.complete();
        }
        if is_failed {
            route.failed();
        }
    };
    come("failed at once", 0, false, true);
    come("failed on its way", 3, false, true);
    come("its client left", 3, false, false);
    come("complete", 7, true, false);
    come("nobody saw how long", 0, true, false);
    let nobody = Ask { subset: Some(&[]), ..ask("refused", &prompt) };
    assert!(now(&router, &nobody).is_err());
    drop(now(&router, &Ask { bytes: 0, ..ask("asks for nothing", &prompt) }).unwrap());
    let running = now(&router, &ask("running", &prompt)).unwrap();

    let traffic = router.traffic(Duration::from_secs(10)).unwrap();
    assert_eq!(traffic.requests, 7);
    assert!(traffic.span < Duration::from_secs(10), "it has not run for so long: {:?}", traffic.span);
    let text: Vec<u8> = traffic.lines.flatten().collect();
    let rows: Vec<serde_json::Value> =
        std::str::from_utf8(&text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tokens: Vec<_> = rows.iter().map(|row| row["output_tokens"].as_u64().unwrap()).collect();
    assert_eq!(tokens, [50, 50, 3, 7, 7, 7, 7], "what is not known is what is allowed, then what others had");
    let first = rows[0]["pieces"][0].clone();
    assert!(
        rows.iter().all(|row| row["pieces"][0] == first && row["pieces"].as_array().unwrap().len() == 5),
        "{rows:?}"
    );
    drop(running);
}
