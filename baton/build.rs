//! Finds the git commit for `baton --version`; a build outside of git has none.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let commit =
        git(&["rev-parse", "--short=12", "HEAD"]).map_or_else(String::new, |commit| format!(" ({commit})"));
    println!("cargo::rustc-env=BATON_VERSION={}{commit}", env!("CARGO_PKG_VERSION"));
    // Written at each commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
