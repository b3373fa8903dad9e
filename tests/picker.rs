//! A real gateway (Envoy) that asks the scheduler's endpoint picker, in front of Baton's workers and of vLLM-like servers.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    ANY, Client, FakeVllm, Gateway, GatewayShape, Metrics, ModelFolder, Process, Sent, Worker, eventually,
    start, words, worker_args,
};

const CHAT: &str = "/v1/chat/completions";

/// Stops them in order.
fn stop(processes: Vec<Process>) {
    for mut process in processes {
        process.signal(Signal::TERM, Sent::ToProcess);
        assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(0));
    }
}

fn decision(scheduler: &Client, id: &str) -> Value {
    let reply = scheduler.get(&format!("/v1/decisions/{id}"));
    assert_eq!(reply.status, 200, "{}", reply.body);
    serde_json::from_str(&reply.body).expect("JSON")
}

#[test]
fn a_gateway_reaches_decode_workers_and_prompts_are_handed_over() {
    let model = ModelFolder::bundled();
    let line = ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY];
    let picking = ["--picker-listen", ANY, "--admin-listen", ANY, "--disaggregate", "always"];
    let (scheduler, at) = start(&words(&[&line[..], &picking].concat()));
    let (front, registry, picker) =
        (Client::new(format!("http://{}", at("http"))), at("registry"), at("picker"));
    let admin = Client::new(format!("http://{}", at("admin")));
    let line = ["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &registry];
    let (sidecar, at) =
        start(&words(&[&line[..], &["--http-listen", ANY, "--model", &model.arg()]].concat()));
    let endpoint = at("http");
    let decode = start(&worker_args("decode-worker", "decode", &model, &at("grpc"))).0;
    let prefill = start(&worker_args("prefill-worker", "prefill", &model, &registry)).0;
    eventually("all are paired", || match front.get("/ready/pairs") {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.body),
    });
    let gateway = Gateway::start(&[&picker], &[&endpoint]);
    let transfers = || {
        let workers: Value = serde_json::from_str(&front.get("/v1/workers").body).expect("JSON");
        let workers = workers["workers"].as_array().expect("workers").clone();
        let decode = workers.iter().find(|worker| worker["worker_id"] == "decode").expect("it is there");
        Worker::from_json(decode).transfers_completed()
    };

    let before = transfers();
    let ask = json!({
        "messages": [{ "role": "user", "content": "Where does this go, and who computes it?" }],
        "max_tokens": 12, "temperature": 0, "ignore_eos": true,
    });
    let through = gateway.client.saying("x-request-id", "by-gateway").post(CHAT, &ask);
    assert_eq!(through.status, 200, "{}", through.body);
    assert!(transfers() > before, "the prompt was computed by the prefill worker");
    let direct = front.post(CHAT, &ask);
    let text = |body: &str| {
        let answer: Value = serde_json::from_str(body).expect("JSON");
        (answer["choices"][0]["message"]["content"].clone(), answer["usage"]["completion_tokens"].clone())
    };
    assert_eq!(text(&through.body), text(&direct.body), "the same answer on both ways");

    eventually("what then happened is known", || {
        let decision = decision(&front, "by-gateway");
        match decision["outcome"]["output_tokens"].as_u64() {
            Some(12) => Ok(()),
            _ => Err(decision.to_string()),
        }
    });
    let decided = decision(&front, "by-gateway");
    let winner = usize::try_from(decided["winner"].as_u64().unwrap()).unwrap();
    let place =
        (decided["choices"][winner]["prefill"].as_str(), decided["choices"][winner]["decode"].as_str());
    assert_eq!(place, (Some("prefill"), Some("decode")));

    let streamed = json!({ "stream": true, "messages": ask["messages"], "max_tokens": 12, "temperature": 0 });
    let events = gateway.client.post(CHAT, &streamed);
    assert!(events.body.ends_with("data: [DONE]\n\n"), "{}", events.body);
    let counted = Metrics::parse(&admin.get("/metrics").body);
    assert!(counted.get("baton_router_decisions_total", &[("prefill", "prefill-worker")]) > 0.0);
    // Two through the gateway, one by the scheduler's own front.
    for (name, labels, value) in [
        ("llm_d_epp_request_total", &[][..], 3.0),
        ("inference_model_request_total", &[], 3.0),
        ("inference_objective_output_tokens_count", &[], 3.0),
        ("llm_d_epp_request_ttft_seconds_count", &[("streaming", "true")], 1.0),
        ("llm_d_epp_disagg_decision_total", &[("decision_type", "prefill-decode")], 3.0),
        ("llm_d_epp_scheduler_attempts_total", &[("endpoint_name", "decode"), ("status", "success")], 3.0),
    ] {
        eventually(name, || match Metrics::parse(&admin.get("/metrics").body).sum(name, labels) {
            Some(found) if found == value => Ok(()),
            found => Err(format!("{found:?}")),
        });
    }

    // Without anybody to choose from, the gateway's client is told so, and when to come back.
    let unavailable = || {
        let metrics = Metrics::parse(&admin.get("/metrics").body);
        metrics.sum("llm_d_epp_request_error_total", &[("error_code", "ServiceUnavailable")])
    };
    assert_eq!(unavailable(), None);
    drop(decode);
    eventually("nobody is left", || {
        let reply = gateway.client.post(CHAT, &ask);
        match (reply.status, reply.headers.contains_key("retry-after")) {
            // Said by the picker; a moment before, the sidecar says that it has none.
            (503, true) if reply.body.contains("no decode worker is available") => Ok(()),
            found => Err(format!("{found:?} {}", reply.body)),
        }
    });
    assert!(unavailable() >= Some(1.0));
    drop((gateway, sidecar, prefill));
    stop(vec![scheduler]);
}

/// A list of servers, in the file's form.
fn listed(servers: &[&FakeVllm], names: &[&str]) -> String {
    let entry =
        |(server, name): (&&FakeVllm, &&str)| format!("- name: {name}\n  address: {}\n", server.address);
    format!("endpoints:\n{}", servers.iter().zip(names).map(entry).collect::<String>())
}

fn conversation(topic: usize, turn: usize) -> Value {
    let system = format!("You know all about topic {topic}. ").repeat(100);
    json!({
        "model": "whatever it is",
        "messages": [{ "role": "system", "content": system }, { "role": "user", "content": format!("turn {turn}") }],
    })
}

#[test]
fn servers_that_do_not_register_are_found_in_a_file_and_chosen_by_cache_and_load() {
    let model = ModelFolder::bundled();
    let servers = ["a", "b", "c"].map(FakeVllm::start);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("servers.yaml");
    let all: Vec<&FakeVllm> = servers.iter().collect();
    std::fs::write(&file, listed(&all, &["a", "b", "c"])).unwrap();
    let line = ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY];
    let picking = ["--picker-listen", ANY, "--servers", file.to_str().unwrap(), "--scrape-ms", "50"];
    let (scheduler, at) = start(&words(&[&line[..], &picking].concat()));
    let front = Client::new(format!("http://{}", at("http")));
    let addresses = servers.each_ref().map(|server| server.address.to_string());
    let gateway = Gateway::start(&[&at("picker")], &addresses.each_ref().map(String::as_str));
    let ask = |body: &Value| -> String {
        let reply = gateway.client.post(CHAT, body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        serde_json::from_str::<Value>(&reply.body).unwrap()["served_by"].as_str().unwrap().to_owned()
    };
    eventually("the gateway finds somebody", || {
        let reply = gateway.client.post(CHAT, &conversation(99, 0));
        if reply.status == 200 { Ok(()) } else { Err(reply.body) }
    });

    // Each conversation stays where it was; all together are everywhere.
    let homes: Vec<String> = std::thread::scope(|scope| {
        let ask = &ask;
        let asked = |topic| scope.spawn(move || ask(&conversation(topic, 0)));
        let all: Vec<_> = (0..12).map(asked).collect();
        all.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    homes.iter().for_each(|home| *used.entry(home).or_default() += 1);
    assert_eq!(used.len(), 3, "{used:?}");
    for turn in 1..4 {
        for (topic, home) in homes.iter().enumerate() {
            assert_eq!(&ask(&conversation(topic, turn)), home, "topic {topic} in turn {turn}");
        }
    }
    let id = gateway.client.saying("x-request-id", "asked").post(CHAT, &conversation(0, 9));
    assert!(id.body.contains("\"request_id\":\"asked\""), "{}", id.body);
    assert_eq!(decision(&front, "asked")["choices"][0]["prefill"], Value::Null);
    let streamed = json!({ "stream": true, "messages": conversation(1, 1)["messages"] });
    assert!(gateway.client.post(CHAT, &streamed).body.ends_with("data: [DONE]\n\n"));

    // Who has a long queue gets nothing new, whatever it has cached.
    servers[0].set_load(500, 50);
    eventually("the queue is known", || {
        let before = servers[0].answered();
        (100..106).for_each(|topic| drop(ask(&conversation(topic, 0))));
        if servers[0].answered() == before { Ok(()) } else { Err("a got some".to_owned()) }
    });
    servers[0].set_load(0, 0);

    // What the gateway leaves to choose from is obeyed.
    let only = gateway.client.saying("x-test-subset", &addresses[1]);
    for topic in 200..204 {
        assert!(only.post(CHAT, &conversation(topic, 0)).body.contains("\"served_by\":\"b\""));
    }
    let nobody = gateway.client.saying("x-test-subset", "127.0.0.1:1").post(CHAT, &conversation(0, 0));
    assert_eq!(nobody.status, 503, "{}", nobody.body);

    // Taken out of the list, it gets nothing any more.
    std::fs::write(&file, listed(&all[1..], &["b", "c"])).unwrap();
    eventually("a has left", || {
        let before = servers[0].answered();
        (300..310).for_each(|topic| drop(ask(&conversation(topic, 0))));
        if servers[0].answered() == before { Ok(()) } else { Err("a got some".to_owned()) }
    });

    // One that dies: its requests are tried elsewhere.
    let [_a, b, c] = servers;
    drop(b);
    for topic in 400..410 {
        assert_eq!(ask(&conversation(topic, 0)), "c");
    }
    let refused = gateway.client.post(CHAT, &json!("no object"));
    assert_eq!(refused.status, 400, "{}", refused.body);
    drop((gateway, c));
    stop(vec![scheduler]);
}

#[test]
fn gateways_may_ask_over_tls_without_a_certificate_of_theirs() {
    let server = FakeVllm::start("a");
    let folder = tempfile::tempdir().unwrap();
    let made = Process::run(&["dev-ca", folder.path().to_str().unwrap()]);
    assert!(made.status.success(), "{}", made.stderr);
    let file = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(file("servers.yaml"), listed(&[&server], &["a"])).unwrap();
    let line = ["scheduler", "--listen", ANY, "--registry-listen", ANY, "--picker-listen", ANY];
    let rest = ["--served-model-name", "m", "--servers", &file("servers.yaml"), "--picker-tls"];
    let without = Process::run(&[&line[..], &rest].concat());
    assert!(!without.status.success() && without.stderr.contains("--tls-cert"), "{}", without.stderr);
    let tls =
        [["--tls-cert", &file("tls.crt")], ["--tls-key", &file("tls.key")], ["--tls-ca", &file("ca.crt")]];
    let (scheduler, at) = start(&words(&[&line[..], &rest, &tls.concat()].concat()));
    let shape = GatewayShape { is_picker_tls: true, ..GatewayShape::default() };
    let gateway = Gateway::shaped(&[&at("picker")], &[&server.address.to_string()], shape);
    eventually("the picker is asked", || match gateway.client.post(CHAT, &conversation(0, 0)) {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.body),
    });
    let plain = Gateway::start(&[&at("picker")], &[&server.address.to_string()]);
    assert_eq!(plain.client.post(CHAT, &conversation(0, 1)).status, 500, "plain text is not understood");
    drop((gateway, plain, server));
    stop(vec![scheduler]);
}

#[test]
fn a_picker_needs_no_model() {
    let server = FakeVllm::start("a");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("servers.yaml");
    std::fs::write(&file, listed(&[&server], &["a"])).unwrap();
    let line = ["scheduler", "--listen", ANY, "--registry-listen", ANY];
    let picking = [&line[..], &["--picker-listen", ANY, "--servers", file.to_str().unwrap()]].concat();
    let named = [&picking[..], &["--served-model-name", "whatever it is"]].concat();
    let with_upstream = [&named[..], &["--upstream", "upstreams.yaml"]].concat();
    for (args, missing) in
        [(&line[..], "--model"), (&picking, "--served-model-name"), (&with_upstream, "--model")]
    {
        let refused = Process::run(args);
        assert!(!refused.status.success() && refused.stderr.contains(missing), "{}", refused.stderr);
    }
    let (scheduler, at) = start(&words(&named));
    let operators = Client::new(format!("http://{}", at("http")));
    let gateway = Gateway::start(&[&at("picker")], &[&server.address.to_string()]);
    for turn in 0..2 {
        let client = gateway.client.saying("x-request-id", &format!("turn-{turn}"));
        eventually("the gateway finds somebody", || match client.post(CHAT, &conversation(0, turn)) {
            reply if reply.status == 200 => Ok(()),
            reply => Err(reply.body),
        });
        assert_eq!(decision(&operators, &format!("turn-{turn}"))["winner"], 0);
    }
    assert_eq!(operators.get("/ready").status, 200);
    // What came is known by its text.
    let traffic = operators.get("/v1/traffic");
    let rows: Vec<Value> = traffic.body.lines().map(|row| serde_json::from_str(row).expect("JSON")).collect();
    let [first, second] = &rows[rows.len() - 2..] else { panic!("{}", traffic.body) };
    let pieces = |row: &Value| row["pieces"].as_array().unwrap().clone();
    assert!(pieces(first).len() > 5 && pieces(first)[..5] == pieces(second)[..5], "{}", traffic.body);
    // It answers no requests itself.
    let refused = operators.post(CHAT, &conversation(0, 0)).error(404);
    assert_eq!(refused["code"], "no_model", "{refused}");
    assert!(operators.get("/metrics").body.contains("llm_d_epp_request_total"));
    drop((gateway, server));
    stop(vec![scheduler]);
}

#[test]
fn a_picker_without_a_model_reaches_workers_of_that_name() {
    let model = ModelFolder::bundled();
    let line = ["scheduler", "--listen", ANY, "--registry-listen", ANY, "--picker-listen", ANY];
    let (scheduler, at) = start(&words(&[&line[..], &["--served-model-name", "baton-courier"]].concat()));
    let operators = Client::new(format!("http://{}", at("http")));
    let not_yet = operators.get("/ready").error(503);
    assert!(not_yet["message"].as_str().unwrap().contains("no server"), "{not_yet}");
    let (picker, registry) = (at("picker"), at("registry"));
    let line = ["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &registry];
    let (sidecar, at) =
        start(&words(&[&line[..], &["--http-listen", ANY, "--model", &model.arg()]].concat()));
    let decode = start(&worker_args("decode-worker", "decode", &model, &at("grpc"))).0;
    eventually("the decode worker can be chosen", || match operators.get("/ready") {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.body),
    });
    let gateway = Gateway::start(&[&picker], &[&at("http")]);
    let ask = json!({ "messages": [{ "role": "user", "content": "Where to?" }], "max_tokens": 3 });
    let answer = gateway.client.saying("x-request-id", "asked").post(CHAT, &ask);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let decided = decision(&operators, "asked");
    assert_eq!(decided["choices"][0]["decode"], "decode", "{decided}");
    drop((gateway, decode, sidecar));
    stop(vec![scheduler]);
}
