//! Endpoints listed in a file, which is read again when it changes.
//!
//! The file is read whole each second and compared with what was read before. That is a few hundred kilobytes at most, and nothing can be
//! missed: not a second change within the clock's resolution, not the swap of a symbolic link by which Kubernetes renews a ConfigMap, not a
//! file system without notifications. A change counts once two reads agree, so a file that is being written is not taken for a short one.

mod parse;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{io::AsyncReadExt as _, select, time};
use tokio_util::sync::CancellationToken;

pub use parse::{ParseError, parse};

use crate::{Endpoint, Publisher, Source, metrics::FileMetrics, source};

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);
/// Between two reads that have to agree.
const SETTLE: Duration = Duration::from_millis(50);
/// Reads of a file that keeps changing before it is left for the next look.
const SETTLE_READS: usize = 10;
/// Above this it is not a list of endpoints.
const MOST_BYTES: u64 = 8 << 20;

/// Why a file gives no endpoints.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("{path}: {error}; it has to exist and be readable when the process starts")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It can be, but makes no sense.
    #[error("{path}: {error}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        error: ParseError,
    },
}

/// Feeds a [`Source`] from a file.
#[derive(Debug)]
pub struct FileWatcher {
    path: PathBuf,
    publisher: Publisher,
    /// What was read last, good or not.
    seen: String,
    /// Whether what was read last is what is published.
    is_good: bool,
    /// Whether the last look failed, so that it is said once.
    is_unreadable: bool,
    metrics: FileMetrics,
}

impl FileWatcher {
    /// Reads the file for the first time, when it has to be right: a process whose only list is broken should not start.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn open(
        path: impl Into<PathBuf>,
        metrics: &baton_process::Metrics,
    ) -> Result<(Self, Source), FileError> {
        let path = path.into();
        let seen = read(&path).await.map_err(|error| FileError::Read { path: path.clone(), error })?;
        let endpoints = parse(&seen).map_err(|error| FileError::Parse { path: path.clone(), error })?;
        let (publisher, source) = source("file");
        let metrics = FileMetrics::register(metrics);
        let watcher = Self { path, publisher, seen, is_good: true, is_unreadable: false, metrics };
        watcher.publish(endpoints);
        Ok((watcher, source))
    }

    /// Looks at the file until cancelled.
    ///
    /// # Cancel safety
    /// Dropping it leaves the last set.
    pub async fn run(mut self, until: CancellationToken) {
        let mut looks = time::interval(LOOK);
        looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            select! {
                () = until.cancelled() => return,
                _ = looks.tick() => {}
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let text = match settled(&self.path, &self.seen).await {
            Ok(Some(text)) => text,
            // It is being written just now.
            Ok(None) => return,
            Err(error) => return self.unreadable(&error),
        };
        self.is_unreadable = false;
        if text != self.seen {
            self.reload(text);
        } else if self.is_good {
            self.publisher.confirm(Instant::now());
        }
    }

    fn reload(&mut self, text: String) {
        match parse(&text) {
            Ok(endpoints) => {
                tracing::info!(path = %self.path.display(), endpoints = endpoints.len(), "the list of endpoints was read again");
                self.metrics.reloads.inc();
                self.is_good = true;
                self.publish(endpoints);
            }
            Err(error) => {
                self.metrics.failures.inc();
                self.is_good = false;
                tracing::error!(path = %self.path.display(), %error, "the new list of endpoints is wrong: the old one stays");
            }
        }
        self.seen = text;
    }

    fn unreadable(&mut self, error: &io::Error) {
        if !self.is_unreadable {
            self.is_unreadable = true;
            self.metrics.failures.inc();
            tracing::error!(path = %self.path.display(), %error, "the list of endpoints can't be read: the old one stays");
        }
    }

    fn publish(&self, endpoints: Vec<Endpoint>) {
        self.publisher.publish(endpoints, Instant::now());
    }
}

/// The file's text, once it stops changing; `None`: it does not.
async fn settled(path: &Path, seen: &str) -> io::Result<Option<String>> {
    let mut before = read(path).await?;
    if before == seen {
        return Ok(Some(before));
    }
    for _ in 0..SETTLE_READS {
        time::sleep(SETTLE).await;
        let now = read(path).await?;
        if now == before {
            return Ok(Some(now));
        }
        before = now;
    }
    Ok(None)
}

async fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(MOST_BYTES + 1).read_to_string(&mut text).await?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {MOST_BYTES} bytes"),
        ));
    }
    Ok(text)
}
