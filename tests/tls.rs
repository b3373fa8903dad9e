//! TLS between real processes: who has a certificate of the CA is served, who has none, an old one or another CA's is told so, and
//! certificates change while serving. The client here is Python's, with OpenSSL: another implementation than ours.

use std::{fs, path::Path, process::Command, time::Duration};

use baton_tls::{DevCa, Validity};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    ANY, ModelFolder, Process, Sent, Shape, Up, eventually, required_variable, start, words, worker_args,
};

const START_DEADLINE: Duration = Duration::from_secs(60);

/// A client that knows a CA, or none.
struct Https {
    base: String,
    ca: Option<String>,
}

/// Prints the answer, or the error; exits with 1 after an error.
const ASK: &str = r#"
import json, ssl, sys, urllib.request
url, ca, body = sys.argv[1], sys.argv[2], sys.argv[3].encode() or None
context = ssl.create_default_context(cafile=ca or None)
request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
try:
    print(urllib.request.urlopen(request, timeout=60, context=context).read().decode())
except Exception as error:
    text = error.read().decode() if hasattr(error, "read") else ""
    print(repr(error), getattr(error, "reason", ""), text)
    sys.exit(1)
"#;

/// Prints the certificate of a server, as PEM.
const SHOW: &str = "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2]))))";

fn python(script: &str, args: &[&str]) -> Result<String, String> {
    let python = required_variable("BATON_TEST_PYTHON", "a Python interpreter");
    let output = Command::new(python).arg("-c").arg(script).args(args).output().expect("Python starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
}

impl Https {
    fn new(base: &str, ca: Option<&Path>) -> Self {
        Self { base: base.to_owned(), ca: ca.map(|ca| ca.display().to_string()) }
    }

    fn ask(&self, path: &str, body: &str) -> Result<String, String> {
        python(ASK, &[&format!("{}{path}", self.base), self.ca.as_deref().unwrap_or_default(), body])
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        self.ask(path, "").and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
    }

    fn complete(&self) -> String {
        let body = r#"{"prompt": [5, 6, 7, 8], "max_tokens": 8, "temperature": 0}"#;
        let answer = self.ask("/v1/completions", body).expect("it is served");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["usage"]["completion_tokens"], 8, "{answer}");
        answer["choices"][0]["text"].as_str().expect("text").to_owned()
    }

    fn ids(&self) -> Result<Vec<String>, String> {
        let listed = self.get("/v1/workers")?;
        let ids = listed["workers"].as_array().into_iter().flatten().filter_map(|w| w["worker_id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// The certificate that it shows now.
    fn certificate(&self) -> String {
        let (host, port) = self.base.trim_start_matches("https://").rsplit_once(':').expect("a port");
        python(SHOW, &[host, port]).expect("a certificate").trim().to_owned()
    }
}

/// What a certificate's words on a command line are.
fn tls_words(folder: &Path) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    words(&["--tls-cert", &file("tls.crt"), "--tls-key", &file("tls.key"), "--tls-ca", &file("ca.crt")])
}

fn with(args: Vec<String>, more: &[String]) -> Vec<String> {
    [&args[..], more].concat()
}

fn stop(mut process: Process) {
    process.signal(Signal::TERM, Sent::ToProcess);
    assert_eq!(process.wait(Duration::from_secs(20)).code(), Some(0));
    process.assert_nothing_left();
}

#[test]
fn up_with_tls_serves_over_https_and_takes_new_certificates_while_serving() {
    let folder = TempDir::new().unwrap();
    let model = ModelFolder::made_up(Shape::TINY);
    let dir = folder.path().join("tls");
    let up = Up::new(&model, 1, 1).with_flag("--tls").with("--tls-dir", dir.display());
    let mut process = Process::start(up.args());
    let ready = |line: &str| line.strip_prefix("ready ").map(str::to_owned);
    let base = process.wait_for_stdout(START_DEADLINE, "the ready line", ready);
    assert!(base.starts_with("https://127.0.0.1:"), "{base}");
    let ca = dir.join("ca.crt");
    let client = Https::new(&base, Some(&ca));
    let expected = client.complete();
    let sent = client.get("/v1/workers").unwrap();
    assert_eq!(sent["workers"].as_array().unwrap().len(), 2, "{sent}");

    // A tuner checks whose traffic it takes.
    let simulate =
        ["tune", "simulate", "--hardware", "p5", "--served-model", "llama-3.1-8b", "--live", &base];
    let known = Process::run(&[&simulate[..], &["--tls-ca", ca.to_str().unwrap()]].concat());
    assert!(known.status.success(), "{}", known.stderr);
    let unknown = Process::run(&simulate);
    assert!(!unknown.status.success() && unknown.stderr.contains("ertificate"), "{}", unknown.stderr);

    // Who does not know the CA, or speaks plain text, gets no answer but why.
    let stranger = Https::new(&base, None).ask("/v1/models", "").unwrap_err();
    assert!(stranger.contains("CERTIFICATE_VERIFY_FAILED"), "{stranger}");
    let plain = Https::new(&base.replace("https", "http"), None).ask("/v1/models", "").unwrap_err();
    assert!(plain.contains("400") && plain.contains("https://"), "{plain}");
    for worker in sent["workers"].as_array().unwrap() {
        let admin = worker["admin_endpoint"].as_str().unwrap();
        assert!(Https::new(&format!("https://{admin}"), Some(&ca)).ask("/ready", "").is_ok());
        assert!(Https::new(&format!("http://{admin}"), None).ask("/metrics", "").is_err());
    }

    // A new certificate, as cert-manager would put it there.
    let before = client.certificate();
    let made = Process::run(&["dev-ca", dir.to_str().unwrap()]);
    assert!(made.status.success(), "{}", made.stderr);
    assert!(made.stdout.contains("--tls-cert") && made.stdout.contains("--tls-ca"), "{}", made.stdout);
    let new = fs::read_to_string(dir.join("tls.crt")).unwrap();
    let shown = eventually("the new certificate is shown", || match client.certificate() {
        old if old == before => Err("the old one".to_owned()),
        other => Ok(other),
    });
    assert_eq!(shown.replace(['\n', '\r'], ""), new.replace(['\n', '\r'], ""));
    eventually("all four took it", || {
        let took = process.log_lines(&["new certificates are in use"]).len();
        if took >= 4 { Ok(()) } else { Err(format!("{took} did")) }
    });
    assert_eq!(client.complete(), expected, "over connections from before");
    // A prefill worker that is started again connects anew, to everybody.
    process.signal_role("prefill-worker", Signal::KILL);
    eventually("it has joined again", || match process.log_lines(&["prefill-0", " registered "]).len() {
        2.. => Ok(()),
        _ => Err("not yet".to_owned()),
    });
    eventually("both are there", || match client.ids()?.len() {
        2 => Ok(()),
        n => Err(format!("{n} workers")),
    });
    assert_eq!(client.complete(), expected);
    process.signal(Signal::INT, Sent::ToGroup);
    assert_eq!(process.wait(Duration::from_secs(30)).code(), Some(0));
    process.assert_nothing_left();
}

#[test]
fn workers_without_a_good_certificate_cannot_join_and_both_sides_say_why() {
    let folder = TempDir::new().unwrap();
    let [ours, theirs, old] = ["ours", "theirs", "old"].map(|name| folder.path().join(name));
    for folder in [&ours, &theirs] {
        let ca = DevCa::open_or_create(folder).unwrap();
        ca.equip(folder, &[], 30).unwrap();
    }
    let ca = DevCa::open_or_create(&ours).unwrap();
    let model = ModelFolder::made_up(Shape::TINY);
    let scheduler = ["scheduler", "--model", &model.arg(), "--listen", ANY, "--registry-listen", ANY];
    let (scheduler, at) = start(&with(words(&scheduler), &tls_words(&ours)));
    let (registry, client) =
        (at("registry"), Https::new(&format!("https://{}", at("http")), Some(&ours.join("ca.crt"))));
    let sidecar = ["sidecar", "--listen", ANY, "--admin-listen", ANY, "--registry", &registry];
    let (sidecar, at) = start(&with(words(&sidecar), &tls_words(&ours)));
    let sidecar_at = at("grpc");
    let (decode, _) =
        start(&with(worker_args("decode-worker", "decode", &model, &sidecar_at), &tls_words(&ours)));
    eventually("the decode worker has joined", || match &client.ids()?[..] {
        [id] if id == "decode" => Ok(()),
        ids => Err(format!("{ids:?}")),
    });
    let expected = client.complete();

    // In plain text: at the scheduler, and at the sidecar.
    let (plain, _) = start(&worker_args("prefill-worker", "plain", &model, &registry));
    plain.wait_for_log(&["not registered", "speaks TLS", "--tls-cert"]);
    scheduler.wait_for_log(&["connection refused", "plain text"]);
    let (plain_decode, _) = start(&worker_args("decode-worker", "plain", &model, &sidecar_at));
    plain_decode.wait_for_log(&["not registered", "speaks TLS"]);
    sidecar.wait_for_log(&["connection refused", "plain text"]);

    // Of another CA; and of one that the scheduler does not know, by who trusts the scheduler.
    let (stranger, _) =
        start(&with(worker_args("prefill-worker", "stranger", &model, &registry), &tls_words(&theirs)));
    stranger.wait_for_log(&["not registered", "not of a CA in --tls-ca"]);
    let both = fs::read_to_string(theirs.join("ca.crt")).unwrap() + ca.cert();
    fs::write(theirs.join("ca.crt"), both).unwrap();
    stranger.wait_for_log(&["not registered", "refused us", "not of a CA that it knows"]);
    scheduler.wait_for_log(&["connection refused", "not of a CA in --tls-ca"]);

    // An expired one is not even tried.
    let now = std::time::SystemTime::now();
    let hour = Duration::from_secs(3600);
    let expired =
        ca.issue(&["localhost".to_owned()], Validity { from: now - 2 * hour, until: now - hour }).unwrap();
    fs::create_dir(&old).unwrap();
    for (name, text) in [("ca.crt", ca.cert()), ("tls.crt", &expired.cert), ("tls.key", &expired.key)] {
        fs::write(old.join(name), text).unwrap();
    }
    let finished =
        Process::run(&with(worker_args("prefill-worker", "old", &model, &registry), &tls_words(&old)));
    let error = finished.stderr.lines().last().unwrap_or_default().to_owned();
    assert!(!finished.status.success() && error.starts_with("error: "), "{}", finished.stderr);
    assert!(error.contains("tls.crt") && error.contains("expired at"), "{error}");

    assert_eq!(client.ids().unwrap(), ["decode"], "none of them joined");
    let (good, _) = start(&with(worker_args("prefill-worker", "good", &model, &registry), &tls_words(&ours)));
    eventually("the good one has joined, and is paired", || {
        if client.ids()?.len() < 2 {
            return Err("not yet".to_owned());
        }
        client.ask("/ready/pairs", "").map(|_| ())
    });
    assert_eq!(client.complete(), expected, "by way of the prefill worker");
    for process in [plain, plain_decode, stranger, good, decode, sidecar, scheduler] {
        stop(process);
    }
}

#[test]
fn a_certificate_of_ones_own_needs_its_ca_for_up() {
    let folder = TempDir::new().unwrap();
    DevCa::open_or_create(folder.path()).unwrap().equip(folder.path(), &[], 30).unwrap();
    let model = ModelFolder::made_up(Shape::TINY);
    let two = tls_words(folder.path())[..4].to_vec();
    let finished = Process::run(&with(Up::new(&model, 0, 1).args().to_vec(), &two));
    assert!(finished.stderr.contains("--tls-ca") && !finished.status.success(), "{}", finished.stderr);
}
