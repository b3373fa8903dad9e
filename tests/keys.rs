//! `baton key`: what it prints is what a key file takes.

use std::fs;

use baton_process::Metrics;
use baton_tenancy::{Tenancy, TenancyArgs};

use crate::harness::Process;

#[test]
fn a_new_key_is_shown_once_and_its_entry_opens_the_front_to_it_alone() {
    let made = Process::run(&["key", "new", "--name", "alice", "--team", "research"]);
    assert!(made.status.success(), "{}", made.stderr);
    let key = made.stderr.split_whitespace().find(|word| word.starts_with("sk-baton-")).expect("the key");
    assert!(!made.stdout.contains(key), "standard output may go to the file: {}", made.stdout);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.yaml");
    fs::write(&file, format!("keys:\n{}", made.stdout)).unwrap();
    let args = TenancyArgs { api_keys_file: Some(file), ..TenancyArgs::default() };
    let tenancy = Tenancy::open(&args, &Metrics::new()).expect("a key file");
    let tenant = tenancy.identify(Some(format!("Bearer {key}").as_bytes())).expect("the key is good");
    assert_eq!((tenant.name(), tenant.team()), ("alice", "research"));
    assert!(tenancy.identify(Some(b"Bearer sk-baton-other")).is_err());
}

#[test]
fn a_name_that_is_none_is_refused() {
    let refused = Process::run(&["key", "new", "--name", "a b"]);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{}", refused.stdout);
    assert!(refused.stderr.contains("letters, digits"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("sk-baton-"), "{}", refused.stderr);
}
