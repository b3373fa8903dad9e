//! The configuration as a person reads it: TOML, with every process's command line.

use anyhow::Context as _;
use serde::Serialize;

use super::{
    config::Config,
    plan::{Arg, Plan, ProcessPlan},
};

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    config: &'a Config,
    process: Vec<Process<'a>>,
}

#[derive(Serialize)]
struct Process<'a> {
    name: &'a str,
    command: Vec<String>,
}

/// TOML. An address that is known only once a process listens stands as `<process listener>`.
pub(crate) fn to_toml(config: &Config, plan: &Plan) -> anyhow::Result<String> {
    let process = plan.processes.iter().map(describe).collect();
    toml::to_string_pretty(&Document { config, process }).context("the configuration cannot be shown")
}

fn describe(process: &ProcessPlan) -> Process<'_> {
    let words = process.args.iter().map(|arg| match arg {
        Arg::Text(text) => text.to_string_lossy().into_owned(),
        Arg::AddressesOf { processes, listener } => {
            let addresses: Vec<String> =
                processes.iter().map(|process| format!("<{process} {listener}>")).collect();
            addresses.join(",")
        }
        Arg::Listen { first, .. } => first.to_string(),
    });
    Process { name: &process.name, command: std::iter::once("baton".to_owned()).chain(words).collect() }
}
