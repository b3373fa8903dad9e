//! From the parsed command line to the running role: logs, shutdown, runtime.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use baton_process::{Shutdown, exit_with_parent, init_logs};
use tokio::runtime::{Builder, Runtime};

use crate::{
    cli::{Cli, Command},
    pull, up,
};

pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // Before any thread is started; see there.
    if let Some(supervisor) = cli.supervisor {
        exit_with_parent(supervisor).context("cannot follow the supervisor")?;
    }
    match cli.command {
        Command::Up(args) => up::run(*args, &cli.logs),
        Command::Pull(args) => {
            init_logs(&cli.logs).map_err(|error| anyhow!(error))?;
            single_threaded()?.block_on(pull::run(args)).map(|()| ExitCode::SUCCESS)
        }
        role => {
            init_logs(&cli.logs).map_err(|error| anyhow!(error))?;
            multi_threaded()?.block_on(serve(role)).map(|()| ExitCode::SUCCESS)
        }
    }
}

/// Runs a role until a signal stops it.
async fn serve(role: Command) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    match role {
        Command::Scheduler(args) => Ok(Box::pin(baton_scheduler::run(*args, shutdown)).await?),
        Command::Sidecar(args) => Ok(Box::pin(baton_sidecar::run(*args, shutdown)).await?),
        Command::PrefillWorker(args) => Ok(Box::pin(baton_prefill_worker::run(*args, shutdown)).await?),
        Command::DecodeWorker(args) => Ok(Box::pin(baton_decode_worker::run(*args, shutdown)).await?),
        Command::Up(_) | Command::Pull(_) => unreachable!("not a role"),
    }
}

/// For what only waits. All children of `up` are forked from this one thread, which lives as long as the process:
/// the kernel ties a child's death signal to the thread that forked it.
pub(crate) fn single_threaded() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

fn multi_threaded() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}
