//! `baton up`, started for a measurement.

use std::{
    collections::VecDeque,
    env, fmt,
    io::{self, BufRead as _, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use baton_load::Target;
use rustix::process::{Pid, Signal, kill_process};

use super::Server;
use crate::Split;

/// Lines of its log that are shown when it fails.
const LAST_LINES: usize = 12;
/// `up` gives up by itself before that.
const START_PATIENCE: Duration = Duration::from_secs(900);
/// To end after it was told to; nothing is under way then.
const END_PATIENCE: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Processes of a deployment on this machine, under a supervisor of their own. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Fleet {
    supervisor: Child,
    target: Target,
}

/// It did not come up.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Not even its supervisor.
    #[error("baton up could not be started: {0}")]
    Start(#[from] io::Error),
    /// It ended, or said something else than that it is ready.
    #[error("baton up {words} did not become ready:\n{last}")]
    NotReady {
        /// Its options.
        words: String,
        /// What it said last.
        last: String,
    },
}

#[derive(Clone, Debug, Default)]
struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl Fleet {
    /// Starts `split` workers with these further options of `baton up`, and waits until they serve.
    ///
    /// # Errors
    /// [`FleetError`].
    pub(crate) fn up(split: Split, words: &[String]) -> Result<Self, FleetError> {
        let own = [
            ("--prefill", split.prefill.to_string()),
            ("--decode", split.decode.to_string()),
            ("--port", "0".to_owned()),
            ("--supervisor", std::process::id().to_string()),
        ];
        let mut command = Command::new(env::current_exe()?);
        command.arg("up").args(words).args(own.iter().flat_map(|(name, value)| [*name, value]));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut supervisor = command.spawn()?;
        let last = LastLines::default();
        let (ready, is_ready) = mpsc::channel();
        if let (Some(stdout), Some(stderr)) = (supervisor.stdout.take(), supervisor.stderr.take()) {
            let (said, logged) = (last.clone(), last.clone());
            thread::spawn(move || said.read(stdout, |line| drop(line.map(|url| ready.send(url)))));
            thread::spawn(move || logged.read(stderr, |_| {}));
        }
        let url = is_ready.recv_timeout(START_PATIENCE).ok();
        let target = url.and_then(|url| url.parse().ok());
        match target {
            Some(target) => Ok(Self { supervisor, target }),
            None => {
                let words = words.join(" ");
                end(&mut supervisor);
                Err(FleetError::NotReady { words, last: last.to_string() })
            }
        }
    }

    /// Its front.
    pub(crate) fn server(&self) -> Server {
        Server { target: self.target.clone(), api_key: None, ca: None }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        end(&mut self.supervisor);
    }
}

impl LastLines {
    /// Reads to the end; what follows "ready" is told.
    fn read(&self, pipe: impl Read, mut tell: impl FnMut(Option<String>)) {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            tell(line.strip_prefix("ready ").map(str::to_owned));
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LAST_LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }
}

impl fmt::Display for LastLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// In order, and if that does not help, at once.
fn end(supervisor: &mut Child) {
    let pid = Pid::from_raw(supervisor.id().cast_signed());
    let _ = pid.map(|pid| kill_process(pid, Signal::INT));
    let deadline = Instant::now() + END_PATIENCE;
    while let Ok(None) = supervisor.try_wait() {
        if Instant::now() > deadline {
            let _ = supervisor.kill();
            let _ = supervisor.wait();
            return;
        }
        thread::sleep(LOOK_EVERY);
    }
}
