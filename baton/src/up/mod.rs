//! `baton up`: everything on one machine, as separate processes under one supervisor.
//!
//! ```text
//!  args ──► config (defaults, model) ──► plan (every command line; --print-config shows it)
//!                                          │
//!        signals ──► supervisor ◄── events ┴── child: one task a process; its lines, its reports, its end
//!                        │
//!                        └─► ready URL, restarts, drain: front, sidecars, workers
//! ```
//!
//! Ports: only the fronts' are chosen beforehand. All others are port 0, reported by the process that bound them, and
//! then put into the command lines of those that need them; that also is the start order.
//!
//! # Invariants
//! - No child outlives the supervisor, not even a killed one: the kernel ends them with it.
//! - `ready URL` is printed once, when a request would be served and prefill and decode workers are connected, or the log has
//!   said which are not.
//! - The drain is bounded: what still runs after its deadline is killed.

mod args;
mod backoff;
mod bundled;
mod child;
mod config;
mod console;
mod kv_events;
mod leftovers;
mod plan;
mod print;
mod ready;
mod signals;
mod supervisor;
mod tls;
mod worker_args;

use std::{io::Write as _, net::SocketAddr, process::ExitCode};

use anyhow::{Context as _, anyhow};
use baton_process::{LogArgs, TraceArgs, bind, init_logs_to};

pub(crate) use args::UpArgs;
use config::Config;
use console::{Console, OwnLog};
use plan::Plan;
use signals::StopRequests as _;
use supervisor::{Outcome, Supervisor};

use crate::role::single_threaded;

/// Runs `baton up`: until a signal, or a failure.
pub(crate) fn run(args: UpArgs, logs: &LogArgs, traces: &TraceArgs) -> anyhow::Result<ExitCode> {
    let console = Console::new(logs);
    init_logs_to(logs, move || OwnLog(console)).map_err(|error| anyhow!(error))?;
    let prints_config = args.print_config;
    let config = Config::try_new(args)?;
    if prints_config {
        let text = print::to_toml(&config, &Plan::new(&config, logs, traces))?;
        std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
        return Ok(ExitCode::SUCCESS);
    }
    single_threaded()?.block_on(serve(config, logs, traces))
}

async fn serve(mut config: Config, logs: &LogArgs, traces: &TraceArgs) -> anyhow::Result<ExitCode> {
    let mut signals = signals::Signals::new().context("cannot watch for signals")?;
    // The fronts say so too, but later, and in terms of their own option.
    for index in 0..config.schedulers {
        drop(bind(config.listen(index), "--port").await?);
    }
    tokio::select! {
        done = config.download() => done?,
        () = signals.next() => return Ok(ExitCode::from(signals::INTERRUPTED)),
    }
    let dial = config.tls.prepare(&config.host.to_string())?;
    let (plan, scheme) = (Plan::new(&config, logs, traces), config.tls.scheme());
    let supervisor = Supervisor::new(plan, config.supervision(dial), Console::new(logs));
    match supervisor.run(&mut signals, |fronts| say_ready(scheme, fronts)).await? {
        Outcome::Drained => Ok(ExitCode::SUCCESS),
        Outcome::Interrupted => Ok(ExitCode::from(signals::INTERRUPTED)),
    }
}

/// The first front's address comes last, as it does alone.
fn say_ready(scheme: &str, fronts: &[SocketAddr]) {
    let mut text = String::new();
    for front in fronts.iter().skip(1) {
        text.push_str(&format!("front {scheme}://{front}\n"));
    }
    if let Some(front) = fronts.first() {
        text.push_str(&format!("ready {scheme}://{front}\n"));
    }
    let mut stdout = std::io::stdout().lock();
    // That nobody reads it is no reason not to serve.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
