//! How many requests are simulated in a second of one core's time: `cargo run --release -p baton-simulator --example speed`. It is the processor's time of this
//! thread, so that other processes on the machine do not count.
#![expect(clippy::print_stdout, reason = "a report for a terminal")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use baton_simulator::{Ending, Routing, System, Traffic, simulate};
use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let profile = common::shared(common::profile());
    let plain = common::traffic(common::poisson(1_000_000, 60.0, 1_000.0, 200.0, 1));
    let chats = common::traffic(common::sessions(300_000, 24.0, 2_000, 1));
    println!("| traffic | fleet | routing | requests/s |");
    println!("|---|---|---|---|");
    for (name, traffic, prefix_cache) in
        [("no prefixes", &plain, false), ("sessions, prefix caches", &chats, true)]
    {
        for (prefill, decode) in [(2, 6), (0, 8)] {
            for routing in [Routing::RoundRobin, Routing::LeastLoaded, Routing::baton()] {
                let mut system = System::of(&profile, prefill, decode).with_routing(routing);
                system.prefix_cache = prefix_cache;
                let rate = measure(&system, traffic)?;
                println!("| {name} | {prefill}P {decode}D | {} | {rate:.0} |", system.routing.name());
            }
        }
    }
    Ok(())
}

// The best of three.
fn measure(system: &System, traffic: &Traffic) -> Result<f64, Box<dyn std::error::Error>> {
    let mut best: f64 = 0.0;
    for _ in 0..3 {
        let began = thread_cpu()?;
        let simulated = simulate(system, traffic)?;
        let rate = traffic.len() as f64 / (thread_cpu()? - began).as_secs_f64();
        let complete = simulated.served().filter(|served| served.ending == Ending::Complete).count();
        if complete < traffic.len() * 9 / 10 {
            println!("<!-- only {complete} of {} were served -->", traffic.len());
        }
        best = best.max(rate);
    }
    Ok(best)
}

/// Processor time that this thread has had.
fn thread_cpu() -> Result<Duration, std::num::TryFromIntError> {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime))
}
