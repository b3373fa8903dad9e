//! The audit log: who used what when, one JSON object a line, appended and never changed.
//!
//! Requests never wait for the disk. When the queue is full, lines are lost and counted; with `--audit-strict` requests are
//! refused instead, as long as nothing can be written or no room is left for their lines.

mod line;

use std::path::{Path, PathBuf};

use baton_line_log::{LineLog, LogMetrics};

pub(crate) use line::{Line, time};

/// The audit log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("--audit-log {}: cannot be opened for appending; its folder must exist and be writable", path.display())]
pub struct AuditError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Opens `path`; `room`: lines that may wait.
///
/// # Errors
/// [`AuditError`].
pub(crate) fn open(path: &Path, room: usize, metrics: LogMetrics) -> Result<LineLog, AuditError> {
    LineLog::open(path, "the audit log", room, metrics)
        .map_err(|source| AuditError { path: path.to_owned(), source })
}
