//! One `baton` process and what it leaves behind.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use super::wait::eventually_within;

/// Every process that descends from one of ours carries this in its environment, so that none can hide.
const MARK: &str = "BATON_TEST_MARK";

/// To whom a signal goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sent {
    /// The process alone, as a supervisor does.
    ToProcess,
    /// Its whole process group, as a terminal does on Ctrl-C.
    ToGroup,
}

/// A `baton` process in a process group and a temporary folder of its own, with its output kept.
pub(crate) struct Process {
    command: String,
    child: Child,
    mark: String,
    output: Arc<Output>,
    temp: TempDir,
    // all that were ever seen, to know their shared-memory files by name
    family_seen: Mutex<BTreeSet<u32>>,
}

#[derive(Default)]
struct Output {
    written: Mutex<Written>,
    grown: Condvar,
}

#[derive(Default)]
struct Written {
    lines: Vec<Line>,
    pipes_open: usize,
}

struct Line {
    is_stdout: bool,
    text: String,
}

impl Process {
    /// Starts `baton ARGS`.
    pub(crate) fn start<A: AsRef<str>>(args: &[A]) -> Self {
        Self::start_with(args, &[])
    }

    /// Starts `baton ARGS` with these variables in its environment.
    pub(crate) fn start_with<A: AsRef<str>>(args: &[A], environment: &[(&str, String)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let temp = TempDir::with_prefix("baton-test-").expect("a temporary folder");
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let mut child = Command::new(env!("CARGO_BIN_EXE_baton"))
            .args(&args)
            .env(MARK, &mark)
            .env("TMPDIR", temp.path())
            .env("XDG_RUNTIME_DIR", temp.path())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the baton binary starts");
        let output = Arc::new(Output::default());
        output.keep(true, child.stdout.take().expect("stdout is piped"));
        output.keep(false, child.stderr.take().expect("stderr is piped"));
        Self {
            command: format!("baton {}", args.join(" ")),
            child,
            mark,
            output,
            temp,
            family_seen: Mutex::default(),
        }
    }

    /// Runs `baton ARGS` to its end, which must come by itself.
    pub(crate) fn run<A: AsRef<str>>(args: &[A]) -> Finished {
        let mut process = Self::start(args);
        let status = process.wait(Duration::from_secs(30));
        process.assert_nothing_left();
        process.output.complete();
        Finished { status, stdout: process.output.text(Some(true)), stderr: process.output.text(Some(false)) }
    }

    /// Waits for the first line on standard output for which `pick` returns something.
    pub(crate) fn wait_for_stdout<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        pick: impl Fn(&str) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait().expect("its state can be asked");
            if let Some(found) = self
                .output
                .find(Duration::from_millis(50), |line| if line.is_stdout { pick(&line.text) } else { None })
            {
                return found;
            }
            let command = &self.command;
            assert!(ended.is_none(), "`{command}` ended with {ended:?} before {what}");
            assert!(start.elapsed() < deadline, "`{command}`: no {what} within {deadline:?}");
        }
    }

    /// What follows `beginning` in the lines on standard output that begin so, so far.
    pub(crate) fn stdout_lines(&self, beginning: &str) -> Vec<String> {
        let written = self.output.written.lock().unwrap();
        let printed = written.lines.iter().filter(|line| line.is_stdout);
        printed.filter_map(|line| line.text.strip_prefix(beginning)).map(str::to_owned).collect()
    }

    /// The lines on standard error that hold all of `words`, so far.
    pub(crate) fn log_lines(&self, words: &[&str]) -> Vec<String> {
        let written = self.output.written.lock().unwrap();
        let logged = written
            .lines
            .iter()
            .filter(|line| !line.is_stdout && words.iter().all(|w| line.text.contains(w)));
        logged.map(|line| line.text.clone()).collect()
    }

    /// Waits until a line on standard error holds all of `words`.
    pub(crate) fn wait_for_log(&self, words: &[&str]) {
        eventually_within(Duration::from_secs(20), &format!("a log line with {words:?}"), || {
            if self.log_lines(words).is_empty() { Err("none yet".to_owned()) } else { Ok(()) }
        });
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal, sent: Sent) {
        self.family();
        let result = match sent {
            Sent::ToProcess => kill_process(self.pid(), signal),
            Sent::ToGroup => kill_process_group(self.pid(), signal),
        };
        result.expect("the process is there to be signalled");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let child = &mut self.child;
        eventually_within(deadline, &format!("end of `{}`", self.command), || {
            child.try_wait().expect("its state can be asked").ok_or_else(|| "still running".to_owned())
        })
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its state can be asked").is_none()
    }

    /// Its id and those of its living descendants.
    pub(crate) fn family(&self) -> BTreeSet<u32> {
        let family = pids_with_mark(&self.mark);
        self.family_seen.lock().unwrap().extend(&family);
        family
    }

    /// Signals its descendant that runs `baton SUBCOMMAND`, the only one that does.
    pub(crate) fn signal_role(&self, subcommand: &str, signal: Signal) {
        let runs_it = |pid: &u32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|&byte| byte == 0).nth(1) == Some(subcommand.as_bytes())
        };
        let found: Vec<u32> = self.family().into_iter().filter(runs_it).collect();
        let [pid] = found[..] else { panic!("not one `baton {subcommand}` but {found:?}") };
        let pid = Pid::from_raw(pid.cast_signed()).expect("a pid above 0");
        kill_process(pid, signal).expect("the process is there to be signalled");
    }

    /// Its id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Once it ended: no descendant, no file in its temporary folder, no shared-memory file is left of it.
    pub(crate) fn assert_nothing_left(&self) {
        eventually_within(Duration::from_secs(5), "no process of the family left", || {
            let left = pids_with_mark(&self.mark);
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.iter().map(describe).collect::<Vec<_>>().join("; "))
            }
        });
        let mut left = files_below(self.temp.path());
        left.extend(shared_memory_files_of(&self.family_seen.lock().unwrap()));
        assert!(left.is_empty(), "`{}` left files behind: {left:?}", self.command);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- output of `{}`\n{}----", self.command, self.output.text(None));
        }
        // Nothing to do where a test ended it in order; otherwise no survivor may disturb the next test.
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for pid in pids_with_mark(&self.mark).iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// How a process ended.
pub(crate) struct Finished {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

impl Output {
    /// Reads `pipe` to its end from a thread, which ends when every process that holds the other end has.
    fn keep(self: &Arc<Self>, is_stdout: bool, pipe: impl Read + Send + 'static) {
        self.written.lock().unwrap().pipes_open += 1;
        let output = Arc::clone(self);
        thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut bytes = Vec::new();
            while matches!(reader.read_until(b'\n', &mut bytes), Ok(1..)) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                output.written.lock().unwrap().lines.push(Line { is_stdout, text });
                output.grown.notify_all();
                bytes.clear();
            }
            output.written.lock().unwrap().pipes_open -= 1;
            output.grown.notify_all();
        });
    }

    /// The first thing that `pick` finds in a line, waiting for more lines for up to `patience`.
    fn find<T>(&self, patience: Duration, pick: impl Fn(&Line) -> Option<T>) -> Option<T> {
        let seen = |written: &Written| written.lines.iter().find_map(&pick);
        let written = self.written.lock().unwrap();
        let waited = self.grown.wait_timeout_while(written, patience, |written| seen(written).is_none());
        let (written, _) = waited.unwrap();
        seen(&written)
    }

    /// Waits until all was read that a process wrote which has ended.
    fn complete(&self) {
        let written = self.written.lock().unwrap();
        let is_open = |written: &mut Written| written.pipes_open > 0;
        let (written, _) = self.grown.wait_timeout_while(written, Duration::from_secs(5), is_open).unwrap();
        assert_eq!(written.pipes_open, 0, "somebody still holds the output of a process that has ended");
    }

    fn text(&self, only_stdout: Option<bool>) -> String {
        let written = self.written.lock().unwrap();
        let chosen =
            written.lines.iter().filter(|line| only_stdout.is_none_or(|stdout| line.is_stdout == stdout));
        chosen.map(|line| format!("{}\n", line.text)).collect()
    }
}

/// Living processes that carry the mark (a zombie's environment reads as empty).
fn pids_with_mark(mark: &str) -> BTreeSet<u32> {
    let wanted = format!("{MARK}={mark}").into_bytes();
    let entries = fs::read_dir("/proc").expect("/proc can be read").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == wanted)
    })
    .collect()
}

fn describe(pid: &u32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("pid {pid}: {}", String::from_utf8_lossy(&command).replace('\0', " "))
}

/// Files in /dev/shm whose name holds one of these process ids as a whole number, as libfabric names them.
fn shared_memory_files_of(pids: &BTreeSet<u32>) -> Vec<PathBuf> {
    let names_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut numbers = name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
        numbers.any(|number: u32| pids.contains(&number))
    };
    files_below(Path::new("/dev/shm")).into_iter().filter(names_one).collect()
}

/// Every file below a folder; sockets count.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}
