//! The audit log: who used what when, one JSON object a line, appended and never changed.
//!
//! ```text
//!  end of a request ──► line ──► bounded queue ──► own thread ──► one write(2) a line, O_APPEND; fdatasync each second
//! ```
//!
//! Requests never wait for the disk. When the queue is full, lines are lost and counted; with `--audit-strict` requests are
//! refused instead, as long as nothing can be written or no room is left for their lines.

mod line;
mod queue;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

pub(crate) use line::{Line, time};
pub(crate) use queue::{Queue, Slot};
use writer::Writer;

use crate::metrics::AuditMetrics;

/// The audit log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("--audit-log {}: cannot be opened for appending; its folder must exist and be writable", path.display())]
pub struct AuditError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// An open audit log. Dropping it writes what is queued, and ends its thread.
#[derive(Debug)]
pub(crate) struct AuditLog {
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

impl AuditLog {
    /// Opens `path`, and starts the thread that writes to it. `room`: lines that may wait.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(crate) fn open(path: &Path, room: usize, metrics: AuditMetrics) -> Result<Self, AuditError> {
        let failed = |source| AuditError { path: path.to_owned(), source };
        let queue = Arc::new(Queue::new(room, metrics.clone()));
        let writer = Writer::open(path, metrics).map_err(failed)?;
        let of_writer = queue.clone();
        let writer = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&of_writer))
            .map_err(failed)?;
        Ok(Self { queue, writer: Some(writer) })
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // It does not panic; if it did, there is nobody left to tell.
            let _ = writer.join();
        }
    }
}
