//! The command: `up` starts everything on one machine; each role is a subcommand of its own; `pull` downloads a model.
//!
//! Every process of a deployment is this one binary. `up` re-executes it with a role's subcommand, so one file is all
//! that a machine needs. This crate only wires: what a role does is in the role's crate, and `up`'s supervision is in
//! [`up`].
//!
//! # Invariants
//! - Standard output belongs to programs: `ready URL`, one JSON object a line, configuration. Logs go to standard error.
//! - A failure ends in one line, `error: …`, and a non-zero exit code.

#![forbid(unsafe_code)]

mod cli;
mod dev_ca;
mod doctor;
mod explain;
mod failure;
mod key;
mod pull;
mod role;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let is_supervised = cli.supervisor.is_some();
    match role::run(cli) {
        Ok(code) => code,
        Err(error) => {
            failure::tell(&error, is_supervised);
            ExitCode::FAILURE
        }
    }
}
