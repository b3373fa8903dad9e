//! API keys: what `baton key` prints is what a key file takes, and a deployment that has one serves nobody else.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::harness::{
    ANY, Client, Deployment, Metrics, ModelFolder, Process, Shape, Up, eventually, required_variable,
    start_with, words as words_of,
};

/// A key made by `baton key new`.
struct Key {
    secret: String,
    entry: String,
}

impl Key {
    fn new(name: &str, options: &[&str], terms: &[&str]) -> Self {
        let made = Process::run(&[&["key", "new", "--name", name], options].concat());
        assert!(made.status.success(), "{}", made.stderr);
        let secret = made.stderr.split_whitespace().find(|word| word.starts_with("sk-baton-"));
        let terms: String = terms.iter().map(|term| format!("    {term}\n")).collect();
        Self { secret: secret.expect("the key").to_owned(), entry: made.stdout + &terms }
    }

    fn of(&self, client: &Client) -> Client {
        Client::new(client.base()).saying("authorization", &format!("Bearer {}", self.secret))
    }
}

fn write(file: &Path, keys: &[&Key]) {
    let entries: String = keys.iter().map(|key| key.entry.as_str()).collect();
    fs::write(file, format!("keys:\n{entries}")).unwrap();
}

fn audit(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

fn words(max_tokens: u32) -> Value {
    json!({ "prompt": [5, 6, 7, 8], "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true })
}

const COMPLETIONS: &str = "/v1/completions";

#[test]
fn a_new_key_is_shown_once_and_its_entry_goes_into_the_file() {
    let made = Process::run(&["key", "new", "--name", "alice", "--team", "research"]);
    assert!(made.status.success(), "{}", made.stderr);
    let key = made.stderr.split_whitespace().find(|word| word.starts_with("sk-baton-")).expect("the key");
    assert!(!made.stdout.contains(key), "standard output may go to the file: {}", made.stdout);
    assert!(made.stdout.contains("name: alice") && made.stdout.contains("team: research"), "{}", made.stdout);
    assert!(!made.stdout.contains("admin"), "{}", made.stdout);
}

#[test]
fn a_name_that_is_none_is_refused() {
    let refused = Process::run(&["key", "new", "--name", "a b"]);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{}", refused.stdout);
    assert!(refused.stderr.contains("letters, digits"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("sk-baton-"), "{}", refused.stderr);
}

#[test]
fn a_key_file_that_is_wrong_ends_the_start_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.yaml");
    fs::write(&file, "keys:\n  - name: alice\n    colour: red\n").unwrap();
    let model = ModelFolder::made_up(Shape::TINY);
    let words =
        ["scheduler", "--model", &model.arg(), "--listen", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0"];
    let ended = Process::run(&[&words[..], &["--api-keys-file", file.to_str().unwrap()]].concat());
    assert!(!ended.status.success(), "{}", ended.stdout);
    assert!(ended.stderr.contains("line 3") && ended.stderr.contains("colour"), "{}", ended.stderr);
}

#[test]
fn who_has_a_key_is_served_counted_and_recorded_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let [file, log] = ["keys.yaml", "audit.jsonl"].map(|name| folder.path().join(name));
    let operator = Key::new("operator", &["--admin"], &[]);
    let alice = Key::new("alice", &["--team", "research"], &[]);
    let bob = Key::new("bob", &[], &[]);
    write(&file, &[&operator, &alice]);
    let model = ModelFolder::made_up(Shape::TINY);
    let up = Up::new(&model, 1, 1).with("--api-keys-file", file.display()).with("--audit-log", log.display());
    let mut deployment = Deployment::up_with_key(&up, &operator.secret);
    let (stranger, front) = (Client::new(deployment.client().base()), deployment.client().clone());

    // Strangers are refused, with the open paths apart.
    assert_eq!(stranger.post(COMPLETIONS, &words(4)).error(401)["code"], "missing_api_key");
    let wrong = stranger.saying("authorization", "Bearer sk-baton-wrong");
    assert_eq!(wrong.post(COMPLETIONS, &words(4)).error(401)["code"], "invalid_api_key");
    for path in ["/v1/models", "/v1/workers", "/v1/decisions"] {
        stranger.get(path).error(401);
    }
    for path in ["/health", "/ready", "/ready/pairs", "/metrics"] {
        assert_eq!(stranger.get(path).status, 200, "{path}");
    }

    // Alice is served, and sees no workers; whoever she says she is.
    let client = alice.of(&front).saying("x-llm-d-inference-fairness-id", "bob");
    let answer = client.saying("x-request-id", "by-alice").post(COMPLETIONS, &words(4)).ok();
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    assert_eq!(client.get("/v1/workers").error(403)["code"], "admin_key_needed");
    let explain = |key: &str| {
        let url = front.base();
        Process::run(&["explain", "by-alice", "--url", url, "--api-key", key])
    };
    assert!(explain(&operator.secret).status.success());
    let refused = explain(&alice.secret);
    assert!(!refused.status.success() && refused.stderr.contains("alice"), "{}", refused.stderr);
    let simulate = |key: &[&str]| {
        let of_live = ["tune", "simulate", "--hardware", "p5", "--served-model", "llama-3.1-8b", "--live"];
        Process::run(&[&of_live[..], &[front.base()], key].concat())
    };
    assert!(simulate(&["--api-key", &operator.secret]).status.success());
    for key in [&["--api-key", alice.secret.as_str()][..], &[]] {
        let refused = simulate(key);
        assert!(!refused.status.success() && refused.stderr.contains("operators only"), "{}", refused.stderr);
    }

    let metrics = Metrics::parse(&stranger.get("/metrics").body);
    let unauthorized = [("error_code", "Unauthorized"), ("fairness_id", "default-flow")];
    assert_eq!(metrics.sum("llm_d_epp_request_error_total", &unauthorized), Some(2.0));
    let of_alice = [("key", "alice"), ("team", "research")];
    assert_eq!(metrics.get("baton_tenant_prompt_tokens_total", &of_alice), 4.0);
    assert_eq!(metrics.get("baton_tenant_output_tokens_total", &of_alice), 4.0);

    // Alice out, Bob in, without a restart; a file that is wrong changes nothing.
    assert_eq!(bob.of(&front).post(COMPLETIONS, &words(1)).status, 401);
    write(&file, &[&operator, &bob]);
    eventually("Bob is served", || match bob.of(&front).post(COMPLETIONS, &words(1)) {
        reply if reply.status == 200 => Ok(()),
        reply => Err(reply.body),
    });
    client.post(COMPLETIONS, &words(1)).error(401);
    fs::write(&file, "keys: {").unwrap();
    deployment.process().wait_for_log(&["API keys can't be used"]);
    bob.of(&front).post(COMPLETIONS, &words(1)).ok();

    // No key is in a log, or on a command line.
    for key in [&operator, &alice, &bob] {
        assert_eq!(deployment.process().log_lines(&[&key.secret]), [""; 0]);
    }
    deployment.stop();
    let lines = audit(&log);
    let by_alice: Vec<&Value> = lines.iter().filter(|line| line["key"] == "alice").collect();
    let [line] = by_alice[..] else { panic!("{lines:?}") };
    let expected = json!({
        "time": line["time"], "request_id": "by-alice", "key": "alice", "team": "research",
        "endpoint": COMPLETIONS, "model": line["model"], "prompt_tokens": 4, "cached_tokens": 0, "output_tokens": 4,
        "status": 200, "outcome": "ok", "duration_ms": line["duration_ms"],
    });
    assert_eq!(*line, expected);
    assert!(lines.iter().filter(|line| line["status"] == 401 && line["key"] == "").count() >= 2, "{lines:?}");
    assert_eq!(lines.last().unwrap()["key"], "bob", "the last request is recorded before the end");
}

#[test]
fn the_official_openai_client_has_a_key() {
    let python =
        required_variable("BATON_TEST_PYTHON", "a Python that has the packages of tests/requirements.txt");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.yaml");
    let operator = Key::new("operator", &["--admin"], &[]);
    let alice = Key::new("alice", &[], &["models: [baton-courier]", "requests-per-minute: 2"]);
    write(&file, &[&operator, &alice]);
    let up = Up::new(&ModelFolder::bundled(), 0, 1).with("--api-keys-file", file.display());
    let deployment = Deployment::up_with_key(&up, &operator.secret);
    let script = "../tests/openai_client.py";
    let run = Command::new(python)
        .args([script, deployment.client().base(), "baton-courier", &alice.secret])
        .output()
        .expect("BATON_TEST_PYTHON can be started");
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "tests/openai_client.py:\n{said}");
    deployment.stop();
}

#[test]
fn keys_may_come_from_the_environment() {
    let [alice, bob] = ["alice", "bob"].map(|name| Key::new(name, &[], &[]));
    let model = ModelFolder::made_up(Shape::TINY);
    let line = ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY];
    let keys = format!("alice={},bob={}", alice.secret, bob.secret);
    let (scheduler, at) = start_with(&words_of(&line), &[("BATON_API_KEYS", keys)]);
    let stranger = Client::new(format!("http://{}", at("http")));
    assert_eq!(stranger.get("/v1/models").error(401)["code"], "missing_api_key");
    for key in [&alice, &bob] {
        assert_eq!(key.of(&stranger).get("/v1/models").status, 200);
        assert_eq!(key.of(&stranger).get("/v1/workers").error(403)["code"], "admin_key_needed");
    }
    drop(scheduler);
}

#[test]
fn a_key_in_the_options_is_shown_nowhere() {
    let [key, admin] = [Key::new("alice", &[], &[]), Key::new("root", &["--admin"], &[])];
    let given = format!("alice={}", key.secret);
    let model = ModelFolder::made_up(Shape::TINY);
    let file = model.path().parent().expect("a folder around it").join("keys.yaml");
    write(&file, &[&admin]);
    let up = Up::new(&model, 0, 1).with("--api-key", &given).with("--api-keys-file", file.display());
    for command in [
        up.args(),
        &["scheduler".to_owned(), "--model".to_owned(), model.arg(), "--api-key".to_owned(), given.clone()],
    ] {
        let shown = Process::run(&[command, &["--print-config".to_owned()]].concat());
        assert!(shown.status.success(), "{}", shown.stderr);
        assert!(shown.stdout.contains("alice=") && !shown.stdout.contains(&key.secret), "{}", shown.stdout);
    }
    let mut deployment = Deployment::up_with_key(&up, &admin.secret);
    assert_eq!(Client::new(deployment.client().base()).post(COMPLETIONS, &words(1)).status, 401);
    key.of(deployment.client()).post(COMPLETIONS, &words(1)).ok();
    let own = deployment.process().pid().as_raw_nonzero().get().unsigned_abs();
    for pid in deployment.process().family().into_iter().filter(|&pid| pid != own) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(&key.secret), "{}", String::from_utf8_lossy(&line));
    }
    deployment.stop();
}
