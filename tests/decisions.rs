//! Where requests went and why: asked of a scheduler, and read from the file that it wrote.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    ANY, Ask, Client, ModelFolder, Process, Sent, Shape, eventually, prompt_of, start, words, worker_args,
};

fn explain(args: &[&str]) -> (bool, String) {
    let finished = Process::run(&words(&[&["explain"], args].concat()));
    (finished.status.success(), finished.stdout + &finished.stderr)
}

#[test]
fn decisions_are_in_the_file_with_what_then_happened_and_can_be_explained_from_there() {
    let model = ModelFolder::made_up(Shape::TINY);
    let file = model.path().parent().expect("a folder around it").join("decisions.jsonl");
    let path = file.display().to_string();
    let line =
        ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY, "--aggregated"];
    let (mut scheduler, at) = start(&words(&[&line[..], &["--decision-log", &path]].concat()));
    let client = Client::new(format!("http://{}", at("http")));
    let (sidecar, at_sidecar) =
        start(&words(&["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &at("registry")]));
    let (decode, _) = start(&worker_args("decode-worker", "decode-0", &model, &at_sidecar("grpc")));
    eventually("readiness", || match client.get("/ready") {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.body),
    });
    for (id, seed) in [("first", 1), ("second", 2)] {
        let ask = Ask::new(&prompt_of(60, seed), 7).with("n", if seed == 2 { 2 } else { 1 });
        client.saying("x-request-id", id).post("/v1/completions", ask.body()).ok();
    }
    eventually("what happened", || match client.get("/v1/decisions/first").ok() {
        record if record["outcome"].is_object() => Ok(()),
        record => Err(record.to_string()),
    });
    let asked = |ids: &[&str]| client.post("/v1/decisions", &json!({ "ids": ids }));
    let told = asked(&["second.1", "nobody", "first"]).ok();
    let found: Vec<&str> =
        told["data"].as_array().into_iter().flatten().filter_map(|one| one["request_id"].as_str()).collect();
    assert_eq!(found, ["second.1", "first"], "{told}");
    assert!(
        asked(&["x"; 1_001]).error(400)["message"].as_str().is_some_and(|text| text.contains("1000 at most"))
    );
    assert_eq!(client.post("/v1/decisions", &json!({ "id": "first" })).error(400)["param"], "ids");
    let (found, told) = explain(&["first", "--url", client.base()]);
    assert!(found && told.contains("decode-0"), "{told}");

    for process in [&mut scheduler].into_iter().chain(&mut [sidecar, decode]) {
        process.signal(Signal::TERM, Sent::ToProcess);
        assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(0));
    }
    let text = std::fs::read_to_string(&file).expect("the file");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut ids: Vec<&str> = lines.iter().filter_map(|line| line["request_id"].as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["first", "second", "second.1"], "each once");
    for line in &lines {
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert_eq!(line["outcome"]["output_tokens"], 7, "{line}");
        assert!(line["outcome"]["ttft_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    }

    // Nobody is there to be asked any more.
    let (found, from_file) = explain(&["first", "--file", &path]);
    assert!(found && from_file == told, "{from_file}\nand before\n{told}");
    let (found, told) = explain(&["second.1", "--file", &path, "--what-if", "queue=2"]);
    assert!(found && told.contains("it would have gone to the same place"), "{told}");
    let (found, told) = explain(&["--last", "2", "--file", &path]);
    assert!(found && told.contains("request second") && !told.contains("request first"), "{told}");
    for (args, part) in [
        (["third", "--file", &path], "has no decision on request \"third\""),
        (["first", "--file", "/nowhere/decisions"], "cannot read /nowhere/decisions"),
    ] {
        let (found, told) = explain(&args);
        assert!(!found && told.contains(part), "{told}");
    }
    let refused = Process::run(&words(&[&line[..], &["--decision-log", "/nowhere/log"]].concat()));
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("--decision-log /nowhere/log: cannot be opened"), "{}", refused.stderr);
}
