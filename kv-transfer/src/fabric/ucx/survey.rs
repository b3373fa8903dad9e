//! What a machine's UCX offers, for people.

use std::net::IpAddr;
use std::path::Path;

use super::library::Library;
use super::objects::{Context, Worker};
use crate::StartError;

/// One UCX.
#[derive(Clone, Debug)]
pub struct UcxSurvey {
    /// Its version.
    pub version: String,
    /// Why it cannot be used with the transports that it chooses itself.
    pub verdict: Result<(), String>,
}

impl UcxSurvey {
    /// Asks the library at `path`, or where the loader finds it; its IP interfaces are narrowed to that of `ip`.
    ///
    /// # Errors
    /// [`StartError::UcxMissing`].
    pub fn take(path: Option<&Path>, ip: IpAddr) -> Result<Self, StartError> {
        let library = Library::open(path)?;
        let opened = Context::open(library, None, ip).map_err(|error| error.to_string());
        let worker = opened.and_then(|context| Worker::open(&context, 0).map_err(|error| error.to_string()));
        Ok(Self { version: library.version(), verdict: worker.map(drop) })
    }
}
