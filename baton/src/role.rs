//! From the parsed command line to the running role: logs, shutdown, runtime.

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use baton_load::{command, null};
use baton_process::{Shutdown, TraceArgs, exit_with_parent, init_logs, start_traces};
use tokio::runtime::{Builder, Runtime};

use crate::{
    cli::{Bench, Cli, Command, Role, Tune},
    dev_ca, doctor, explain, key, pull, up,
};

/// For blocking work that a role left behind.
const LAST_WORK: Duration = Duration::from_secs(1);
/// Between two looks at who the parent is, while shutting down.
const ORPHAN_CHECK: Duration = Duration::from_millis(100);
/// For running requests to end when the supervisor died.
const ORPHAN_DRAIN: Duration = Duration::from_secs(2);

pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // Before any thread is started; see there.
    if let Some(supervisor) = cli.supervisor {
        exit_with_parent(supervisor).context("cannot follow the supervisor")?;
    }
    // `up` sets its own up: its lines share the console with those of its children.
    if !matches!(cli.command, Command::Up(_)) {
        init_logs(&cli.logs).map_err(|error| anyhow!(error))?;
    }
    match cli.command {
        Command::Up(args) => return up::run(*args, &cli.logs, &cli.traces),
        Command::Pull(args) => single_threaded()?.block_on(pull::run(args))?,
        Command::Key(command) => key::run(&command)?,
        Command::DevCa(args) => dev_ca::run(&args)?,
        Command::Doctor(args) => doctor::run(&args)?,
        Command::Explain(args) => single_threaded()?.block_on(explain::run(args))?,
        Command::Bench(bench) => measure(bench)?,
        Command::Tune(Tune::Recommend(args)) => tell(&args.run()?)?,
        Command::Tune(Tune::Profile(args)) => tell(&args.run()?)?,
        Command::Tune(Tune::Verify(args)) => tell(&args.run()?)?,
        Command::Tune(Tune::Simulate(args)) => tell(&args.run()?)?,
        Command::Role(role) => {
            let runtime = multi_threaded()?;
            let served = runtime.block_on(serve(role, &cli.traces, cli.supervisor));
            runtime.shutdown_timeout(LAST_WORK);
            served?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The load generator has runtimes of its own.
fn measure(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Run(args) => command::run(&args)?,
        Bench::Sweep(args) => command::sweep(&args)?,
        Bench::Goodput(args) => command::goodput(&args)?,
        Bench::Compare(args) => command::compare(&args)?,
        Bench::Replay(args) => command::replay(&args)?,
        Bench::Calibrate(args) => command::calibrate(&args)?,
        Bench::NullServer(args) => null::serve(&args)?,
        Bench::Report(args) => tell(&baton_results::report(&args)?)?,
        Bench::Transfer(args) => multi_threaded()?.block_on(baton_transfer_bench::run(args))?,
    }
    Ok(())
}

fn tell(text: &str) -> std::io::Result<()> {
    write!(std::io::stdout(), "{text}")
}

/// Runs a role until a signal stops it.
async fn serve(role: Role, traces: &TraceArgs, supervisor: Option<u32>) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let traces = start_traces(traces, role.service_name())?;
    let served = tokio::select! {
        served = Box::pin(run_role(role, shutdown.clone())) => served,
        () = orphaned(supervisor, shutdown) => bail!("the supervisor is gone"),
    };
    traces.end().await;
    served
}

/// Returns a while after the supervisor died. The kernel's signal has started a drain then; but nobody is left who
/// would bound it, and whoever killed the supervisor expects its children to be gone.
async fn orphaned(supervisor: Option<u32>, shutdown: Shutdown) {
    let Some(supervisor) = supervisor else { return std::future::pending().await };
    shutdown.triggered().await;
    while is_parent(supervisor) {
        tokio::time::sleep(ORPHAN_CHECK).await;
    }
    tokio::time::sleep(ORPHAN_DRAIN).await;
}

fn is_parent(pid: u32) -> bool {
    rustix::process::getppid().is_some_and(|parent| parent.as_raw_nonzero().get().unsigned_abs() == pid)
}

async fn run_role(role: Role, shutdown: Shutdown) -> anyhow::Result<()> {
    match role {
        Role::Scheduler(args) => Ok(Box::pin(baton_scheduler::run(*args, shutdown)).await?),
        Role::Sidecar(args) => Ok(Box::pin(baton_sidecar::run(*args, shutdown)).await?),
        Role::PrefillWorker(args) => Ok(Box::pin(baton_prefill_worker::run(*args, shutdown)).await?),
        Role::DecodeWorker(args) => Ok(Box::pin(baton_decode_worker::run(*args, shutdown)).await?),
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
