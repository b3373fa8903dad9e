//! Several schedulers side by side, without a leader: each serves the whole fleet, and the death of one takes only its own requests.

use std::{thread, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    ANY, Ask, Client, Deployment, Metrics, ModelFolder, Process, Sent, Shape, Up, eventually, prompt_of,
    start, words, worker_args, write_adapter,
};

const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// Two schedulers, a decode worker with its sidecar, and prefill workers, all started by hand.
struct Fleet {
    model: ModelFolder,
    schedulers: Vec<Scheduler>,
    others: Vec<Process>,
}

struct Scheduler {
    process: Process,
    client: Client,
    http: String,
    registry: String,
}

impl Scheduler {
    fn start(model: &ModelFolder, http: &str, registry: &str) -> Self {
        let model = model.arg();
        let listen = ["--listen", http, "--registry-listen", registry, "--disaggregate", "always"];
        let line = [&["scheduler", "--model", &model, "--allow-runtime-lora-updating"][..], &listen].concat();
        let (process, at) = start(&words(&line));
        let client = Client::new(format!("http://{}", at("http")));
        Self { process, client, http: at("http"), registry: at("registry") }
    }

    /// Waits until every worker is here, and every pair.
    fn wait_for_workers(&self, expected: usize) {
        eventually("all workers at this scheduler", || {
            let listed = self.client.try_get("/v1/workers").map_err(|error| error.to_string())?.json();
            let count = listed["workers"].as_array().map_or(0, Vec::len);
            let pairs = self.client.try_get("/ready/pairs").map_err(|error| error.to_string())?;
            if count == expected && pairs.status == 200 { Ok(()) } else { Err(format!("{count}: {pairs:?}")) }
        });
    }
}

impl Fleet {
    fn start(shape: Shape, prefill: usize) -> Self {
        let model = ModelFolder::made_up(shape);
        let schedulers: Vec<Scheduler> = (0..2).map(|_| Scheduler::start(&model, ANY, ANY)).collect();
        let registries = format!("{},{}", schedulers[0].registry, schedulers[1].registry);
        let sidecar = ["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &registries];
        let (sidecar, at) = start(&words(&sidecar));
        let mut others = vec![sidecar];
        for index in 0..prefill {
            let name = format!("prefill-{index}");
            others.push(start(&worker_args("prefill-worker", &name, &model, &registries)).0);
        }
        others.push(start(&worker_args("decode-worker", "decode-0", &model, &at("grpc"))).0);
        let fleet = Self { model, schedulers, others };
        fleet.schedulers.iter().for_each(|scheduler| scheduler.wait_for_workers(prefill + 1));
        fleet
    }

    fn kill(&mut self, index: usize) {
        let process = &mut self.schedulers[index].process;
        process.signal(Signal::KILL, Sent::ToProcess);
        process.wait(STOPS_WITHIN);
    }

    /// Another one where it was.
    fn start_again(&mut self, index: usize) {
        let (http, registry) = (&self.schedulers[index].http, &self.schedulers[index].registry);
        self.schedulers[index] = Scheduler::start(&self.model, http, registry);
        self.schedulers[index].wait_for_workers(self.others.len() - 1);
    }

    fn stop(self) {
        for mut process in self.schedulers.into_iter().map(|s| s.process).chain(self.others) {
            process.signal(Signal::TERM, Sent::ToProcess);
            assert_eq!(process.wait(STOPS_WITHIN).code(), Some(0));
            process.assert_nothing_left();
        }
    }
}

fn cached_tokens(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn the_death_of_one_scheduler_ends_its_own_requests_and_no_other() {
    let mut fleet = Fleet::start(Shape::TINY, 1);
    let short = Ask::new(&prompt_of(100, 1), 8);
    let expected = short.answer(&fleet.schedulers[0].client);
    assert_eq!(short.answer(&fleet.schedulers[1].client), expected);

    let long = Ask::new(&prompt_of(50, 2), 1500);
    let mut of_the_dead = long.stream(&fleet.schedulers[0].client);
    let mut of_the_other = long.stream(&fleet.schedulers[1].client);
    of_the_dead.data();
    of_the_other.data();
    fleet.kill(0);
    let other = fleet.schedulers[1].client.clone();
    thread::scope(|scope| {
        let rest = scope.spawn(|| of_the_other.until_done());
        // Meanwhile the other serves on, from the first request on.
        for _ in 0..5 {
            assert_eq!(short.answer(&other), expected);
        }
        let rest = rest.join().expect("read to its end");
        assert_eq!(rest.last().expect("a chunk with the usage")["usage"]["completion_tokens"], 1500);
    });
    drop(of_the_dead);

    // Who is started again in its place has the workers, their pairs and their caches.
    let warm = Ask::new(&prompt_of(200, 3), 4);
    other.post("/v1/completions", warm.body()).ok();
    fleet.start_again(0);
    let again = fleet.schedulers[0].client.post("/v1/completions", warm.body()).ok();
    assert!(cached_tokens(&again) >= 160, "{again}");
    assert_eq!(short.answer(&fleet.schedulers[0].client), expected);
    for kind in ["registered", "trying again"] {
        assert!(!fleet.others[1].log_lines(&[kind]).is_empty(), "the prefill worker says what happened");
    }
    fleet.stop();
}

#[test]
fn each_scheduler_knows_what_was_cached_through_the_other() {
    let fleet = Fleet::start(Shape::TINY, 2);
    let [one, other] = [&fleet.schedulers[0].client, &fleet.schedulers[1].client];
    // Sent to the wrong one of two workers, at least one of six prompts would find nothing there.
    for seed in 0..6 {
        let ask = Ask::new(&prompt_of(200, seed), 1);
        let (first, second) = if seed % 2 == 0 { (one, other) } else { (other, one) };
        assert_eq!(cached_tokens(&first.post("/v1/completions", ask.body()).ok()), 0);
        let known = |client: &Client| {
            Metrics::parse(&client.get("/metrics").body).get("baton_router_kv_index_blocks", &[])
        };
        // Both workers have the prompt's 12 blocks in the end: who prefilled it and who goes on with it.
        eventually("the caches to be told", || match known(second) {
            blocks if blocks >= 12.0 * (seed + 1) as f64 => Ok(()),
            blocks => Err(format!("{blocks} blocks")),
        });
        let again = second.post("/v1/completions", ask.body()).ok();
        assert!(cached_tokens(&again) >= 176, "{again}");
    }
    fleet.stop();
}

#[test]
fn adapters_are_the_same_at_every_scheduler_whoever_ordered_them() {
    let mut fleet = Fleet::start(Shape::TINY, 1);
    let folder = fleet.model.path().parent().expect("a folder around it").join("adapters");
    let adapter = write_adapter(&folder, Shape::TINY, 1);
    let load = json!({"lora_name": "a", "lora_path": adapter.display().to_string()});
    let served = |client: &Client| {
        let list = client.get("/v1/models").ok();
        let models = list["data"].as_array().cloned().unwrap_or_default();
        models.iter().any(|model| model["id"] == "a")
    };
    let wait_until = |client: &Client, expected: bool| {
        eventually("the list of models", || match served(client) {
            served if served == expected => Ok(()),
            served => Err(format!("served: {served}")),
        });
    };
    let unload = json!({"lora_name": "a"});
    let post = |fleet: &Fleet, index: usize, path: &str, body: &Value| {
        let reply = fleet.schedulers[index].client.post(path, body);
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    let ask = Ask::new(&prompt_of(30, 1), 6).with("model", "a");

    post(&fleet, 0, "/v1/load_lora_adapter", &load);
    wait_until(&fleet.schedulers[1].client, true);
    let expected = ask.answer(&fleet.schedulers[0].client);
    assert_eq!(ask.answer(&fleet.schedulers[1].client), expected);
    fleet.schedulers[1].client.post("/v1/load_lora_adapter", &load).error(400);

    // The one that ordered it dies; the other takes it back, and may order it again.
    fleet.kill(0);
    post(&fleet, 1, "/v1/unload_lora_adapter", &unload);
    assert!(!served(&fleet.schedulers[1].client));
    fleet.start_again(0);
    assert!(!served(&fleet.schedulers[0].client), "what was ordered in another life does not come back");
    post(&fleet, 0, "/v1/load_lora_adapter", &load);
    wait_until(&fleet.schedulers[1].client, true);
    assert_eq!(ask.answer(&fleet.schedulers[1].client), expected);

    // What was ordered is remembered by the fleet: a scheduler that never heard of it has it, and so have new workers.
    fleet.kill(0);
    fleet.kill(1);
    fleet.start_again(0);
    fleet.start_again(1);
    let registries = format!("{},{}", fleet.schedulers[0].registry, fleet.schedulers[1].registry);
    fleet.others.push(start(&worker_args("prefill-worker", "late", &fleet.model, &registries)).0);
    eventually("the late worker to have the adapter", || {
        let workers = fleet.schedulers[0].client.get("/v1/workers").ok();
        let late =
            workers["workers"].as_array().and_then(|all| all.iter().find(|w| w["worker_id"] == "late"));
        if late.is_some_and(|late| late["adapters"]["a"].is_string()) {
            Ok(())
        } else {
            Err(workers.to_string())
        }
    });
    fleet.stop();
}

#[test]
fn every_address_of_a_name_is_joined() {
    let model = ModelFolder::made_up(Shape::TINY);
    let scheduler = Scheduler::start(&model, ANY, ANY);
    let port = scheduler.registry.rsplit_once(':').expect("a port").1.to_owned();
    let name = format!("dns:localhost:{port}");
    let (sidecar, at) =
        start(&words(&["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &name]));
    let decode = start(&worker_args("decode-worker", "decode-0", &model, &at("grpc"))).0;
    let prefill = start(&worker_args("prefill-worker", "prefill-0", &model, &name)).0;
    scheduler.wait_for_workers(2);
    assert_eq!(Ask::new(&prompt_of(40, 1), 3).answer(&scheduler.client).tokens.len(), 3);
    for mut process in [scheduler.process, sidecar, prefill, decode] {
        process.signal(Signal::TERM, Sent::ToProcess);
        assert_eq!(process.wait(STOPS_WITHIN).code(), Some(0));
    }
}

#[test]
fn up_starts_several_fronts_and_addresses_that_are_none_are_refused() {
    let model = ModelFolder::made_up(Shape::TINY);
    let mut deployment = Deployment::up(&Up::new(&model, 1, 2).with("--schedulers", 2));
    let fronts = deployment.process().stdout_lines("front ");
    let [second] = &fronts[..] else { panic!("one more front: {fronts:?}") };
    let second = Client::new(second.clone());
    let ask = Ask::new(&prompt_of(60, 1), 5);
    assert_eq!(ask.answer(&second), ask.answer(deployment.client()));
    let workers = |client: &Client| client.get("/v1/workers").ok()["workers"].as_array().map_or(0, Vec::len);
    assert_eq!((workers(&second), workers(deployment.client())), (3, 3));
    deployment.stop();

    let refused = |args: &[String], parts: &[&str]| {
        let finished = Process::run(args);
        assert!(!finished.status.success(), "{}", finished.stderr);
        for word in parts {
            assert!(finished.stderr.contains(word), "no {word:?} in {}", finished.stderr);
        }
    };
    refused(&worker_args("prefill-worker", "p", &model, "a:1,b"), &["--registry", "\"b\"", "HOST:PORT"]);
    refused(&worker_args("decode-worker", "d", &model, "a:1,b:2"), &["a decode worker joins one sidecar"]);
    let far = words(&["up", "--model", &model.arg(), "--schedulers", "3", "--port", "65534"]);
    refused(&far, &["--schedulers 3", "no ports above 65535"]);
}
