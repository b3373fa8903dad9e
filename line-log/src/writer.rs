//! The thread that writes.
//!
//! The file may be moved away (logrotate) or deleted at any time: a new one is begun at the same path. A write that fails (the
//! disk is full) is repeated each second until it succeeds; lines that come meanwhile wait, up to the queue's bound. What a
//! failed write left of a line stays, ended by a line break, before the whole line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    metrics::LogMetrics,
    queue::{Next, Queue},
};

/// Between two syncs, looks for rotation when nothing comes, and tries to write what could not be written.
const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Writer {
    path: PathBuf,
    /// What texts call the log.
    name: &'static str,
    file: File,
    /// A write broke off within a line.
    is_torn: bool,
    /// When lines that may not be on the disk yet are synced.
    sync_at: Option<Instant>,
    metrics: LogMetrics,
}

impl Writer {
    pub(crate) fn open(path: &Path, name: &'static str, metrics: LogMetrics) -> io::Result<Self> {
        let file = append_to(path)?;
        Ok(Self { path: path.to_owned(), name, file, is_torn: false, sync_at: None, metrics })
    }

    /// Writes what comes until the queue is closed and empty.
    pub(crate) fn run(mut self, queue: &Queue) {
        loop {
            let patience = self.sync_at.map_or(TICK, |at| at.saturating_duration_since(Instant::now()));
            match queue.next(patience) {
                Next::Line(line) => {
                    if !self.write_at_last(&line, queue) {
                        return give_up(self.name, queue);
                    }
                }
                Next::Idle => self.sync(),
                Next::Closed => return self.sync(),
            }
            if self.sync_at.is_some_and(|at| at <= Instant::now()) {
                self.sync();
            }
        }
    }

    /// Repeats the write until it succeeds; false, when it has not by the end.
    fn write_at_last(&mut self, line: &[u8], queue: &Queue) -> bool {
        let mut is_closed = false;
        let mut is_first = true;
        while let Err(error) = self.write(line) {
            self.metrics.failures.inc();
            if is_first {
                let (path, log) = (self.path.display(), self.name);
                tracing::error!(%path, %error, "{log} cannot be written; trying again each second");
                queue.set_failing(true);
            }
            is_first = false;
            if is_closed {
                return false;
            }
            is_closed = queue.is_closed_within(TICK);
        }
        if !is_first {
            queue.set_failing(false);
            tracing::info!(path = %self.path.display(), "{} is written again", self.name);
        }
        self.metrics.written.inc();
        self.sync_at.get_or_insert_with(|| Instant::now() + TICK);
        true
    }

    /// One write: the kernel puts it at the end as a whole, also when other processes write there.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.follow_rotation()?;
        let mended;
        let whole = if self.is_torn {
            mended = [b"\n", line].concat();
            &mended[..]
        } else {
            line
        };
        let written = self.file.write(whole)?;
        self.is_torn = written > 0 && written < whole.len();
        if written == whole.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Goes on in a new file when the old one was moved away or deleted.
    fn follow_rotation(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        let is_same = std::fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if !is_same {
            self.sync();
            self.file = append_to(&self.path)?;
            self.is_torn = false;
        }
        Ok(())
    }

    /// Onto the disk. What is no file on a disk cannot be synced, and need not be.
    fn sync(&mut self) {
        if self.sync_at.take().is_some()
            && let Err(error) = self.file.sync_data()
            && error.kind() != io::ErrorKind::InvalidInput
        {
            self.metrics.failures.inc();
            tracing::error!(path = %self.path.display(), %error, "{} may not be on the disk yet", self.name);
        }
    }
}

/// What is left when the process ends and the disk is still full.
fn give_up(log: &str, queue: &Queue) {
    let mut lines = 1;
    while matches!(queue.next(Duration::ZERO), Next::Line(_)) {
        lines += 1;
    }
    queue.lose("write_failed", lines);
    tracing::error!(lines, "lines that are not in {log}, which could not be written to the end");
}

/// It says who used what: for nobody else's eyes.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
