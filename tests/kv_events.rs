//! What a router learns of a worker's prefix cache, through vLLM's wire format.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{
    ANY, Client, Deployment, ModelFolder, Process, Shape, Up, Worker, eventually, required_variable, start,
    words, worker_args,
};

const BLOCK_TOKENS: usize = 16;

/// A client as vLLM's users write it; see its first lines.
struct Subscriber {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Subscriber {
    fn start() -> Self {
        let python = required_variable(
            "BATON_TEST_PYTHON",
            "a Python that has the packages of tests/requirements.txt",
        );
        let mut process = Command::new(python)
            .args(["../kv-events/tests/vllm_client.py", "array"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("BATON_TEST_PYTHON can be started");
        let (commands, answers) = (process.stdin.take(), process.stdout.take());
        Self { process, commands: commands.expect("piped"), answers: BufReader::new(answers.expect("piped")) }
    }

    /// All events since the worker's start.
    fn replay(&mut self, url: &str) -> Vec<Value> {
        writeln!(self.commands, "replay {url} 0").expect("the client lives");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        let batches: Value =
            serde_json::from_str(&line).expect("JSON; the client says above why there is none");
        let batches = batches.as_array().expect("a list").clone();
        let numbers: Vec<_> = batches.iter().map(|batch| batch["number"].as_u64()).collect();
        assert_eq!(numbers, (0..batches.len() as u64).map(Some).collect::<Vec<_>>(), "no gaps");
        batches.iter().flat_map(|batch| batch["events"].as_array().cloned().unwrap_or_default()).collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A router's index: parent and tokens of each block.
#[derive(Default)]
struct Index(BTreeMap<u64, (Option<u64>, Vec<u64>)>);

impl Index {
    fn of(events: &[Value]) -> Self {
        let mut index = Self::default();
        events.iter().for_each(|event| index.apply(event));
        index
    }

    fn apply(&mut self, event: &Value) {
        let numbers = |field: &str| -> Vec<u64> {
            let list = event[field].as_array().unwrap_or_else(|| panic!("no {field} in {event}"));
            list.iter().map(|number| number.as_u64().expect("a number")).collect()
        };
        match event["kind"].as_str() {
            Some("BlockStored") => {
                assert_eq!((&event["block_size"], &event["medium"]), (&json!(BLOCK_TOKENS), &json!("GPU")));
                let mut parent = event["parent_block_hash"].as_u64();
                assert!(parent.is_none_or(|parent| self.0.contains_key(&parent)), "an orphan: {event}");
                let tokens = numbers("token_ids");
                for (hash, tokens) in numbers("block_hashes").into_iter().zip(tokens.chunks(BLOCK_TOKENS)) {
                    self.0.insert(hash, (parent, tokens.to_vec()));
                    parent = Some(hash);
                }
            }
            Some("BlockRemoved") => numbers("block_hashes").iter().for_each(|hash| {
                assert!(self.0.remove(hash).is_some(), "{hash} was not there");
            }),
            Some("AllBlocksCleared") => self.0.clear(),
            _ => panic!("no event: {event}"),
        }
    }

    fn cached_tokens(&self, prompt: &[u64]) -> usize {
        let mut parent = None;
        let found = prompt.chunks_exact(BLOCK_TOKENS).take_while(|tokens| {
            let child = self.0.iter().find(|(_, (after, held))| *after == parent && held == tokens);
            parent = child.map(|(hash, _)| *hash);
            parent.is_some()
        });
        found.count() * BLOCK_TOKENS
    }
}

#[test]
fn a_router_knows_what_a_worker_has_cached() {
    let model = ModelFolder::made_up(Shape::TINY);
    let (_scheduler, at) = start(&words(&[
        "scheduler",
        "--model",
        &model.arg(),
        "--listen",
        ANY,
        "--registry-listen",
        ANY,
        "--aggregated",
    ]));
    let (client, registry) = (Client::new(format!("http://{}", at("http"))), at("registry"));
    let (_sidecar, at) =
        start(&words(&["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &registry]));
    let mut line = worker_args("decode-worker", "decode", &model, &at("grpc"));
    let here = "@tcp://127.0.0.1:0";
    line.extend(words(&[
        "--kv-blocks",
        "40",
        "--kv-events-endpoint",
        here,
        "--kv-events-replay-endpoint",
        here,
    ]));
    let (_worker, at) = start(&line);
    let replay = format!("tcp://{}", at("kv-events-replay"));
    assert_ne!(at("kv-events"), at("kv-events-replay"));
    let worker = eventually("the worker has joined", || {
        let workers = client.get("/v1/workers").ok();
        match workers["workers"].as_array().and_then(|workers| workers.first()) {
            Some(worker) if client.get("/ready").status == 200 => Ok(Worker::from_json(worker)),
            _ => Err(workers.to_string()),
        }
    });

    let mut subscriber = Subscriber::start();
    let at_start = subscriber.replay(&replay);
    assert_eq!(at_start.last().map(|event| event["kind"].clone()), Some(json!("AllBlocksCleared")));

    let mut hits = 0;
    for round in [1, 2, 1, 3, 4, 5, 1, 6, 6] {
        let prompt: Vec<u64> = (0..150).map(|i| (i * round + 7 * round) % 90).collect();
        let known = Index::of(&subscriber.replay(&replay)).cached_tokens(&prompt[..149]);
        let body = json!({"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": true});
        let answer = client.post("/v1/completions", &body).ok();
        let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
        assert_eq!(cached, Some(known as u64), "prompt {round}");
        hits += known;
        eventually("all events are published", || {
            let blocks = worker.metrics().get("baton_prefix_cache_blocks", &[]);
            let index = Index::of(&subscriber.replay(&replay));
            if index.0.len() as f64 == blocks {
                Ok(())
            } else {
                Err(format!("{} of {blocks}", index.0.len()))
            }
        });
    }
    assert!(hits >= 2 * 144, "{hits}");

    // A salt is with the first block of a sequence, as vLLM has it.
    let prompt: Vec<u64> = (0..40).map(|i| i * 2).collect();
    let body = json!({"prompt": prompt, "max_tokens": 1, "temperature": 0, "cache_salt": "for few"});
    client.post("/v1/completions", &body).ok();
    eventually("an event with the salt", || {
        let events = subscriber.replay(&replay);
        let extra_keys: Vec<_> = events.iter().filter(|event| event["extra_keys"].is_array()).collect();
        match extra_keys[..] {
            [event] if event["extra_keys"] == json!([["for few"], null]) => Ok(()),
            _ => Err(format!("{extra_keys:?}")),
        }
    });
    let removed = subscriber.replay(&replay).iter().filter(|event| event["kind"] == "BlockRemoved").count();
    assert!(removed > 0, "the pool holds four prompts");
    let metrics = worker.metrics();
    assert!(metrics.get("baton_kv_events_batches_total", &[]) > 9.0);
    assert_eq!(metrics.get("baton_kv_events_dropped_total", &[]), 0.0);
    assert!(metrics.get("baton_kv_events_replays_total", &[]) > 9.0);
}

/// Where `up` said that a worker's missed events can be had.
fn replay_of(deployment: &mut Deployment, worker: &str) -> String {
    let lines = deployment.process().log_lines(&["KV events can be had here", worker, "kv-events-replay"]);
    let [line] = &lines[..] else { panic!("not one line of {worker}: {lines:?}") };
    assert!(line.contains(&format!("kv@{worker}@m")), "{line}");
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("address="));
    format!("tcp://{}", address.unwrap_or_else(|| panic!("no address in {line}")))
}

#[test]
fn workers_of_up_publish_each_on_its_own_port_and_say_where() {
    let model = ModelFolder::made_up(Shape::TINY);
    let (any, topic) = ("@tcp://127.0.0.1:0", "kv@{worker}@m");
    let up = Up::new(&model, 1, 1).with("--kv-events-endpoint", any).with("--kv-events-replay-endpoint", any);
    let mut deployment = Deployment::up(&up.with("--kv-events-topic", topic).with("--block-tokens", 16));
    let urls = ["prefill-0", "decode-0"].map(|worker| replay_of(&mut deployment, worker));
    assert_ne!(urls[0], urls[1]);
    let prompt: Vec<u64> = (0..100).map(|i| i % 90).collect();
    // One that ends with its first token has nothing handed over.
    let body = json!({"prompt": prompt, "max_tokens": 4, "temperature": 0, "ignore_eos": true});
    deployment.client().post("/v1/completions", &body).ok();
    let mut subscriber = Subscriber::start();
    for url in urls {
        eventually("the prompt's blocks", || {
            match Index::of(&subscriber.replay(&url)).cached_tokens(&prompt) {
                96 => Ok(()),
                other => Err(format!("{other} tokens at {url}")),
            }
        });
    }
    deployment.stop();

    // Without a prefix cache there is nothing to publish.
    let quiet = Deployment::up(&Up::new(&model, 1, 1).with_flag("--no-prefix-cache"));
    for _ in 0..2 {
        let answer = quiet.client().post("/v1/completions", &body).ok();
        assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    }
    quiet.stop();
    let line = ["up", "--model", &model.arg(), "--decode", "2", "--kv-events-endpoint", "tcp://*:5557"];
    let printed = Process::run(&[&line[..], &["--print-config"]].concat());
    for (worker, port) in [("prefill-0", 5557), ("decode-0", 5558), ("decode-1", 5559)] {
        let plan =
            printed.stdout.split("[[process]]").find(|plan| plan.contains(&format!("name = \"{worker}\"")));
        let plan = plan.unwrap_or_else(|| panic!("no {worker} in {}", printed.stdout));
        assert!(plan.contains(&format!("tcp://*:{port}\"")), "{plan}");
    }
    for (more, reason) in [
        (["--kv-events-replay-endpoint", "tcp://*:5559"], "port 5559"),
        (["--kv-events-format", "yaml"], "array or map"),
        (["--no-prefix-cache", "--print-config"], "cannot be used with"),
    ] {
        let refused = Process::run(&[&line[..], &more[..]].concat());
        assert!(!refused.status.success() && refused.stderr.contains(reason), "{}", refused.stderr);
    }
}
