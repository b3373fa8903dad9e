//! Who may join: the roles started one by one form a fleet, and a worker of another model is refused and says why.

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{
    ANY, Ask, Client, Deployment, ModelFolder, Process, Sent, Shape, Up, Worker, eventually, prompt_of,
    start, words, worker_args,
};

#[test]
fn roles_started_by_hand_form_a_fleet_that_no_other_model_can_join() {
    let model = ModelFolder::made_up(Shape::TINY);
    let alone = Deployment::up(&Up::new(&model, 0, 1));
    let expected = Ask::new(&prompt_of(100, 1), 8).answer(alone.client());
    alone.stop();
    let (scheduler, at) = start(&words(&[
        "scheduler",
        "--model",
        &model.arg(),
        "--listen",
        ANY,
        "--registry-listen",
        ANY,
        "--disaggregate",
        "always",
    ]));
    let client = Client::new(format!("http://{}", at("http")));
    let registry = at("registry");
    let (sidecar, at) =
        start(&words(&["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &registry]));
    // It cuts its KV cache in other blocks than the decode worker: converted on the way, to the same answer.
    let small_blocks =
        [worker_args("prefill-worker", "left", &model, &registry), words(&["--block-tokens", "8"])];
    let (prefill, _) = start(&small_blocks.concat());
    let (decode, _) = start(&worker_args("decode-worker", "right", &model, &at("grpc")));
    eventually("readiness", || match client.get("/ready/pairs") {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.body),
    });
    let asked = Ask::new(&prompt_of(100, 1), 8);
    assert_eq!(asked.answer(&client), expected, "by way of the prefill worker");
    let listed = client.get("/v1/workers").ok();
    let workers = listed["workers"].as_array().into_iter().flatten().map(Worker::from_json);
    assert_eq!(workers.map(|worker| worker.transfers_completed()).sum::<f64>(), 1.0, "handed over");

    // Other weights of the same shape (also under the name of one that serves), a place that is taken, another shape, and
    // another name.
    let other_weights = ModelFolder::made_up(Shape { seed: 2, ..Shape::TINY });
    check_refused(&worker_args("prefill-worker", "other", &other_weights, &registry), &["revision"]);
    check_refused(&worker_args("decode-worker", "right", &other_weights, &at("grpc")), &["revision"]);
    check_refused(&worker_args("decode-worker", "other", &model, &at("grpc")), &["right already"]);
    let deeper = ModelFolder::made_up(Shape { layers: 6, ..Shape::TINY });
    check_refused(&worker_args("prefill-worker", "other", &deeper, &registry), &["does not match"]);
    let renamed =
        [worker_args("prefill-worker", "other", &model, &registry), words(&["--served-model-name", "else"])];
    check_refused(&renamed.concat(), &["made-up", "else"]);

    let listed = client.get("/v1/workers").ok();
    let ids: Vec<&str> =
        listed["workers"].as_array().into_iter().flatten().filter_map(|w| w["worker_id"].as_str()).collect();
    assert_eq!(ids, ["left", "right"]);
    assert_eq!(asked.answer(&client), expected, "the fleet serves on");

    for mut process in [scheduler, sidecar, prefill, decode] {
        process.signal(Signal::TERM, Sent::ToProcess);
        assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(0));
        process.assert_nothing_left();
    }
}

fn check_refused(args: &[String], words: &[&str]) {
    let finished = Process::run(args);
    assert!(!finished.status.success(), "{}", finished.stderr);
    let error = finished.stderr.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: "), "{}", finished.stderr);
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
}
