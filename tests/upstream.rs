//! Fallback routes between real deployments: what one can't serve another serves, unless something was shown already.

use std::{fs, path::PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Client, Deployment, Event, Metrics, ModelFolder, Process, Shape, Up, eventually};

const COMPLETIONS: &str = "/v1/completions";

fn words(max_tokens: u32) -> Value {
    json!({ "prompt": [5, 6, 7, 8], "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true })
}

/// A file in which `url` serves in place of the model called `served`.
fn upstream(folder: &TempDir, served: &str, url: &str, lines: &str) -> PathBuf {
    let file = folder.path().join("upstreams.yaml");
    let entry =
        format!("upstreams:\n  - name: spare\n    models: [{served}, big]\n    url: {url}/v1\n{lines}");
    fs::write(&file, entry).unwrap();
    file
}

fn key() -> (String, String) {
    let made = Process::run(&["key", "new", "--name", "first"]);
    let secret = made.stderr.split_whitespace().find(|word| word.starts_with("sk-baton-")).expect("the key");
    (secret.to_owned(), made.stdout.clone())
}

fn text_of(client: &Client, body: &Value) -> Value {
    client.post(COMPLETIONS, body).ok()["choices"][0]["text"].clone()
}

#[test]
fn a_deployment_without_workers_is_served_by_another_and_not_in_the_midst_of_an_answer() {
    let folder = TempDir::new().unwrap();
    let model = ModelFolder::made_up(Shape::TINY);
    // The other one asks for a key, which the first one has and its clients have not.
    let (secret, entry) = key();
    let [keys, key_file] = ["keys.yaml", "key"].map(|name| folder.path().join(name));
    fs::write(&keys, format!("keys:\n{entry}    admin: true\n")).unwrap();
    fs::write(&key_file, &secret).unwrap();
    let spare =
        Up::new(&model, 0, 1).with("--served-model-name", "theirs").with("--api-keys-file", keys.display());
    let spare = Deployment::up_with_key(&spare, &secret);
    let lines = format!("    send-model: theirs\n    key-file: {}\n", key_file.display());
    let file = upstream(&folder, "ours", spare.client().base(), &lines);
    let first = Up::new(&model, 0, 1).without_restarts().with("--served-model-name", "ours");
    let mut first = Deployment::up(&first.with("--upstream", file.display()));
    let client = first.client().clone();

    let listed = client.get("/v1/models").ok();
    let owners: Vec<_> =
        listed["data"].as_array().unwrap().iter().map(|m| (&m["id"], &m["owned_by"])).collect();
    assert_eq!(format!("{owners:?}").matches("upstream spare").count(), 1, "{owners:?}");
    let (whole, streamed) = (words(12), {
        let mut body = words(12);
        body["stream"] = true.into();
        body
    });
    let expected = text_of(&client, &whole);
    assert!(!client.post(COMPLETIONS, &whole).headers.contains_key("x-baton-served-by"));
    let at_once = json!({ "model": "big", "prompt": [5, 6, 7, 8], "max_tokens": 12, "temperature": 0, "ignore_eos": true });
    assert_eq!(text_of(&client, &at_once), expected, "a model that only the other has");

    // The worker dies in the midst of a stream: that is told, and not papered over.
    let mut long = words(2_000);
    long["stream"] = true.into();
    let mut stream = client.stream(COMPLETIONS, &long);
    stream.data();
    first.process().signal_role("decode-worker", Signal::KILL);
    let mut last = Value::Null;
    while let Some(Event::Data(data)) = stream.next() {
        last = data;
    }
    assert!(last["error"]["message"].is_string(), "{last}");

    // From then on the other one serves, with the same tokens.
    eventually("the worker is gone", || match first.joined() {
        ids if ids.is_empty() => Ok(()),
        ids => Err(format!("{ids:?}")),
    });
    let reply = client.post(COMPLETIONS, &whole);
    assert_eq!(
        reply.headers.get("x-baton-served-by").map(String::as_str),
        Some("upstream spare"),
        "{reply:?}"
    );
    assert_eq!(reply.ok()["choices"][0]["text"], expected);
    let pieces = client.stream(COMPLETIONS, &streamed).until_done();
    let text: String = pieces.iter().filter_map(|piece| piece["choices"][0]["text"].as_str()).collect();
    assert_eq!(Value::from(text), expected);
    let metrics = Metrics::parse(&client.get("/metrics").body);
    let served = [("upstream", "spare"), ("outcome", "served")];
    assert_eq!(metrics.get("baton_upstream_requests_total", &served), 3.0);
    let line = first.process().log_lines(&["request ", "upstream=\"spare\"", "no decode worker"]);
    assert_eq!(line.len(), 2, "{line:?}");
    assert_eq!(first.process().log_lines(&[&secret]), [""; 0]);

    // When that one is gone as well, clients are told what is wrong here.
    let base = spare.client().base().to_owned();
    spare.stop();
    assert!(Client::new(base).try_get("/health").is_err());
    assert_eq!(client.post(COMPLETIONS, &whole).error(503)["code"], "no_decode_worker");
    first.process().signal(Signal::INT, crate::harness::Sent::ToGroup);
    first.assert_ends();
}

#[test]
fn a_deployment_that_is_its_own_upstream_asks_itself_once() {
    let folder = TempDir::new().unwrap();
    let model = ModelFolder::made_up(Shape::TINY);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = upstream(&folder, "ours", &format!("http://127.0.0.1:{port}"), "    retries: 0\n");
    let listen = format!("127.0.0.1:{port}");
    let line = ["scheduler", "--model", &model.arg(), "--served-model-name", "ours", "--listen", &listen];
    let file = file.display().to_string();
    let rest = ["--registry-listen", "127.0.0.1:0", "--upstream", &file];
    let (mut scheduler, at) = crate::harness::start(&crate::harness::words(&[&line[..], &rest].concat()));
    let client = Client::new(format!("http://{}", at("http")));
    assert_eq!(client.post(COMPLETIONS, &words(4)).error(503)["code"], "no_decode_worker");
    let big = json!({ "model": "big", "prompt": "x" });
    assert_eq!(client.post(COMPLETIONS, &big).error(502)["code"], "upstream_failed");
    assert_eq!(scheduler.log_lines(&["request_id", "/v1/completions"]).len(), 4);
    scheduler.signal(Signal::TERM, crate::harness::Sent::ToProcess);
    assert_eq!(scheduler.wait(std::time::Duration::from_secs(20)).code(), Some(0));
    scheduler.assert_nothing_left();
}

#[test]
fn a_file_that_is_wrong_ends_the_start_with_its_line() {
    let folder = TempDir::new().unwrap();
    let model = ModelFolder::made_up(Shape::TINY);
    let file = upstream(&folder, "ours", "http://127.0.0.1:1", "    colour: red\n");
    let words =
        ["scheduler", "--model", &model.arg(), "--listen", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0"];
    let ended = Process::run(&[&words[..], &["--upstream", file.to_str().unwrap()]].concat());
    assert!(!ended.status.success() && ended.stdout.is_empty(), "{}", ended.stdout);
    assert!(ended.stderr.contains("line 5") && ended.stderr.contains("colour"), "{}", ended.stderr);
}
