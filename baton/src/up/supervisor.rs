//! Starts the processes, keeps them running, and stops them in order.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::ExitStatus,
    time::Duration,
};

use baton_process::Report;
use baton_tls::Dial;
use rustix::process::Signal;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    backoff::{Backoff, RestartPolicy},
    child::{self, Event, Handle, Observer},
    console::Console,
    plan::{Addresses, Kind, Plan, ProcessPlan},
    ready::{all_ready, pairs_settled},
    signals::StopRequests,
};

/// Events that may wait; a child that says more waits for its turn.
const WAITING_EVENTS: usize = 256;
/// Longest that `ready` waits for prefill and decode workers to be connected.
const PAIRS_PATIENCE: Duration = Duration::from_secs(10);
/// How to supervise.
#[derive(Clone, Debug)]
pub(crate) struct Supervision {
    pub(crate) program: PathBuf,
    /// Words after every command line.
    pub(crate) common_args: Vec<OsString>,
    /// For running requests to end.
    pub(crate) drain_timeout: Duration,
    /// Beyond that, for processes to put themselves away.
    pub(crate) exit_patience: Duration,
    pub(crate) start_timeout: Duration,
    /// `None`: the dead stay dead.
    pub(crate) restart: Option<RestartPolicy>,
    /// How processes are asked whether they are ready.
    pub(crate) dial: Dial,
}

/// How it ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A signal came, and every request was let to end.
    Drained,
    /// A second signal came.
    Interrupted,
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{process}: {reason}")]
    Start { process: String, reason: String },
    #[error("not ready after {seconds} s: {waiting_for}")]
    Slow { seconds: u64, waiting_for: String },
    #[error("{process} died again and again; the last time it {reason}")]
    GivenUp { process: String, reason: String },
}

/// The processes of a plan.
pub(crate) struct Supervisor {
    settings: Supervision,
    console: Console,
    members: Vec<Member>,
    addresses: Addresses,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<(usize, Event)>,
    events: mpsc::Receiver<(usize, Event)>,
}

struct Member {
    plan: ProcessPlan,
    state: State,
    backoff: Backoff,
    /// What it reported before its end.
    last_words: Option<String>,
}

enum State {
    /// For an address in its command line.
    Waiting,
    Running {
        handle: Handle,
        since: Instant,
        is_listening: bool,
    },
    Restarting {
        at: Instant,
    },
    Ended,
}

/// The end of a process.
struct Death {
    reason: String,
    ran_for: Duration,
}

impl Supervisor {
    pub(crate) fn new(plan: Plan, settings: Supervision, console: Console) -> Self {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let member =
            |plan| Member { plan, state: State::Waiting, backoff: Backoff::default(), last_words: None };
        let members = plan.processes.into_iter().map(member).collect();
        let addresses = Addresses::default();
        Self { settings, console, members, addresses, tasks: JoinSet::new(), sender, events }
    }

    /// Starts everything, serves until a signal, and stops everything, also after a failure. `on_ready` is handed the
    /// fronts' addresses once a request would be served.
    pub(crate) async fn run(
        mut self,
        signals: &mut impl StopRequests,
        on_ready: impl FnOnce(&[SocketAddr]),
    ) -> Result<Outcome, Failure> {
        let served = self.serve(signals, on_ready).await;
        let outcome = match &served {
            Ok(()) => {
                let seconds = self.settings.drain_timeout.as_secs();
                tracing::info!(
                    "stopping: running requests may end within {seconds} s; Ctrl-C again stops at once"
                );
                self.stop(signals, self.settings.drain_timeout).await
            }
            Err(_) => self.stop(signals, Duration::ZERO).await,
        };
        served.map(|()| outcome)
    }

    async fn serve(
        &mut self,
        signals: &mut impl StopRequests,
        on_ready: impl FnOnce(&[SocketAddr]),
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + self.settings.start_timeout;
        let mut waiting_for = "processes are starting".to_owned();
        let started = tokio::select! {
            () = signals.next() => return Ok(()),
            started = timeout_at(deadline, self.start(&mut waiting_for)) => started,
        };
        let seconds = self.settings.start_timeout.as_secs();
        started.unwrap_or(Err(Failure::Slow { seconds, waiting_for }))?;
        on_ready(&self.front_addresses());
        tokio::select! {
            () = signals.next() => Ok(()),
            failure = self.keep_running() => Err(failure),
        }
    }

    /// Returns when a request would be served.
    async fn start(&mut self, waiting_for: &mut String) -> Result<(), Failure> {
        self.start_possible();
        while !self.members.iter().all(Member::is_listening) {
            self.next_event_of_start().await?;
        }
        // Workers first: the front is ready as soon as any request could be served, whoever is missing.
        let mut asked: Vec<_> =
            self.members.iter().rev().filter_map(|member| self.ready_address(member)).collect();
        asked.dedup();
        let fronts = self.front_addresses();
        let dial = self.settings.dial.clone();
        let ready = async {
            all_ready(&dial, &asked, waiting_for).await;
            let mut open = Vec::new();
            for front in fronts {
                open.extend(pairs_settled(&dial, front, PAIRS_PATIENCE).await);
            }
            open
        };
        let not_connected = tokio::select! {
            not_connected = ready => not_connected,
            failure = self.fault_of_start() => return Err(failure),
        };
        for pair in not_connected {
            tracing::warn!(pair, "serving without this pair");
        }
        Ok(())
    }

    async fn fault_of_start(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.next_event_of_start().await {
                return failure;
            }
        }
    }

    async fn next_event_of_start(&mut self) -> Result<(), Failure> {
        let Some((index, event)) = self.events.recv().await else { return Ok(()) };
        match self.take(index, event) {
            Some(Death { reason, .. }) => {
                let process = self.members[index].plan.name.clone();
                Err(Failure::Start { process, reason })
            }
            None => {
                self.start_possible();
                Ok(())
            }
        }
    }

    /// Starts again what dies, until it is hopeless.
    async fn keep_running(&mut self) -> Failure {
        loop {
            let restart = self.members.iter().filter_map(Member::restart_at).min();
            tokio::select! {
                Some((index, event)) = self.events.recv() => {
                    if let Some(death) = self.take(index, event)
                        && let Err(failure) = self.bury(index, death)
                    {
                        return failure;
                    }
                }
                () = sleep_until(restart.unwrap_or_else(Instant::now)), if restart.is_some() => {}
            }
            self.start_possible();
        }
    }

    /// Notes an event.
    fn take(&mut self, index: usize, event: Event) -> Option<Death> {
        let member = &mut self.members[index];
        let reason = match event {
            Event::Said(Report::Listening(listeners)) => {
                tracing::debug!(process = member.plan.name, ?listeners, "listening");
                self.addresses.insert(&member.plan.name, listeners);
                if let State::Running { is_listening, .. } = &mut member.state {
                    *is_listening = true;
                }
                return None;
            }
            Event::Said(Report::Failed(words)) => {
                member.last_words = Some(words);
                return None;
            }
            Event::Ended(Ok(status)) => member.last_words.take().unwrap_or_else(|| describe(status)),
            Event::Ended(Err(error)) => format!("could not be started: {error}"),
        };
        let ran_for = match member.state {
            State::Running { since, .. } => since.elapsed(),
            _ => Duration::ZERO,
        };
        member.state = State::Ended;
        Some(Death { reason, ran_for })
    }

    /// A process died while serving.
    fn bury(&mut self, index: usize, Death { reason, ran_for }: Death) -> Result<(), Failure> {
        let member = &mut self.members[index];
        let process = &member.plan.name;
        let Some(policy) = &self.settings.restart else {
            tracing::error!(process, reason, "a process died; it is not started again (--no-restart)");
            return Ok(());
        };
        let Some(wait) = member.backoff.after_death(ran_for, policy) else {
            return Err(Failure::GivenUp { process: process.clone(), reason });
        };
        tracing::error!(process, reason, restart_in_ms = wait.as_millis(), "a process died");
        member.state = State::Restarting { at: Instant::now() + wait };
        Ok(())
    }

    /// Starts every process whose time has come and whose command line is complete.
    fn start_possible(&mut self) {
        let now = Instant::now();
        for (index, member) in self.members.iter_mut().enumerate() {
            let is_due = match member.state {
                State::Waiting => true,
                State::Restarting { at } => at <= now,
                State::Running { .. } | State::Ended => false,
            };
            let Some(mut args) = member.plan.command_line(&self.addresses).filter(|_| is_due) else {
                continue;
            };
            args.extend_from_slice(&self.settings.common_args);
            let observer = Observer { index, events: self.sender.clone(), console: self.console };
            let program = &self.settings.program;
            let handle = child::start(program, &args, &member.plan, observer, &mut self.tasks);
            member.last_words = None;
            member.state = State::Running { handle, since: now, is_listening: false };
        }
    }

    /// Lets each kind end before the next is told to, all within `drain` and a little; then kills.
    async fn stop(&mut self, signals: &mut impl StopRequests, drain: Duration) -> Outcome {
        let deadline = Instant::now() + drain + self.settings.exit_patience;
        let stages: [&[Kind]; 3] =
            [&[Kind::Front], &[Kind::Sidecar], &[Kind::PrefillWorker, Kind::DecodeWorker]];
        let drained = async {
            for stage in stages {
                self.signal(stage, Signal::TERM);
                self.ended(stage).await;
            }
        };
        let outcome = tokio::select! {
            drained = timeout_at(deadline, drained) => {
                if drained.is_err() {
                    tracing::warn!("not everything ended in time; killing the rest");
                }
                Outcome::Drained
            }
            () = signals.next() => {
                tracing::warn!("second signal: stopping at once");
                Outcome::Interrupted
            }
        };
        let all = stages.concat();
        self.signal(&all, Signal::KILL);
        self.ended(&all).await;
        outcome
    }

    fn signal(&self, kinds: &[Kind], signal: Signal) {
        for member in self.members.iter().filter(|member| kinds.contains(&member.plan.kind)) {
            if let State::Running { handle, .. } = &member.state {
                handle.signal(signal);
            }
        }
    }

    /// Returns once no process of these kinds runs.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn ended(&mut self, kinds: &[Kind]) {
        let is_running =
            |m: &Member| kinds.contains(&m.plan.kind) && matches!(m.state, State::Running { .. });
        while self.members.iter().any(is_running) {
            let Some((index, event)) = self.events.recv().await else { return };
            self.take(index, event);
        }
    }

    fn ready_address(&self, member: &Member) -> Option<(String, SocketAddr)> {
        let listener = if member.plan.kind == Kind::Front { "http" } else { "admin" };
        let address = self.addresses.get(&member.plan.name, listener)?;
        Some((member.plan.name.clone(), reachable(address)))
    }

    fn front_addresses(&self) -> Vec<SocketAddr> {
        let fronts = self.members.iter().filter(|member| member.plan.kind == Kind::Front);
        fronts.filter_map(|front| self.ready_address(front)).map(|(_, address)| address).collect()
    }
}

impl Member {
    fn is_listening(&self) -> bool {
        matches!(self.state, State::Running { is_listening: true, .. })
    }

    fn restart_at(&self) -> Option<Instant> {
        match self.state {
            State::Restarting { at } => Some(at),
            _ => None,
        }
    }
}

/// Where to reach what listens at `address`, which may mean "at every address".
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}; what it logged stands above"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
