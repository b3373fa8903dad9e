//! The commands of `baton bench` that put load on servers, by themselves: `cargo run --release -p baton-load --example bench -- --help`.

use anyhow::Result;
use baton_load::{command, null};
use clap::Parser;

/// Load on servers with OpenAI's API.
#[derive(Parser)]
enum Bench {
    /// One run
    Run(Box<command::RunArgs>),
    /// The same requests at several rates, or with several clients
    Sweep(Box<command::SweepArgs>),
    /// The highest rate at which enough requests meet an SLO
    Goodput(Box<command::GoodputArgs>),
    /// Two servers in turn
    Compare(Box<command::CompareArgs>),
    /// A trace's requests at the trace's times
    Replay(Box<command::ReplayArgs>),
    /// What the client itself adds to figures
    Calibrate(command::CalibrateArgs),
    /// A server of known latencies
    NullServer(null::NullServerArgs),
}

fn main() -> Result<()> {
    match Bench::parse() {
        Bench::Run(args) => command::run(&args)?,
        Bench::Sweep(args) => command::sweep(&args)?,
        Bench::Goodput(args) => command::goodput(&args)?,
        Bench::Compare(args) => command::compare(&args)?,
        Bench::Replay(args) => command::replay(&args)?,
        Bench::Calibrate(args) => command::calibrate(&args)?,
        Bench::NullServer(args) => null::serve(&args)?,
    }
    Ok(())
}
