//! Decisions in a file, by option: one JSON object a line, with what then happened.
//!
//! A decision is written when its request has ended. One that came to nothing, as the request was refused or decided anew, is written
//! when it leaves the ring of records, or at the end.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use baton_line_log::{LineLog, LogMetrics};
use baton_policy::record::Record;
use baton_process::Metrics;
use serde::Serialize;

/// Lines that may wait for the disk; a line is some kilobytes.
const ROOM: usize = 8192;

/// The log, and when the moments in its records began.
pub(crate) struct DecisionLog {
    log: LineLog,
    began: SystemTime,
}

/// A line.
#[derive(Serialize)]
struct Line<'a> {
    /// When it was decided, by the calendar.
    time: String,
    #[serde(flatten)]
    record: &'a Record,
}

impl DecisionLog {
    /// Opens the file for appending.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(path: &Path, metrics: &Metrics) -> io::Result<Self> {
        let name = "the log of decisions";
        let log = LineLog::open(path, name, ROOM, LogMetrics::register(metrics, "baton_decision_log", name))?;
        Ok(Self { log, began: SystemTime::now() })
    }

    pub(super) fn write(&self, record: &Record) {
        let at = self.began + Duration::from_secs_f64(record.at.max(0.0) / 1e3);
        let time = humantime::format_rfc3339_millis(at).to_string();
        // A record has no maps with other keys than text, which is all that could fail.
        if let Ok(mut line) = serde_json::to_vec(&Line { time, record }) {
            line.push(b'\n');
            self.log.queue().push(line);
        }
    }
}
