//! The strict libfabric provider: finding it, loading it, and asking it at the end whether anybody broke a rule.
//!
//! libfabric reads `FI_PROVIDER_PATH` once in a process's life, and a test may not change the environment of a process that
//! has threads. So a theme over the strict provider runs this test binary again, alone, with the environment set; the peer
//! that it starts inherits it.

use std::path::PathBuf;
use std::process::Command;

const HERE: &str = "BATON_KV_TEST_STRICT";

/// Which variables a test needs, by its name; `None` for tests over other fabrics.
pub fn environment(test: &str) -> Option<Vec<(&'static str, &'static str)>> {
    let (module, _) = test.split_once("::")?;
    match module {
        // Three of the usual blocks: longer runs must be split, at what the option says and not at the attributes' limit.
        "libfabric_strict" => Some(vec![("BATON_STRICT_MAX_RMA_BYTES", "49152")]),
        // Three NICs, all of which are taken.
        "libfabric_strict_rails" => Some(vec![("BATON_STRICT_DEVICES", "3")]),
        // A completion says only that the target has accepted, long before it is delivered; the queue can be slept on; no
        // FI_HMEM, no FI_MR_LOCAL.
        "libfabric_strict_weak" => Some(vec![
            ("BATON_STRICT_DELIVERY", "0"),
            ("BATON_STRICT_HOLD", "5000"),
            ("BATON_STRICT_WAIT_FD", "1"),
            ("BATON_STRICT_MR_LOCAL", "0"),
            ("BATON_STRICT_HMEM", "0"),
        ]),
        _ => None,
    }
}

/// Whether this process was started for the strict provider.
pub fn is_here() -> bool {
    std::env::var_os(HERE).is_some()
}

/// The provider's file. Cargo builds it because this package has its crate as a dev-dependency, and puts it, without a hash
/// in its name, beside the test binaries (`target/PROFILE/deps`); a build of the whole workspace links it one folder up too.
pub fn provider() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let mut folders = exe.ancestors().skip(1).take(2);
    let found = folders.find_map(|folder| {
        let file = folder.join("libbaton_strict_fi.so");
        file.is_file().then_some(file)
    });
    found.unwrap_or_else(|| panic!("libbaton_strict_fi.so is not beside {}: run `cargo test`", exe.display()))
}

/// A command with the strict provider in its environment.
pub fn command(log: &std::path::Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut path = std::ffi::OsString::from("+");
    path.push(provider());
    command.env("FI_PROVIDER_PATH", path).env("BATON_STRICT_LOG", log).env(HERE, "1");
    command
}

/// Runs one test of this binary in a process of its own, where it must pass; returns the provider's log.
pub fn run_alone(test: &str, environment: &[(&str, &str)]) -> String {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = command(log.path());
    command.args(["--exact", test, "--nocapture"]).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let said = std::fs::read_to_string(log.path()).unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{out}\n{err}\n{said}");
    assert!(out.contains("1 passed"), "there is no test {test}: {out}");
    said
}

/// No rule was broken, by two ends that both ran over the strict provider.
pub fn assert_obeyed(log: &str) {
    assert!(!log.contains("violation"), "{log}");
    assert!(log.lines().filter(|line| line.contains("enabled: ")).count() >= 2, "who used it? {log}");
}

/// Chance did something: posts were put off, deliveries overtook each other.
pub fn assert_hard(log: &str) {
    for fact in ["eagain", "overtaken"] {
        assert!(tally(log, fact) > 0, "nothing was made hard ({fact}): {log}");
    }
}

/// The sum of one number over all endpoints that closed.
fn tally(log: &str, fact: &str) -> u64 {
    let after = |line: &str| {
        let (_, rest) = line.split_once(&format!("{fact}: "))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    log.lines().filter(|line| line.contains("closed: ")).filter_map(after).sum()
}
