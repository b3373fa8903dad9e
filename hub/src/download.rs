//! One file into its blob: continued where it broke off, checked, and only then renamed.

use std::{fs, io, path::Path, time::Duration};

use reqwest::{Response, StatusCode, header::CONTENT_RANGE};
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncWriteExt as _,
};

use crate::{
    HubError, Progress,
    cache::Repository,
    client::{FileInfo, HubClient},
    verify::hash_like,
};

/// Attempts in a row that may bring no byte.
const FRUITLESS_ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Fetches files of one commit.
pub(crate) struct Downloader<'a> {
    pub(crate) client: &'a HubClient<'a>,
    pub(crate) repository: &'a Repository,
    pub(crate) commit: &'a str,
}

impl Downloader<'_> {
    /// Bytes of `file` that are on disk, whole or in part.
    pub(crate) fn have(&self, file: &FileInfo) -> u64 {
        let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        match length(&self.repository.blob(&file.etag)) {
            0 => length(&self.repository.partial(&file.etag)).min(file.size),
            whole => whole,
        }
    }

    /// Makes the blob of `file` complete.
    ///
    /// # Cancel safety
    /// Cancelled, it leaves a partial file that the next call continues.
    pub(crate) async fn fetch(&self, file: &FileInfo, progress: &mut Progress) -> Result<(), HubError> {
        let (blob, partial) = (self.repository.blob(&file.etag), self.repository.partial(&file.etag));
        let _lock = lock(&self.repository.lock(&file.etag)).await?;
        if blob.is_file() {
            return Ok(());
        }
        progress.file(&file.name);
        let mut output = open(&partial).await?;
        self.fill(file, &mut output, &partial, progress).await?;
        output.sync_all().await.map_err(HubError::io(&partial))?;
        verify(file, &partial).await?;
        fs::rename(&partial, &blob).map_err(HubError::io(blob))
    }

    /// Asks again and again for what is missing, as long as something comes.
    async fn fill(
        &self,
        file: &FileInfo,
        output: &mut File,
        partial: &Path,
        progress: &mut Progress,
    ) -> Result<(), HubError> {
        let mut fruitless = 0;
        loop {
            let have = output.metadata().await.map_err(HubError::io(partial))?.len();
            if have == file.size {
                return Ok(());
            }
            if fruitless == FRUITLESS_ATTEMPTS {
                let (name, size) = (file.name.clone(), file.size);
                return Err(HubError::Interrupted { file: name, attempts: fruitless, have, size });
            }
            if fruitless > 0 {
                tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(fruitless - 1)).await;
            }
            let got = self.attempt(file, output, have, progress).await.or_else(|stop| stop.retry(partial))?;
            fruitless = if got > 0 { 0 } else { fruitless + 1 };
        }
    }

    /// One request, from byte `have` on; how many bytes it brought before it ended, well or not.
    async fn attempt(
        &self,
        file: &FileInfo,
        output: &mut File,
        have: u64,
        progress: &mut Progress,
    ) -> Result<u64, Stop> {
        let mut response = self.client.bytes(self.commit, &file.name, have).await?;
        if have > file.size || !continues_at(&response, have) {
            // Another content, or a server that can't continue: from the start.
            output.set_len(0).await?;
            progress.retreat(have.min(file.size));
            if response.status() != StatusCode::OK {
                return Ok(0);
            }
        }
        let mut got = 0;
        // A broken body ends the attempt, not the download.
        while let Ok(Some(chunk)) = response.chunk().await {
            output.write_all(&chunk).await?;
            got += chunk.len() as u64;
            progress.advance(chunk.len() as u64);
        }
        output.flush().await?;
        Ok(got)
    }
}

/// Why an attempt ended early.
enum Stop {
    Hub(HubError),
    Disk(io::Error),
}

impl Stop {
    /// No bytes came, but may yet; or an error that asking again does not cure.
    fn retry(self, partial: &Path) -> Result<u64, HubError> {
        match self {
            Self::Hub(HubError::Unreachable { source, .. }) => {
                tracing::warn!(error = %source, "the hub does not answer; trying again");
                Ok(0)
            }
            Self::Hub(error) => Err(error),
            Self::Disk(source) => Err(HubError::Io { path: partial.to_owned(), source }),
        }
    }
}

impl From<HubError> for Stop {
    fn from(error: HubError) -> Self {
        Self::Hub(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Whether the body that follows begins at byte `start`.
fn continues_at(response: &Response, start: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    match response.status() {
        StatusCode::PARTIAL_CONTENT => range.is_some_and(|r| r.starts_with(&format!("bytes {start}-"))),
        status => start == 0 && status == StatusCode::OK,
    }
}

async fn open(path: &Path) -> Result<File, HubError> {
    OpenOptions::new().append(true).create(true).open(path).await.map_err(HubError::io(path))
}

/// Waits until no other process fetches the same blob.
async fn lock(path: &Path) -> Result<fs::File, HubError> {
    let file = fs::File::create(path).map_err(HubError::io(path))?;
    if file.try_lock().is_ok() {
        return Ok(file);
    }
    tracing::info!("waiting for another process that downloads the same file");
    let waiting = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
    waiting.await.map_err(io::Error::other).flatten().map_err(HubError::io(path))
}

async fn verify(file: &FileInfo, partial: &Path) -> Result<(), HubError> {
    let (etag, path) = (file.etag.clone(), partial.to_owned());
    let hash = tokio::task::spawn_blocking(move || hash_like(&etag, &path));
    match hash.await.map_err(io::Error::other).flatten().map_err(HubError::io(partial))? {
        Some(actual) if actual != file.etag => {
            fs::remove_file(partial).map_err(HubError::io(partial))?;
            Err(HubError::Damaged { file: file.name.clone(), expected: file.etag.clone(), actual })
        }
        _ => Ok(()),
    }
}
