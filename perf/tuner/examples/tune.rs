//! `baton tune simulate | recommend`, by themselves: `cargo run --release -p baton-tuner --example tune -- recommend --help`.
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

use baton_tuner::{RecommendArgs, SimulateArgs, TuneError};
use clap::Parser;

/// How many workers should prefill and how many decode.
#[derive(Parser)]
enum Command {
    /// What a fleet would give a workload
    Simulate(Box<SimulateArgs>),
    /// The best split of some workers for a workload
    Recommend(Box<RecommendArgs>),
}

fn main() -> std::process::ExitCode {
    let told: Result<String, TuneError> = match Command::parse() {
        Command::Simulate(args) => args.run(),
        Command::Recommend(args) => args.run(),
    };
    match told {
        Ok(text) => {
            print!("{text}");
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            println!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
