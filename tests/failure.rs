//! Workers that die or hang, and clients that go: the request ends right, nothing leaks, and the next one is served.
//!
//! "Right" is always compared with what the same request was answered when nothing happened to it.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Answer, Ask, Deployment, Event, ModelFolder, Role, Shape, Up, Worker, eventually, eventually_within,
    prompt_of,
};

/// From the death of the decode worker to the error event at the client.
const BREAK_TOLD_WITHIN: Duration = Duration::from_secs(2);
/// From silence to leaving the list of workers: a second, and half a second for the scheduling of a busy machine.
const LEAVES_WITHIN: Duration = Duration::from_millis(1500);

/// Prompts that the slow model computes in many steps. Each begins in its own way: none is cached when another was answered.
fn long_asks<const N: usize>() -> [Ask; N] {
    std::array::from_fn(|n| Ask::new(&prompt_of(3000, 7 + n as u64), 24))
}

/// What they are answered where nothing happens, and nothing is cached.
fn undisturbed<const N: usize>(model: &ModelFolder, asks: &[Ask; N]) -> [Answer; N] {
    let deployment = Deployment::up(&Up::new(model, 0, 1));
    let answers = asks.each_ref().map(|ask| ask.answer(deployment.client()));
    deployment.stop();
    answers
}

#[test]
fn a_prefill_worker_killed_before_during_or_after_its_push_changes_no_token() {
    check_killed_prefill(|up| up);
}

#[test]
fn a_prefill_worker_killed_before_during_or_after_its_push_over_libfabric_changes_no_token() {
    check_killed_prefill(|up| up.over_libfabric("tcp"));
}

fn check_killed_prefill(fabric: fn(Up) -> Up) {
    let model = ModelFolder::made_up(Shape::SLOW);
    let asks = long_asks::<3>();
    let undisturbed = undisturbed(&model, &asks);
    let deployment = Deployment::up(&fabric(Up::new(&model, 3, 1).without_restarts()));
    let client = deployment.client();

    let (answer, _) =
        while_answering(&deployment, &asks[0], Stage::Pushing, |worker| worker.signal(Signal::KILL));
    assert_eq!(answer, undisturbed[0], "killed during its push");
    let failed = deployment.worker(Role::Decode).transfers_failed();
    assert_eq!(failed, 1.0, "the push was really cut off");
    deployment.assert_blocks_return();

    let (answer, _) =
        while_answering(&deployment, &asks[1], Stage::Pushed, |worker| worker.signal(Signal::KILL));
    assert_eq!(answer, undisturbed[1], "killed after its push");
    assert_eq!(deployment.worker(Role::Decode).transfers_failed(), failed, "nothing was left to cut off");
    deployment.assert_blocks_return();

    let last = deployment.alive(Role::Prefill);
    let [last] = last[..] else { panic!("one prefill worker is left") };
    last.signal(Signal::KILL);
    assert_eq!(asks[2].answer(client), undisturbed[2], "killed before its push");
    eventually("the dead to leave the list", || match deployment.joined() {
        joined if joined == ["decode-0"] => Ok(()),
        joined => Err(format!("{joined:?}")),
    });
    assert_eq!(asks[0].answer(client), undisturbed[0], "no prefill worker is left");
    deployment.stop();
}

#[test]
fn a_paused_prefill_worker_is_passed_over_and_may_come_back() {
    check_paused_prefill(|up| up);
}

#[test]
fn a_paused_prefill_worker_over_libfabric_is_passed_over_and_may_come_back() {
    check_paused_prefill(|up| up.over_libfabric("tcp"));
}

fn check_paused_prefill(fabric: fn(Up) -> Up) {
    let model = ModelFolder::made_up(Shape::SLOW);
    let asks = long_asks::<3>();
    let undisturbed = undisturbed(&model, &asks);
    let deployment = Deployment::up(&fabric(Up::new(&model, 2, 1)));
    let client = deployment.client();

    let (answer, paused) =
        while_answering(&deployment, &asks[0], Stage::Pushing, |worker| worker.signal(Signal::STOP));
    assert_eq!(answer, undisturbed[0], "paused during its push");
    // Its blocks may not be used again while it could still write them.
    paused.signal(Signal::CONT);
    deployment.assert_blocks_return();
    eventually("the paused worker to be back", || {
        if deployment.joined().contains(&paused.id) { Ok(()) } else { Err("not listed".to_owned()) }
    });

    // Both are paused when the request arrives; the front may still list them.
    let workers = deployment.workers(Role::Prefill);
    workers.iter().for_each(|worker| worker.signal(Signal::STOP));
    assert_eq!(asks[1].answer(client), undisturbed[1], "both paused before its push");
    workers.iter().for_each(|worker| worker.signal(Signal::CONT));
    deployment.assert_blocks_return();

    eventually("both to be back", || match deployment.joined().len() {
        3 => Ok(()),
        _ => Err(format!("{:?}", deployment.joined())),
    });
    deployment.assert_paired();
    let pushed = deployment.worker(Role::Decode).transfers_completed();
    assert_eq!(asks[2].answer(client), undisturbed[2]);
    assert_eq!(deployment.worker(Role::Decode).transfers_completed(), pushed + 1.0, "they serve again");
    deployment.stop();
}

#[test]
fn a_decode_worker_killed_mid_stream_breaks_that_stream_only() {
    let model = ModelFolder::made_up(Shape::TINY);
    let deployment = Deployment::up(&Up::new(&model, 1, 2));
    let client = deployment.client();
    let short = Ask::new(&prompt_of(100, 1), 8);
    let undisturbed = short.answer(client);

    // One request runs on each; a dead one takes only its own along.
    let asks = [1, 2].map(|seed| Ask::new(&prompt_of(50, seed), 1500));
    let mut streams = asks.each_ref().map(|ask| ask.stream(client));
    let heads = streams.each_mut().map(|stream| vec![stream.data(), stream.data()]);
    let busy = |worker: &&Worker| worker.running() > 0.0;
    assert_eq!(deployment.workers(Role::Decode).iter().filter(|w| busy(w)).count(), 2, "load is spread");
    let victim = deployment.workers(Role::Decode)[0];
    victim.signal(Signal::KILL);
    let killed = Instant::now();

    let endings: Vec<(Option<Value>, Duration)> = thread::scope(|scope| {
        let readers = streams.each_mut().map(|stream| scope.spawn(|| read_to_error(stream, killed)));
        // Meanwhile new requests go elsewhere, from the first one on.
        for _ in 0..5 {
            assert_eq!(short.answer(client), undisturbed, "asked after the death");
        }
        readers.into_iter().map(|reader| reader.join().expect("read to its end")).collect()
    });
    let broken: Vec<_> =
        endings.iter().filter_map(|(error, after)| error.as_ref().map(|e| (e, after))).collect();
    let [(error, after)] = broken[..] else { panic!("exactly one stream breaks: {endings:?}") };
    assert!(*after < BREAK_TOLD_WITHIN, "told after {after:?}");
    for field in ["message", "type"] {
        assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    }
    assert!(heads.iter().flatten().all(|event| event.get("error").is_none()));
    deployment.assert_blocks_return();
    eventually("a decode worker in the place of the dead one", || match deployment.joined().len() {
        3 => Ok(()),
        _ => Err(format!("{:?}", deployment.joined())),
    });
    deployment.stop();
}

#[test]
fn a_decode_worker_killed_before_the_first_token_costs_the_client_nothing() {
    let model = ModelFolder::made_up(Shape::SLOW);
    let asks @ [asked] = &long_asks::<1>();
    let [undisturbed] = undisturbed(&model, asks);
    let deployment = Deployment::up(&Up::new(&model, 1, 2));
    let before: Vec<(&Worker, f64)> = deployment
        .workers(Role::Decode)
        .into_iter()
        .map(|worker| (worker, worker.writes_received()))
        .collect();
    let answer = thread::scope(|scope| {
        let request = scope.spawn(|| asked.answer(deployment.client()));
        let receiver = eventually("first blocks at a decode worker", || {
            assert!(!request.is_finished(), "the push was over before it was seen");
            let receiving = before.iter().find(|(worker, before)| worker.writes_received() > *before);
            receiving.map(|(worker, _)| *worker).ok_or_else(|| "none yet".to_owned())
        });
        receiver.signal(Signal::KILL);
        request.join().expect("answered")
    });
    assert_eq!(answer, undisturbed, "served by the other one");
    deployment.assert_blocks_return();
    deployment.stop();
}

#[test]
fn a_killed_sidecar_frees_the_blocks_of_its_decode_worker_and_is_replaced() {
    check_replaced("sidecar");
}

#[test]
fn a_killed_front_frees_the_blocks_of_its_requests_and_is_replaced() {
    check_replaced("scheduler");
}

/// The process is killed while a request runs through it: blocks come back, and the fleet serves again.
fn check_replaced(role: &str) {
    let model = ModelFolder::made_up(Shape { context: 65_536, ..Shape::TINY });
    let mut deployment = Deployment::up(&Up::new(&model, 1, 1));
    let short = Ask::new(&prompt_of(100, 1), 8);
    let undisturbed = short.answer(deployment.client());
    let mut stream = Ask::new(&prompt_of(100, 2), 60_000).stream(deployment.client());
    stream.data();
    assert!(deployment.worker(Role::Decode).blocks_in_use() > 0.0);

    deployment.process().signal_role(role, Signal::KILL);
    deployment.assert_blocks_return();
    drop(stream);
    // The moment between: the old registration may still be listed, so one answer may yet be 503.
    let answer = eventually("an answer", || {
        let reply =
            deployment.client().try_post("/v1/completions", short.body()).map_err(|e| e.to_string())?;
        if reply.status == 200 { Ok(Answer::from_whole(&reply.ok())) } else { Err(reply.body) }
    });
    assert_eq!(answer, undisturbed);
    deployment.stop();
}

#[test]
fn without_any_decode_worker_the_answer_is_503_until_one_is_back() {
    let model = ModelFolder::made_up(Shape::TINY);
    let deployment = Deployment::up(&Up::new(&model, 1, 1));
    let client = deployment.client();
    let asked = Ask::new(&prompt_of(100, 1), 8);
    let undisturbed = asked.answer(client);
    let decode = deployment.worker(Role::Decode);

    decode.signal(Signal::STOP);
    eventually("the paused decode worker to leave", || {
        if deployment.joined().contains(&decode.id) { Err("listed".to_owned()) } else { Ok(()) }
    });
    let reply = client.post("/v1/completions", asked.body());
    reply.error(503);
    assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
    assert_eq!(client.get("/ready").status, 503);
    assert_eq!(client.get("/health").status, 200);

    decode.signal(Signal::CONT);
    eventually("readiness", || match client.get("/ready").status {
        200 => Ok(()),
        status => Err(status.to_string()),
    });
    assert_eq!(asked.answer(client), undisturbed);
    deployment.stop();
}

#[test]
fn a_silent_worker_leaves_within_a_second() {
    let model = ModelFolder::made_up(Shape::TINY);
    let deployment = Deployment::up(&Up::new(&model, 2, 1));
    let [silent, killed] = deployment.workers(Role::Prefill)[..] else { panic!("two prefill workers") };
    for (worker, signal) in [(silent, Signal::STOP), (killed, Signal::KILL)] {
        worker.signal(signal);
        eventually_within(LEAVES_WITHIN, &format!("{} to leave after {signal:?}", worker.id), || {
            if deployment.joined().contains(&worker.id) { Err("listed".to_owned()) } else { Ok(()) }
        });
    }
    silent.signal(Signal::CONT);
    deployment.stop();
}

#[test]
fn a_client_that_hangs_up_mid_stream_costs_nothing() {
    let model = ModelFolder::made_up(Shape::TINY);
    let deployment = Deployment::up(&Up::new(&model, 1, 1));
    let client = deployment.client();
    for tokens_read in [0, 1, 5] {
        let mut stream = Ask::new(&prompt_of(700, 3), 1200).stream(client);
        for _ in 0..tokens_read {
            stream.data();
        }
        drop(stream);
        let generated = deployment.worker(Role::Decode).tokens_generated();
        deployment.assert_blocks_return();
        eventually("the decode worker to be idle", || match deployment.worker(Role::Decode).running() {
            0.0 => Ok(()),
            running => Err(format!("{running} running")),
        });
        let wasted = deployment.worker(Role::Decode).tokens_generated() - generated;
        assert!(wasted < 600.0, "{wasted} tokens were computed for nobody");
    }
    deployment.stop();
}

/// Where a request is when a worker is disturbed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Some blocks have arrived at the decode worker, others are still to be computed.
    Pushing,
    /// The decode worker has them all, and writes the answer.
    Pushed,
}

/// Sends a request, and does something to the prefill worker that serves it when it has reached a stage.
fn while_answering<'a>(
    deployment: &'a Deployment,
    asked: &Ask,
    stage: Stage,
    disturb: impl Fn(&Worker),
) -> (Answer, &'a Worker) {
    let decode = deployment.worker(Role::Decode);
    let candidates: Vec<(&Worker, f64)> =
        deployment.alive(Role::Prefill).into_iter().map(|worker| (worker, worker.writes_sent())).collect();
    let progress = |worker: &Worker| match stage {
        Stage::Pushing => worker.writes_received(),
        Stage::Pushed => worker.transfers_completed(),
    };
    let before = progress(decode);
    thread::scope(|scope| {
        let request = scope.spawn(|| asked.answer(deployment.client()));
        eventually(&format!("{stage:?}"), || {
            assert!(!request.is_finished(), "{stage:?} was over before it was seen");
            if progress(decode) > before { Ok(()) } else { Err("not yet".to_owned()) }
        });
        let at_work = candidates.iter().filter(|(worker, before)| worker.writes_sent() > *before);
        let [(worker, _)] = at_work.collect::<Vec<_>>()[..] else { panic!("one prefill worker is at work") };
        disturb(worker);
        (request.join().expect("answered"), *worker)
    })
}

/// Reads a stream to its end: the error event and when it came, or `None` when it ended well.
fn read_to_error(stream: &mut crate::harness::Stream, since: Instant) -> (Option<Value>, Duration) {
    let mut error = None;
    let mut after = Duration::ZERO;
    for event in stream {
        assert!(error.is_none() || event == Event::Done, "an error is the last word, not {event:?}");
        if let Event::Data(event) = event
            && event.get("error").is_some()
        {
            error = Some(event["error"].clone());
            after = since.elapsed();
        }
    }
    (error, after)
}
