//! A front's calls over the public API: keys, limits, reload, usage and audit log.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use baton_process::Metrics;
use baton_tenancy::{About, Clock as _, KeyHash, ManualClock, Refusal, Secret, Tenancy, TenancyArgs};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A front, its clock and its files.
struct Front {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    metrics: Metrics,
    tenancy: Option<Tenancy>,
}

struct Key {
    secret: Secret,
    entry: String,
}

/// A key named `name` with these terms.
fn key(name: &str, terms: &[&str]) -> Key {
    let secret = Secret::generate().unwrap();
    let mut entry = format!("- name: {name}\n  hash: {}\n", KeyHash::of(&secret).unwrap());
    for term in terms {
        entry += &format!("  {term}\n");
    }
    Key { secret, entry }
}

fn file_of(keys: &[&Key]) -> String {
    format!("keys:\n{}", keys.iter().map(|key| key.entry.as_str()).collect::<String>())
}

impl Key {
    fn header(&self) -> Vec<u8> {
        format!("Bearer {}", self.secret.reveal()).into_bytes()
    }
}

impl Front {
    fn start(keys: &str, change: impl FnOnce(&mut TenancyArgs)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.yaml");
        fs::write(&file, keys).unwrap();
        let mut args = TenancyArgs {
            api_keys_file: Some(file),
            audit_log: Some(folder.path().join("audit.jsonl")),
            audit_queue: 100,
            ..TenancyArgs::default()
        };
        change(&mut args);
        let (clock, metrics) = (Arc::new(ManualClock::new()), Metrics::new());
        let tenancy = Tenancy::open_with_clock(&args, &metrics, clock.clone()).unwrap();
        Self { folder, clock, metrics, tenancy: Some(tenancy) }
    }

    fn tenancy(&self) -> &Tenancy {
        self.tenancy.as_ref().unwrap()
    }

    fn begin(&self, header: &[u8]) -> Result<baton_tenancy::Call, Refusal> {
        let about = About {
            request_id: "r-1".to_owned(),
            endpoint: "/v1/chat/completions",
            client: Some([127, 0, 0, 1].into()),
        };
        self.tenancy().begin(Some(header), about)
    }

    fn keys_file(&self) -> PathBuf {
        self.folder.path().join("keys.yaml")
    }

    fn audit_file(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    /// Closes the audit log; what is in it.
    fn audit(&mut self) -> Vec<Value> {
        self.tenancy = None;
        lines(&self.audit_file())
    }

    fn metric(&self, line: &str) {
        let text = self.metrics.encode();
        assert!(text.lines().any(|there| there == line), "no {line} in\n{text}");
    }
}

fn lines(path: &PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[test]
fn a_request_is_counted_limited_and_recorded() {
    let alice = key("alice", &["team: research", "requests-per-minute: 2", "tokens-per-minute: 100"]);
    let mut front = Front::start(&file_of(&[&alice]), |_| ());
    let mut call = front.begin(&alice.header()).unwrap();
    assert_eq!((call.tenant().name(), call.tenant().team()), ("alice", "research"));
    call.model("m").unwrap();
    call.prompt(30).unwrap();
    call.cached(16);
    call.generated(5);
    call.generated(5);
    let headers = front.tenancy().rates(call.tenant());
    let value = |name: &str| headers.iter().find(|header| header.0 == name).unwrap().1.clone();
    assert_eq!(value("x-ratelimit-remaining-requests"), "1");
    assert_eq!(value("x-ratelimit-reset-requests"), "30s");
    assert_eq!(
        (value("x-ratelimit-limit-tokens"), value("x-ratelimit-remaining-tokens")),
        ("100".into(), "60".into())
    );
    front.clock.advance(Duration::from_millis(250));
    call.ends_as(200, "stop");
    drop(call);

    front.metric(r#"baton_tenant_requests_total{key="alice",team="research",outcome="served"} 1"#);
    front.metric(r#"baton_tenant_prompt_tokens_total{key="alice",team="research"} 30"#);
    front.metric(r#"baton_tenant_cached_prompt_tokens_total{key="alice",team="research"} 16"#);
    front.metric(r#"baton_tenant_output_tokens_total{key="alice",team="research"} 10"#);
    front.metric(r#"baton_tenant_running{key="alice",team="research"} 0"#);

    let audit = front.audit();
    let line = audit[0].as_object().unwrap();
    let expected = serde_json::json!({
        "time": line["time"], "request_id": "r-1", "key": "alice", "team": "research", "model": "m",
        "endpoint": "/v1/chat/completions", "prompt_tokens": 30, "cached_tokens": 16, "output_tokens": 10,
        "status": 200, "outcome": "stop", "duration_ms": 250
    });
    assert_eq!(audit, [expected], "neither prompt nor address, which nobody asked for");
}

#[test]
fn who_has_no_good_key_is_refused_and_never_quoted() {
    let expired = key("old", &["expires: 2020-01-01"]);
    let disabled = key("off", &["disabled: true"]);
    let good = key("good", &[]);
    let mut front = Front::start(&file_of(&[&expired, &disabled, &good]), |_| ());
    let unknown = Secret::generate().unwrap();
    let unknown_header = format!("Bearer {}", unknown.reveal());
    for (header, code) in [
        (b"".to_vec(), "missing_api_key"),
        (b"Bearer ".to_vec(), "missing_api_key"),
        (unknown_header.clone().into_bytes(), "invalid_api_key"),
        (b"Bearer x".to_vec(), "invalid_api_key"),
        (b"Basic eDp5".to_vec(), "invalid_api_key"),
        (expired.header(), "expired_api_key"),
        (disabled.header(), "disabled_api_key"),
    ] {
        let Err(refusal) = front.begin(&header) else { panic!("{code} was served") };
        assert_eq!((refusal.code(), refusal.status()), (code, 401));
        assert!(front.tenancy().identify(Some(&header)).is_err());
        let sent = String::from_utf8(header).unwrap();
        let key = sent.strip_prefix("Bearer ").unwrap_or_default();
        assert!(key.len() < 2 || !refusal.to_string().contains(key), "{refusal}");
    }
    assert!(front.begin(&good.header()).is_ok());
    front.metric(r#"baton_tenant_refusals_total{reason="expired_api_key"} 2"#);
    let audit = front.audit();
    let keys: Vec<&str> = audit.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["", "", "", "", "", "old", "off", "good"]);
    assert!(!fs::read_to_string(front.audit_file()).unwrap().contains(unknown.reveal()));
}

#[test]
fn a_flood_of_wrong_keys_does_not_fill_the_disk() {
    let mut front = Front::start(&file_of(&[&key("good", &[])]), |args| args.audit_queue = 1000);
    for _ in 0..500 {
        assert!(front.begin(b"Bearer wrong").is_err());
    }
    front.metric(r#"baton_audit_lost_total{reason="too_many_unknown"} 440"#);
    assert_eq!(front.audit().len(), 60);
}

#[test]
fn models_and_prompts_that_a_key_may_not_use_are_refused_with_what_it_may() {
    let alice = key("alice", &["models: [small, tiny]", "tokens-per-minute: 100", "max-concurrent: 1"]);
    let mut front = Front::start(&file_of(&[&alice]), |_| ());
    let mut call = front.begin(&alice.header()).unwrap();
    let refusal = call.model("large").unwrap_err();
    assert_eq!((refusal.status(), refusal.code()), (403, "model_not_allowed"));
    assert!(refusal.to_string().contains("small, tiny"), "{refusal}");
    assert!(call.tenant().may_use("tiny") && !call.tenant().may_use("large"));
    let Err(busy) = front.begin(&alice.header()) else { panic!("two at a time") };
    assert_eq!((busy.status(), busy.code()), (429, "concurrent_requests_exceeded"));
    drop(call);

    let mut call = front.begin(&alice.header()).unwrap();
    call.model("small").unwrap();
    call.prompt(80).unwrap();
    assert_eq!(call.prompt(30).unwrap_err().code(), "tokens_per_minute_exceeded");
    drop(call);
    // Nobody computed it: the 80 are back.
    let mut call = front.begin(&alice.header()).unwrap();
    call.prompt(100).unwrap();
    call.generated(1);
    call.ends_as(500, "internal_error");
    drop(call);
    let Err(refusal) = front.begin(&alice.header()) else { panic!("the tokens are used") };
    let expected = [
        ("retry-after", "2"),
        ("x-ratelimit-limit-tokens", "100"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "1m1s"),
    ];
    assert_eq!(refusal.headers(), expected.map(|(name, value)| (name, value.to_owned())));

    let audit = front.audit();
    let outcomes: Vec<(u64, &str, u64)> = audit
        .iter()
        .map(|l| {
            (
                l["status"].as_u64().unwrap(),
                l["outcome"].as_str().unwrap(),
                l["prompt_tokens"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected = [
        (429, "concurrent_requests_exceeded", 0),
        (403, "model_not_allowed", 0),
        (429, "tokens_per_minute_exceeded", 0),
        (500, "internal_error", 100),
        (429, "tokens_per_minute_exceeded", 0),
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn what_operators_may_do_others_may_not() {
    let operator = key("operator", &["admin: true", "models: [small]", "weight: 3"]);
    let alice = key("alice", &[]);
    let mut front = Front::start(&file_of(&[&operator, &alice]), |_| ());
    let tenant = front.tenancy().identify_admin(Some(&operator.header())).unwrap();
    assert_eq!((tenant.name(), tenant.weight()), ("operator", 3));
    let refusal = front.tenancy().identify_admin(Some(&alice.header())).err().unwrap();
    assert_eq!((refusal.status(), refusal.code()), (403, "admin_key_needed"));
    assert_eq!(front.tenancy().identify_admin(None).err().unwrap().status(), 401);

    let mut call = front.begin(&operator.header()).unwrap();
    call.admin("adapter").unwrap();
    call.ends_as(200, "ok");
    drop(call);
    let mut call = front.begin(&alice.header()).unwrap();
    assert!(call.admin("adapter").is_err());
    drop(call);
    front.metric(r#"baton_tenant_refusals_total{reason="admin_key_needed"} 2"#);
    let of = |line: &Value| (line["key"].clone(), line["model"].clone(), line["status"].clone());
    let expected = [("operator", 200), ("alice", 403)];
    let expected = expected.map(|(key, status)| (key.into(), "adapter".into(), status.into()));
    assert_eq!(front.audit().iter().map(of).collect::<Vec<_>>(), expected);
}

#[test]
fn a_front_that_leaves_it_to_others_serves_everybody() {
    let tenancy = Tenancy::open_to_all();
    assert!(!tenancy.knows_tenants() && !tenancy.needs_key());
    let mut call = tenancy.begin(Some(b"Bearer whatever"), About::default()).unwrap();
    call.model("any").unwrap();
    call.admin("any").unwrap();
    call.prompt(1 << 40).unwrap();
    assert!(tenancy.identify_admin(None).is_ok());
}

#[test]
fn without_keys_everybody_is_served_and_counted() {
    let mut front = Front::start("", |args| {
        args.api_keys_file = None;
        args.audit_clients = true;
        args.audit_prompts = true;
    });
    assert!(!front.tenancy().needs_key() && !front.tenancy().knows_tenants());
    let mut call = front.begin(b"Bearer whatever a client must send").unwrap();
    call.prompt(7).unwrap();
    assert!(call.wants_prompt_text());
    call.prompt_text("Hello");
    assert_eq!(front.tenancy().rates(call.tenant()), []);
    drop(call);
    front.metric(r#"baton_tenant_requests_total{key="anonymous",team="",outcome="cancelled"} 1"#);
    front.metric(r#"baton_tenant_prompt_tokens_total{key="anonymous",team=""} 7"#);
    let audit = front.audit();
    assert_eq!((&audit[0]["client"], &audit[0]["prompt"]), (&"127.0.0.1".into(), &"Hello".into()));
    assert_eq!((&audit[0]["status"], &audit[0]["outcome"]), (&499.into(), &"cancelled".into()));
}

#[test]
fn who_comes_without_a_key_may_be_served_by_terms_of_their_own() {
    let alice = key("alice", &[]);
    let front =
        Front::start(&format!("{}anonymous:\n  requests-per-minute: 1\n", file_of(&[&alice])), |_| ());
    assert!(front.begin(b"").is_ok());
    assert_eq!(front.begin(b"").err().unwrap().status(), 429);
    assert_eq!(front.begin(b"Bearer wrong").err().unwrap().status(), 401, "a wrong key is not no key");
    assert!(front.begin(&alice.header()).is_ok());
}

#[test]
fn a_key_file_that_is_wrong_at_the_start_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.yaml");
    let args = TenancyArgs { api_keys_file: Some(file.clone()), ..TenancyArgs::default() };
    let error = |args: &TenancyArgs| Tenancy::open(args, &Metrics::new()).err().unwrap().to_string();
    assert!(error(&args).contains("keys.yaml"), "{}", error(&args));
    fs::write(&file, "keys:\n- name: a\n").unwrap();
    assert!(error(&args).contains("keys.yaml: line 2"), "{}", error(&args));
    let alice = key("alice", &[]);
    fs::write(&file, format!("{}{}", file_of(&[&alice]), alice.entry.replace("alice", "bob"))).unwrap();
    assert!(error(&args).contains("same key"), "{}", error(&args));
    let nowhere = TenancyArgs { audit_log: Some("/no/such/folder/log".into()), ..TenancyArgs::default() };
    assert!(error(&nowhere).contains("--audit-log /no/such/folder/log"), "{}", error(&nowhere));
}

/// Waits for it; the watcher looks each second.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn keys_change_without_a_restart_and_a_broken_file_changes_nothing() {
    let [alice, bob] = ["alice", "bob"].map(|name| key(name, &["requests-per-minute: 10"]));
    let front = Front::start(&file_of(&[&alice]), |_| ());
    let stop = CancellationToken::new();
    let watcher = tokio::spawn(front.tenancy().clone().keep_fresh(stop.clone()));
    let mut running = front.begin(&alice.header()).unwrap();
    assert!(front.begin(&bob.header()).is_err());

    let remaining = |key: &Key| {
        let call = front.begin(&key.header()).unwrap();
        front.tenancy().rates(call.tenant())[1].1.clone()
    };
    fs::write(front.keys_file(), file_of(&[&alice, &bob])).unwrap();
    until("bob is known", || front.tenancy().identify(Some(&bob.header())).is_ok()).await;
    assert_eq!(remaining(&alice), "8", "what Alice used stays used");

    fs::write(front.keys_file(), "keys: [").unwrap();
    let refused = r#"baton_tenant_key_reloads_total{outcome="refused"} 1"#;
    until("the broken file is noticed", || front.metrics.encode().contains(refused)).await;
    assert!(front.begin(&bob.header()).is_ok());
    fs::remove_file(front.keys_file()).unwrap();
    until("its absence is noticed", || front.metrics.encode().contains(&refused.replace('1', "2"))).await;
    assert!(front.begin(&bob.header()).is_ok());

    // As an orchestrator does: a new file takes the place of the old one.
    let next = front.folder.path().join("next");
    fs::write(&next, file_of(&[&bob])).unwrap();
    fs::rename(next, front.keys_file()).unwrap();
    until("alice is gone", || front.tenancy().identify(Some(&alice.header())).is_err()).await;
    running.prompt(5).unwrap();
    running.ends_as(200, "stop");
    drop(running);
    assert!(!front.metrics.encode().contains("alice"), "nothing is left of her");
    stop.cancel();
    watcher.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_while_requests_come_admit_no_more_than_the_limit() {
    let alice = key("alice", &["requests-per-minute: 100", "max-concurrent: 1000"]);
    let front = Front::start(&file_of(&[&alice]), |args| args.audit_log = None);
    let stop = CancellationToken::new();
    let watcher = tokio::spawn(front.tenancy().clone().keep_fresh(stop.clone()));
    let taken = |n: u64| format!(r#"baton_tenant_key_reloads_total{{outcome="taken"}} {n}"#);
    let mut served = 0;
    for n in 1..=2 {
        let others: Vec<Key> = (0..n).map(|n| key(&format!("other-{n}"), &[])).collect();
        let keys: Vec<&Key> = others.iter().chain([&alice]).collect();
        fs::write(front.keys_file(), file_of(&keys)).unwrap();
        until("the keys are taken", || {
            served += u32::from(front.begin(&alice.header()).is_ok());
            front.metrics.encode().contains(&taken(n))
        })
        .await;
    }
    while front.begin(&alice.header()).is_ok() {
        served += 1;
    }
    assert_eq!(served, 100);
    assert!(front.clock.now().instant <= Instant::now(), "the clock stood");
    stop.cancel();
    watcher.await.unwrap();
}
