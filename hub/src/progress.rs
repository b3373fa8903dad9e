//! How far a download is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Least time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows how far a download is, on standard error.
pub struct Progress {
    view: View,
    done: u64,
    total: u64,
}

enum View {
    Silent,
    Lines { last: Option<Instant> },
    Bar(ProgressBar),
}

impl Progress {
    /// A bar if standard error is a terminal, else lines.
    pub fn to_stderr() -> Self {
        let view = if std::io::stderr().is_terminal() {
            View::Bar(ProgressBar::no_length())
        } else {
            View::Lines { last: None }
        };
        Self { view, done: 0, total: 0 }
    }

    /// Shows nothing.
    pub fn silent() -> Self {
        Self { view: View::Silent, done: 0, total: 0 }
    }

    /// `total` bytes are needed, `done` of them are there already.
    pub(crate) fn start(&mut self, id: &str, done: u64, total: u64) {
        (self.done, self.total) = (done, total);
        tracing::info!(
            model = %id,
            size_mb = total / 1_000_000,
            have_mb = done / 1_000_000,
            "{}", if done == 0 { "downloading" } else { "continuing the download" }
        );
        if let View::Bar(bar) = &self.view {
            let template = "{msg} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_length(total);
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    /// Bytes of `file` come from now on.
    pub(crate) fn file(&mut self, file: &str) {
        if let View::Bar(bar) = &self.view {
            bar.set_message(file.to_owned());
        }
    }

    /// `count` more bytes are on disk.
    pub(crate) fn advance(&mut self, count: u64) {
        self.set(self.done + count);
    }

    /// `count` bytes have to be fetched again.
    pub(crate) fn retreat(&mut self, count: u64) {
        self.set(self.done.saturating_sub(count));
    }

    fn set(&mut self, done: u64) {
        self.done = done;
        match &mut self.view {
            View::Silent => {}
            View::Bar(bar) => bar.set_position(done),
            View::Lines { last } => {
                if last.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) {
                    *last = Some(Instant::now());
                    let percent = done * 100 / self.total.max(1);
                    tracing::info!(
                        "downloaded {percent}% ({} of {} MB)",
                        done / 1_000_000,
                        self.total / 1_000_000
                    );
                }
            }
        }
    }

    /// All is there.
    pub(crate) fn finish(&mut self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
        tracing::info!("downloaded {} MB", self.total / 1_000_000);
    }
}
