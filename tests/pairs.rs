//! Prefill and decode workers are paired before a request goes their way: who cannot be is never used, who comes later or
//! comes back is.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    ANY, Ask, Client, Deployment, LyingRegistry, ModelFolder, Process, Role, Sent, Shape, Up, Worker,
    eventually, prompt_of, start, words, worker_args,
};

/// A fleet of processes of one's own, without supervisor.
struct Fleet {
    scheduler: Process,
    client: Client,
    registry: String,
    /// Where the decode worker joins.
    sidecar_at: String,
    sidecar: Process,
    decode: Process,
}

impl Fleet {
    /// A decode worker `decode` with its sidecar, and no prefill worker.
    fn start(model: &ModelFolder) -> Self {
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
        let (client, registry) = (Client::new(format!("http://{}", at("http"))), at("registry"));
        let (sidecar, at) =
            start(&words(&["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &registry]));
        let sidecar_at = at("grpc");
        let decode = start(&worker_args("decode-worker", "decode", model, &sidecar_at)).0;
        let fleet = Self { scheduler, client, registry, sidecar_at, sidecar, decode };
        fleet.joined(&["decode"]);
        fleet
    }

    fn workers(&self) -> Vec<Value> {
        self.client.get("/v1/workers").ok()["workers"].as_array().cloned().unwrap_or_default()
    }

    fn worker(&self, id: &str) -> Result<Value, String> {
        let workers = self.workers();
        let found = workers.iter().find(|worker| worker["worker_id"] == id);
        found.cloned().ok_or_else(|| format!("no {id} in {workers:?}"))
    }

    /// Waits until these workers are there, and no others.
    fn joined(&self, ids: &[&str]) {
        eventually(&format!("{ids:?} in the fleet"), || {
            let workers = self.workers();
            let present: Vec<&str> = workers.iter().filter_map(|w| w["worker_id"].as_str()).collect();
            if present == ids { Ok(()) } else { Err(format!("{present:?}")) }
        });
    }

    /// Waits until the pair of `prefill` with the decode worker is in that state; returns how it is shown.
    fn pair(&self, prefill: &str, state: &str) -> Value {
        eventually(&format!("the pair of {prefill} to be {state}"), || {
            let pair = self.worker(prefill)?["pairs"][0].clone();
            if pair["state"] == state { Ok(pair) } else { Err(pair.to_string()) }
        })
    }

    /// Transfers that arrived at the decode worker.
    fn transfers(&self) -> f64 {
        Worker::from_json(&self.worker("decode").unwrap()).transfers_completed()
    }

    fn stop(self, prefill: Vec<Process>) {
        let Self { scheduler, sidecar, decode, .. } = self;
        for mut process in [scheduler, sidecar, decode].into_iter().chain(prefill) {
            process.signal(Signal::TERM, Sent::ToProcess);
            assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(0));
            process.assert_nothing_left();
        }
    }
}

#[test]
fn a_prefill_worker_that_can_never_be_paired_is_never_used_and_says_why() {
    let model = ModelFolder::made_up(Shape::TINY);
    let fleet = Fleet::start(&model);
    let asked = Ask::new(&prompt_of(100, 1), 8);
    let expected = asked.answer(&fleet.client);
    let good = start(&worker_args("prefill-worker", "good", &model, &fleet.registry)).0;
    fleet.pair("good", "connected");

    // Other weights of the same shape, which the registry takes for the right ones.
    let right = fleet.worker("decode").unwrap()["model"]["revision"].as_str().unwrap().to_owned();
    let lie = |hello: &mut baton_proto::v1::WorkerInfo, revision: &str| {
        hello.model.as_mut().expect("a model").revision = revision.to_owned();
    };
    let lying = LyingRegistry::start(&fleet.registry, lie, &right);
    let other_weights = ModelFolder::made_up(Shape { seed: 2, ..Shape::TINY });
    let wrong = start(&worker_args("prefill-worker", "wrong", &other_weights, &lying.address())).0;
    let pair = fleet.pair("wrong", "refused");
    assert_eq!(pair["differs"]["field"], "model", "{pair}");
    assert!(pair["differs"]["decode"].as_str().unwrap().contains(&right), "{pair}");
    assert_ne!(pair["differs"]["prefill"], pair["differs"]["decode"]);

    let worker = Worker::from_json(&fleet.worker("wrong").unwrap());
    let computed = || worker.metrics().get("vllm:prompt_tokens_total", &[]);
    // An engine counts a step right after its outcome is told.
    let before = eventually("both prompts of its warm-up are counted", || match computed() {
        128.0 => Ok(128.0),
        other => Err(other.to_string()),
    });
    for _ in 0..6 {
        assert_eq!(asked.answer(&fleet.client), expected);
    }
    assert_eq!(fleet.transfers(), 6.0, "all by way of the other one");

    // It says so itself, the scheduler says so once, and both count it.
    let refused = [("state", "refused"), ("field", "model")];
    assert_eq!(worker.metrics().sum("baton_transfer_pairs", &refused), Some(1.0));
    wrong.wait_for_log(&["never", "decode", "model", &right]);
    fleet.scheduler.wait_for_log(&["never paired", "wrong", "decode", "model", &right]);
    assert_eq!(fleet.scheduler.log_lines(&["never paired"]).len(), 1);
    let metrics = fleet.client.get("/metrics").body;
    for line in ["baton_scheduler_pairs{state=\"refused\"} 1", "baton_scheduler_pairs{state=\"connected\"} 1"]
    {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    let settled = fleet.client.get("/ready/pairs");
    assert_eq!(settled.status, 200);
    assert!(settled.body.starts_with("wrong and decode are never paired: model is"), "{}", settled.body);

    // Also when nobody else is left: the decode worker prefills itself.
    let mut good = good;
    good.signal(Signal::TERM, Sent::ToProcess);
    assert_eq!(good.wait(Duration::from_secs(10)).code(), Some(0));
    fleet.joined(&["decode", "wrong"]);
    assert_eq!(asked.answer(&fleet.client), expected);
    assert_eq!((fleet.transfers(), computed()), (6.0, before));
    fleet.scheduler.wait_for_log(&["no prefill worker is connected to decode"]);
    fleet.stop(vec![wrong]);
}

#[test]
fn a_prefill_worker_that_joins_later_is_used_and_a_decode_worker_that_comes_back_is_connected_again() {
    let model = ModelFolder::made_up(Shape::TINY);
    let mut fleet = Fleet::start(&model);
    let asked = Ask::new(&prompt_of(100, 1), 8);
    let expected = asked.answer(&fleet.client);
    assert_eq!(fleet.transfers(), 0.0);

    let prefill = start(&worker_args("prefill-worker", "later", &model, &fleet.registry)).0;
    fleet.pair("later", "connected");
    assert_eq!(asked.answer(&fleet.client), expected);
    assert_eq!(fleet.transfers(), 1.0, "handed over");

    // Its next life under the same name is another transfer node.
    for signal in [Signal::KILL, Signal::TERM] {
        fleet.decode.signal(signal, Sent::ToProcess);
        fleet.decode.wait(Duration::from_secs(10));
        fleet.joined(&["later"]);
        fleet.decode = start(&worker_args("decode-worker", "decode", &model, &fleet.sidecar_at)).0;
        fleet.joined(&["decode", "later"]);
        fleet.pair("later", "connected");
        assert_eq!(asked.answer(&fleet.client), expected);
        assert_eq!(fleet.transfers(), 1.0, "handed over again");
    }
    fleet.stop(vec![prefill]);
}

#[test]
fn when_up_says_ready_every_pair_is_connected() {
    let model = ModelFolder::made_up(Shape::TINY);
    let mut deployment = Deployment::up(&Up::new(&model, 2, 2));
    let workers = deployment.client().get("/v1/workers").ok();
    let pairs = workers["workers"].as_array().into_iter().flatten().filter_map(|w| w["pairs"].as_array());
    let states: Vec<&str> = pairs.flatten().filter_map(|pair| pair["state"].as_str()).collect();
    assert_eq!(states, ["connected"; 4]);
    assert!(deployment.process().log_lines(&["serving without this pair"]).is_empty());
    for worker in deployment.workers(Role::Prefill) {
        assert_eq!(worker.metrics().get("baton_transfer_pairs", &[("state", "connected")]), 2.0);
        assert_eq!(worker.bytes_sent(), 0.0, "trying a path is no transfer");
    }
    deployment.stop();
}
