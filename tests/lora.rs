//! LoRA adapters over real processes: selected by name, the same answer on every route, loaded and unloaded while others stream.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Ask, Client, Deployment, ModelFolder, Process, Role, Shape, Up, all_at_once, eventually,
    prompt_of, write_adapter,
};

/// A made-up model and where adapters for it go; both go away with the first.
fn model(shape: Shape) -> (ModelFolder, PathBuf) {
    let model = ModelFolder::made_up(shape);
    let adapters = model.path().parent().expect("a folder around it").join("adapters");
    (model, adapters)
}

fn module(name: &str, folder: &std::path::Path) -> String {
    format!("{name}={}", folder.display())
}

/// Names in the model list.
fn served(client: &Client) -> Vec<String> {
    let list = client.get("/v1/models").ok();
    let models = list["data"].as_array().unwrap_or_else(|| panic!("no list: {list}"));
    models.iter().map(|model| model["id"].as_str().expect("a name").to_owned()).collect()
}

/// Each prompt with the model alone and with each adapter, mixed.
fn requests() -> Vec<Ask> {
    let mut asks = Vec::new();
    for (seed, length) in (0..).zip([1, 16, 33, 100, 300]) {
        for name in ["made-up", "a", "b"] {
            let ask = Ask::new(&prompt_of(length, seed), 16).with("model", name);
            asks.push(ask.clone());
            asks.push(ask.with("temperature", 0.9).with("seed", 7));
        }
    }
    asks
}

#[test]
fn adapters_give_the_same_answers_on_every_route_and_each_its_own() {
    let (model, adapters) = model(Shape::TINY);
    let [a, b] = [1, 2].map(|seed| write_adapter(&adapters.join(seed.to_string()), Shape::TINY, seed));
    let with_both = |up: Up| {
        let modules = [module("a", &a), module("b", &b)];
        up.with("--lora-modules", &modules[0]).with("--lora-modules", &modules[1])
    };
    let answers = |up: Up| {
        let deployment = Deployment::up(&with_both(up));
        assert_eq!(served(deployment.client()), ["made-up", "a", "b"]);
        let answers = all_at_once(&requests(), deployment.client());
        if let [decode] = deployment.workers(Role::Decode)[..]
            && !deployment.workers(Role::Prefill).is_empty()
        {
            assert_eq!(decode.transfers_completed(), answers.len() as f64, "each prompt was handed over");
            assert_eq!(deployment.fallbacks(), 0.0);
        }
        // Once more: what is cached of the prompts with one adapter is not taken for another's.
        assert_eq!(all_at_once(&requests(), deployment.client()), answers);
        deployment.stop();
        answers
    };
    let aggregated = answers(Up::new(&model, 0, 1));
    assert_eq!(answers(Up::new(&model, 1, 1)), aggregated);
    assert_eq!(answers(Up::new(&model, 2, 2)), aggregated);
    for of_prompt in aggregated.chunks(6) {
        for (index, answer) in of_prompt.iter().enumerate() {
            assert!(!of_prompt[..index].contains(answer), "each adapter answers in its own way: {answer:?}");
        }
    }

    // The model alone answers as if there had never been an adapter.
    let plain = Deployment::up(&Up::new(&model, 1, 1));
    let asks = requests();
    let alone = asks.iter().zip(&aggregated).filter(|(ask, _)| ask.body()["model"] == "made-up");
    for (ask, expected) in alone {
        assert_eq!(ask.answer(plain.client()), *expected);
    }
    let missing = plain.client().post("/v1/completions", asks[2].body()).error(404);
    assert_eq!(missing["code"], "model_not_found");
    // Off unless asked for: it would read any folder.
    let body = json!({"lora_name": "a", "lora_path": a.display().to_string()});
    assert_eq!(plain.client().post("/v1/load_lora_adapter", &body).error(404)["code"], "unknown_url");
    plain.stop();
}

/// All events of a stream, of which some were read before.
fn rest_of(mut events: Vec<Value>, stream: &mut crate::harness::Stream) -> Answer {
    events.extend(stream.until_done());
    Answer::from_events(&events)
}

#[test]
fn adapters_come_and_go_while_others_stream() {
    let (model, adapters) = model(Shape::SLOW);
    let [first, second] =
        [1, 2].map(|seed| write_adapter(&adapters.join(seed.to_string()), Shape::SLOW, seed));
    let up = Up::new(&model, 1, 1).with_flag("--allow-runtime-lora-updating");
    let deployment = Deployment::up(&up);
    let client = deployment.client();
    let load = |path: &std::path::Path| {
        let body = json!({"lora_name": "a", "lora_path": path.display().to_string()});
        client.post("/v1/load_lora_adapter", &body)
    };
    let unload = || client.post("/v1/unload_lora_adapter", &json!({"lora_name": "a"}));
    let prompt = prompt_of(200, 1);
    let base = Ask::new(&prompt, 300);
    let with_adapter = Ask::new(&prompt, 200).with("model", "a");

    let mut plain = base.stream(client);
    let plain_begun = vec![plain.data()];
    let loaded = load(&first);
    assert_eq!((loaded.status, &*loaded.body), (200, "Success: LoRA adapter 'a' added successfully."));
    assert!(load(&first).error(400)["message"].as_str().expect("text").contains("already been loaded"));
    assert_eq!(served(client), ["made-up", "a"]);
    let described = client.get("/v1/models/a").ok();
    let missing = client.get("/v1/models/b").error(404);
    assert_eq!(missing["code"], "model_not_found");
    let message = missing["message"].as_str().expect("text");
    assert!(message.contains("`b`") && message.ends_with("served: made-up, a"), "{message}");
    assert_eq!(
        (&described["parent"], &described["root"]),
        (&json!("made-up"), &json!(first.display().to_string()))
    );

    let mut adapted = with_adapter.stream(client);
    let adapted_begun = vec![adapted.data()];
    assert_eq!(adapted_begun[0]["model"], "a");
    let decode = deployment.worker(Role::Decode);
    let running = [("running_lora_adapters", "a"), ("waiting_lora_adapters", ""), ("max_lora", "64")];
    eventually("the adapter in the metrics", || {
        match decode.metrics().sum("vllm:lora_requests_info", &running) {
            Some(time) if time > 1e9 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let unloaded = unload();
    assert_eq!((unloaded.status, &*unloaded.body), (200, "Success: LoRA adapter 'a' removed successfully."));
    assert_eq!(served(client), ["made-up"]);
    client.post("/v1/completions", with_adapter.body()).error(404);
    assert!(unload().error(404)["message"].as_str().expect("text").contains("cannot be found"));

    // The same name with other weights, while the former ones still stream: none of what those computed is taken for it.
    assert_eq!(load(&second).status, 200);
    let after = with_adapter.answer(client);
    let before = rest_of(adapted_begun, &mut adapted);
    let alone = rest_of(plain_begun, &mut plain);
    assert_eq!((before.tokens.len(), alone.tokens.len()), (200, 300), "nobody was disturbed");
    assert_ne!(before.tokens, after.tokens);

    // A worker that was restarted is told again.
    let prefill = deployment.worker(Role::Prefill);
    let handed_over = || decode.transfers_completed();
    prefill.signal(Signal::KILL);
    eventually("the prefill worker back, with the adapter", || {
        let workers = client.get("/v1/workers").ok();
        let here = workers["workers"].as_array().expect("a list").iter().any(|worker| {
            worker["worker_id"] == prefill.id
                && worker["pid"] != prefill.pid()
                && worker["adapters"]["a"].is_string()
        });
        let paired = client.get("/ready/pairs").status == 200;
        if here && paired { Ok(()) } else { Err(format!("{workers}")) }
    });
    let so_far = handed_over();
    assert_eq!(Ask::new(&prompt_of(90, 3), 4).with("model", "a").answer(client).tokens.len(), 4);
    assert_eq!(handed_over(), so_far + 1.0, "it prefilled with the adapter");
    deployment.stop();

    // What each said is what a deployment says that never had anything else.
    for (folder, expected) in [(&first, before), (&second, after)] {
        let fresh = Deployment::up(&Up::new(&model, 0, 1).with("--lora-modules", module("a", folder)));
        assert_eq!(with_adapter.answer(fresh.client()).tokens, expected.tokens);
        fresh.stop();
    }
}

#[test]
fn bad_adapters_are_refused_with_the_reason_and_leave_nothing() {
    let (model, adapters) = model(Shape::TINY);
    let other = Shape { hidden: 128, ..Shape::TINY };
    let foreign = write_adapter(&adapters.join("foreign"), other, 1);
    let good = write_adapter(&adapters.join("good"), Shape::TINY, 1);
    let up = Up::new(&model, 1, 1).with_flag("--allow-runtime-lora-updating").with("--max-loras", 1);
    let deployment = Deployment::up(&up);
    let client = deployment.client();
    let refused = |body: &Value, status: u16, parts: &[&str]| {
        let error = client.post("/v1/load_lora_adapter", body).error(status);
        let message = error["message"].as_str().expect("text");
        for part in parts {
            assert!(message.contains(part), "{message:?} does not say {part:?}");
        }
    };
    let body = |name: &str, path: &std::path::Path| json!({"lora_name": name, "lora_path": path.display().to_string()});
    refused(&json!({"lora_path": "/x"}), 400, &["lora_name", "expected a string"]);
    refused(&json!({"lora_name": "a"}), 400, &["lora_path"]);
    refused(&json!({"lora_name": 3, "lora_path": "/x"}), 400, &["lora_name"]);
    refused(&body("made-up", &good), 400, &["lora_name", "the model's own name"]);
    refused(&body("a", &adapters.join("none")), 400, &["decode-0", "prefill-0", "does not exist"]);
    refused(&body("a", model.path()), 400, &["adapter_config.json is missing"]);
    refused(&body("a", &foreign), 400, &["self_attn.q_proj.lora_A.weight", "[8, 128]", "[8, 64]"]);
    refused(&body("a,b", &good), 400, &["commas"]);
    assert_eq!(served(client), ["made-up"]);
    assert_eq!(client.post("/v1/load_lora_adapter", &body("a", &good)).status, 200);
    refused(&body("b", &good), 400, &["--max-loras"]);
    assert_eq!(served(client), ["made-up", "a"]);
    assert_eq!(Ask::new(&prompt_of(9, 1), 3).with("model", "a").answer(client).tokens.len(), 3);
    deployment.stop();

    let up = Up::new(&model, 0, 1).with("--lora-modules", module("a", &foreign)).without_restarts();
    let finished = Process::run(up.args());
    assert_ne!(finished.status.code(), Some(0));
    assert!(
        finished.stderr.contains("cannot load lora adapter \"a\" of --lora-modules"),
        "{}",
        finished.stderr
    );
}

#[test]
fn log_lines_name_the_adapter_where_there_is_one() {
    let (model, adapters) = model(Shape::TINY);
    let a = write_adapter(&adapters.join("a"), Shape::TINY, 1);
    let up = Up::new(&model, 1, 1).with("--lora-modules", module("a", &a)).with("--log", "debug");
    let mut deployment = Deployment::up(&up);
    let ask = Ask::new(&prompt_of(40, 1), 3);
    ask.clone().with("model", "a").answer(deployment.client());
    ask.answer(deployment.client());
    for who_and_what in [
        ["scheduler", "prompt_tokens=40"],
        ["sidecar-0", "request ended"],
        ["prefill-0", "prompt computed and pushed"],
        ["decode-0", "session done"],
    ] {
        eventually("a line for each request", || {
            let lines = deployment.process().log_lines(&who_and_what);
            let [with, without] = &lines[..] else { return Err(format!("{lines:?}")) };
            assert!(with.contains(r#"adapter="a""#) && !without.contains("adapter"), "{lines:#?}");
            Ok(())
        });
    }
    deployment.stop();
}
