//! The files, their contents, and noticing that they changed.

use std::{fs, path::PathBuf};

use crate::TlsError;

/// Certificates and keys are some kilobytes; bundles of CAs a few hundred.
const MOST_BYTES: u64 = 4 << 20;

/// A file and the option that names it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) option: &'static str,
    pub(crate) path: PathBuf,
}

/// The files of one identity.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) cert: Source,
    pub(crate) key: Source,
    /// Of components; with it come gRPC listeners and calls.
    pub(crate) ca: Option<Source>,
    /// Of HTTP clients.
    pub(crate) client_ca: Option<Source>,
    pub(crate) server_name: Option<String>,
}

/// What is in them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) client_ca: Option<Vec<u8>>,
}

impl Source {
    pub(crate) fn new(option: &'static str, path: PathBuf) -> Self {
        Self { option, path }
    }

    pub(crate) fn wrong(&self, reason: impl Into<String>) -> TlsError {
        TlsError::Content { option: self.option, path: self.path.clone(), reason: reason.into() }
    }

    fn read(&self) -> Result<Vec<u8>, TlsError> {
        let failed = |reason| TlsError::Read { option: self.option, path: self.path.clone(), reason };
        let size = fs::metadata(&self.path).map_err(|error| failed(error.to_string()))?.len();
        if size > MOST_BYTES {
            return Err(failed(format!("{size} bytes are too many for a certificate or key")));
        }
        fs::read(&self.path).map_err(|error| failed(error.to_string()))
    }
}

impl Sources {
    pub(crate) fn read(&self) -> Result<Contents, TlsError> {
        let optional = |source: &Option<Source>| source.as_ref().map(Source::read).transpose();
        Ok(Contents {
            cert: self.cert.read()?,
            key: self.key.read()?,
            ca: optional(&self.ca)?,
            client_ca: optional(&self.client_ca)?,
        })
    }
}

/// What was seen so far. Files are replaced one after the other, so they are called wrong only when seen so twice.
pub(crate) struct Changes {
    seen: Result<Contents, TlsError>,
    was_judged: bool,
}

impl Changes {
    pub(crate) fn since(contents: Contents) -> Self {
        Self { seen: Ok(contents), was_judged: true }
    }

    /// The verdict, when there is a new one.
    pub(crate) fn look(
        &mut self,
        found: Result<Contents, TlsError>,
        take: impl FnOnce(&Contents) -> Result<(), TlsError>,
    ) -> Option<Result<(), TlsError>> {
        let is_same = self.seen == found;
        if is_same && self.was_judged {
            return None;
        }
        let verdict = match &found {
            Ok(contents) => take(contents),
            Err(error) => Err(error.clone()),
        };
        self.seen = found;
        self.was_judged = verdict.is_ok() || is_same;
        self.was_judged.then_some(verdict)
    }
}
