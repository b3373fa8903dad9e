//! The audit log when its file is moved, its disk is full, and others write to it, too.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use baton_process::Metrics;
use baton_tenancy::{About, Tenancy, TenancyArgs};
use serde_json::Value;

fn args(path: &Path) -> TenancyArgs {
    TenancyArgs { audit_log: Some(path.to_owned()), audit_queue: 4, ..TenancyArgs::default() }
}

fn request(tenancy: &Tenancy, id: &str) -> Result<(), u16> {
    let about = About { request_id: id.to_owned(), endpoint: "/v1/completions", client: None };
    tenancy.begin(None, about).map(|mut call| call.ends_as(200, "stop")).map_err(|refusal| refusal.status())
}

fn ids(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let id =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["request_id"].as_str().unwrap().to_owned();
    text.lines().map(id).collect()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_that_was_moved_away_is_followed_by_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("audit"), folder.path().join("audit.1"));
    let tenancy = Tenancy::open(&args(&path), &Metrics::new()).unwrap();
    for round in 0..20 {
        request(&tenancy, &format!("a{round}")).unwrap();
        eventually("the line is written", || ids(&path).len() == 1);
        fs::rename(&path, &moved).unwrap();
        request(&tenancy, &format!("b{round}")).unwrap();
        eventually("the new file is begun", || ids(&path) == [format!("b{round}")]);
        assert_eq!(ids(&moved), [format!("a{round}")]);
        fs::remove_file(&path).unwrap();
    }
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&moved).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_full_disk_loses_nothing_that_waits_and_strict_mode_refuses_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let metrics = Metrics::new();
    let strict = TenancyArgs { audit_strict: true, ..args(&path) };
    let tenancy = Tenancy::open(&strict, &metrics).unwrap();
    request(&tenancy, "first").unwrap();
    eventually("the failure is noticed", || request(&tenancy, "no") == Err(503));
    assert!(metrics.encode().contains(r#"baton_tenant_refusals_total{reason="audit_unavailable"}"#));
    fs::remove_file(&path).unwrap();
    eventually("it is written again", || request(&tenancy, "again").is_ok());
    drop(tenancy);
    let ids = ids(&path);
    assert_eq!(ids.first().map(String::as_str), Some("first"));
    assert_eq!(ids.last().map(String::as_str), Some("again"));
    assert!(!metrics.encode().contains("baton_audit_lost_total{"), "nothing was lost");
}

#[test]
fn otherwise_requests_are_served_and_what_finds_no_room_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let metrics = Metrics::new();
    let tenancy = Tenancy::open(&args(&path), &metrics).unwrap();
    for n in 0..20 {
        request(&tenancy, &n.to_string()).unwrap();
    }
    drop(tenancy);
    let lost: f64 = metrics
        .encode()
        .lines()
        .filter(|line| line.starts_with("baton_audit_lost_total"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert_eq!(lost, 20.0, "each of them, in the queue or not");
}

/// Run by the test below as processes of their own.
#[test]
#[ignore = "started by lines_of_several_processes_do_not_mix"]
fn one_of_several_writers() {
    let Ok(path) = std::env::var("AUDIT_TEST_PATH") else { return };
    let args = TenancyArgs { audit_queue: 10_000, audit_prompts: true, ..args(Path::new(&path)) };
    let tenancy = Tenancy::open(&args, &Metrics::new()).unwrap();
    for n in 0..300 {
        let about = About { request_id: format!("{}-{n}", std::process::id()), ..About::default() };
        let mut call = tenancy.begin(None, about).unwrap();
        call.prompt_text(&"x".repeat(20_000));
    }
}

#[test]
fn lines_of_several_processes_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["one_of_several_writers", "--exact", "--ignored"])
            .env("AUDIT_TEST_PATH", &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let writers: Vec<_> = (0..4).map(|_| start()).collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let mut ids = ids(&path);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1200);
}
