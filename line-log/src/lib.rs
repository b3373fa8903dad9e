//! A log of lines: appended to a file and never changed, by a thread of its own.
//!
//! ```text
//!  whoever serves ──► line ──► bounded queue ──► own thread ──► one write(2) a line, O_APPEND; fdatasync each second
//! ```
//!
//! Nobody waits for the disk. When the queue is full, lines are lost and counted; who must not lose any keeps a place for the line
//! before what it is about begins ([`Queue::keep_place`]).
//!
//! # Invariants
//! - A line is one write; lines of several processes in one file do not mix.
//! - The file may be moved away or deleted at any time: a new one is begun at the same path.

#![forbid(unsafe_code)]

mod metrics;
mod queue;
mod writer;

use std::{
    io,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

pub use metrics::LogMetrics;
pub use queue::{Queue, Slot};

use writer::Writer;

/// An open log. Dropping it writes what is queued, and ends its thread.
#[derive(Debug)]
pub struct LineLog {
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

impl LineLog {
    /// Opens `path`, and starts the thread that writes to it. `name` is what error texts call it, such as "the audit log"; `room`: lines
    /// that may wait.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or there can be no more threads.
    pub fn open(path: &Path, name: &'static str, room: usize, metrics: LogMetrics) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(room, metrics.clone()));
        let writer = Writer::open(path, name, metrics)?;
        let of_writer = queue.clone();
        let writer =
            thread::Builder::new().name("line-log".to_owned()).spawn(move || writer.run(&of_writer))?;
        Ok(Self { queue, writer: Some(writer) })
    }

    /// Where lines go.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl Drop for LineLog {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // It does not panic; if it did, there is nobody left to tell.
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_in_the_file_when_the_log_is_closed_also_where_it_was_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let metrics = LogMetrics::default();
        let open = || LineLog::open(&path, "the log", 10, metrics.clone()).unwrap();
        let log = open();
        log.queue().push(b"one\n".to_vec());
        drop(log);
        std::fs::rename(&path, &old).unwrap();
        let log = open();
        log.queue().keep_place().unwrap().push(b"two\n".to_vec());
        log.queue().push(b"three\n".to_vec());
        drop(log);
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\nthree\n");
        assert_eq!((metrics.written.get(), metrics.queued.get()), (3, 0));
        assert!(LineLog::open(&folder.path().join("none/log"), "the log", 1, metrics).is_err());
    }
}
