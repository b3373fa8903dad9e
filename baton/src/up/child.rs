//! One running process: its lines go to the console, its reports and its end to the supervisor.

use std::{
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use baton_process::Report;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    console::Console,
    leftovers::Leftovers,
    plan::{Kind, ProcessPlan},
};

/// Longer lines are broken.
const LONGEST_LINE: u64 = 64 << 10;
/// What a dead process wrote is read for so long; only a stranger that inherited its pipe can keep it open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What happened to a process.
#[derive(Debug)]
pub(crate) enum Event {
    Said(Report),
    /// It ended (or never started), and all it said was said.
    Ended(io::Result<ExitStatus>),
}

/// Handle of a running process: dropping it does not end the process; a signal does.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    signals: mpsc::Sender<Signal>,
}

impl Handle {
    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        // Full only if several signals wait already, each of which ends the process.
        let _ = self.signals.try_send(signal);
    }
}

/// Who the events are about, and where they go.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    pub(crate) index: usize,
    pub(crate) events: mpsc::Sender<(usize, Event)>,
    pub(crate) console: Console,
}

/// Starts `program` with `args`, in `tasks`.
pub(crate) fn start(
    program: &Path,
    args: &[OsString],
    plan: &ProcessPlan,
    observer: Observer,
    tasks: &mut JoinSet<()>,
) -> Handle {
    let mut command = Command::new(program);
    // Its own group: Ctrl-C is for the supervisor, which stops its children in order.
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.kill_on_drop(true);
    let (signals, inbox) = mpsc::channel(4);
    let (name, kind) = (plan.name.clone(), plan.kind);
    match command.spawn() {
        Ok(child) => {
            tasks.spawn(watch(child, inbox, Speaker { name, kind, observer }));
        }
        Err(error) => {
            tasks.spawn(async move {
                let _ = observer.events.send((observer.index, Event::Ended(Err(error)))).await;
            });
        }
    }
    Handle { signals }
}

async fn watch(mut child: Child, mut inbox: mpsc::Receiver<Signal>, speaker: Speaker) {
    let leftovers = child.id().map(Leftovers::of);
    let mut pumps = JoinSet::new();
    if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
        pumps.spawn(speaker.clone().pass_on(stdout, true));
        pumps.spawn(speaker.clone().pass_on(stderr, false));
    }
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = inbox.recv() => forward(&child, signal),
        }
    };
    let all_read = async { while pumps.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, all_read).await;
    if let Some(leftovers) = leftovers {
        leftovers.remove();
    }
    speaker.tell(Event::Ended(status)).await;
}

fn forward(child: &Child, signal: Signal) {
    // A child that was not waited for yet keeps its id, so the signal can't hit another process.
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
        tracing::debug!(?signal, %error, "signal not delivered");
    }
}

#[derive(Clone)]
struct Speaker {
    name: String,
    kind: Kind,
    observer: Observer,
}

impl Speaker {
    async fn tell(&self, event: Event) {
        let _ = self.observer.events.send((self.observer.index, event)).await;
    }

    /// Reads lines to the end; those on standard output may be reports.
    async fn pass_on(self, pipe: impl AsyncRead + Unpin, is_stdout: bool) {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while matches!((&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut bytes).await, Ok(1..)) {
            let text = String::from_utf8_lossy(&bytes);
            let line = text.trim_end_matches(['\n', '\r']);
            match Report::parse(line).filter(|_| is_stdout) {
                Some(report) => self.tell(Event::Said(report)).await,
                None => self.observer.console.write(&self.name, self.kind, line),
            }
            bytes.clear();
        }
    }
}
