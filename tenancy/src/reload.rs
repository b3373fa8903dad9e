//! Where keys come from, and noticing that they changed.

use std::{fs, path::PathBuf, sync::OnceLock, time::Duration};

use prometheus_client::metrics::{counter::Counter, family::Family};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    ApiKeyOption, KeyFileError,
    key::{KeyTerms, parse},
    metrics::ReloadLabels,
};

/// Between two looks at the file. It is small, so it is read each time: no clock of a file system has to be trusted.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MOST_BYTES: u64 = 16 << 20;

/// A file, and keys from the command line or the environment.
pub(crate) struct KeySource {
    file: Option<PathBuf>,
    given: Vec<ApiKeyOption>,
    /// What the file held when it was read first.
    first: OnceLock<Option<String>>,
}

impl KeySource {
    pub(crate) fn new(file: Option<PathBuf>, given: Vec<ApiKeyOption>) -> Self {
        Self { file, given, first: OnceLock::new() }
    }

    /// All keys; none, when none are configured.
    pub(crate) fn read_first(&self) -> Result<Vec<KeyTerms>, KeyFileError> {
        let text = self.text()?;
        let terms = self.terms(text.as_deref())?;
        let _ = self.first.set(text);
        Ok(terms)
    }

    /// Hands each new version to `take`, until `until`.
    pub(crate) async fn watch(
        &self,
        reloads: &Family<ReloadLabels, Counter>,
        take: impl Fn(Vec<KeyTerms>) -> Result<(), KeyFileError>,
        until: CancellationToken,
    ) {
        if self.file.is_none() {
            return until.cancelled().await;
        }
        let mut changes = Changes::since(self.first.get().cloned().flatten());
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = until.cancelled() => return,
            }
            // A small file of this machine: not worth a thread.
            let Some(verdict) = changes.look(self.text(), |text| take(self.terms(Some(text))?)) else {
                continue;
            };
            let outcome = if verdict.is_ok() { "taken" } else { "refused" };
            reloads.get_or_create(&ReloadLabels { outcome }).inc();
            match verdict {
                Ok(()) => tracing::info!("the API keys changed"),
                Err(error) => {
                    tracing::error!(%error, "the changed API keys can't be used; those before stay in force")
                }
            }
        }
    }

    fn terms(&self, text: Option<&str>) -> Result<Vec<KeyTerms>, KeyFileError> {
        let mut terms = match (text, &self.file) {
            (Some(text), Some(file)) => {
                parse(text).map_err(|error| KeyFileError(format!("{}: {error}", file.display())))?
            }
            _ => Vec::new(),
        };
        for ApiKeyOption { name, hash } in &self.given {
            if terms.iter().any(|there| there.name == *name) {
                return Err(KeyFileError(format!("--api-key {name}=…: there is a key of that name already")));
            }
            terms.push(KeyTerms::unlimited(name, Some(hash.clone())));
        }
        Ok(terms)
    }

    fn text(&self) -> Result<Option<String>, KeyFileError> {
        let Some(file) = &self.file else { return Ok(None) };
        let failed = |what: String| KeyFileError(format!("--api-keys-file {}: {what}", file.display()));
        let size = fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
        if size > MOST_BYTES {
            return Err(failed(format!("{size} bytes are too many: {MOST_BYTES} at most")));
        }
        fs::read_to_string(file).map(Some).map_err(|error| failed(error.to_string()))
    }
}

/// What was seen of a file so far. A file that is being written may be wrong for a moment: it is called wrong only when it was
/// seen so twice.
struct Changes {
    seen: Result<Option<String>, KeyFileError>,
    was_judged: bool,
}

impl Changes {
    fn since(text: Option<String>) -> Self {
        Self { seen: Ok(text), was_judged: true }
    }

    /// The verdict, when there is a new one.
    fn look(
        &mut self,
        found: Result<Option<String>, KeyFileError>,
        take: impl FnOnce(&str) -> Result<(), KeyFileError>,
    ) -> Option<Result<(), KeyFileError>> {
        let is_same = self.seen == found;
        if is_same && self.was_judged {
            return None;
        }
        let verdict = match &found {
            Ok(text) => take(text.as_deref().unwrap_or_default()),
            Err(error) => Err(error.clone()),
        };
        self.seen = found;
        self.was_judged = verdict.is_ok() || is_same;
        self.was_judged.then_some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong() -> KeyFileError {
        KeyFileError("wrong".to_owned())
    }

    #[test]
    fn a_good_version_is_taken_at_once_and_a_bad_one_called_so_when_it_stays() {
        let mut changes = Changes::since(Some("a".to_owned()));
        let mut look = |text: &str, verdict: Result<(), KeyFileError>| {
            changes.look(Ok(Some(text.to_owned())), |_| verdict)
        };
        assert_eq!(look("a", Err(wrong())), None, "known");
        assert_eq!(look("b", Ok(())), Some(Ok(())));
        assert_eq!(look("b", Err(wrong())), None);
        assert_eq!(look("half", Err(wrong())), None, "perhaps it is being written");
        assert_eq!(look("whole", Ok(())), Some(Ok(())));
        assert_eq!(look("bad", Err(wrong())), None);
        assert_eq!(look("bad", Err(wrong())), Some(Err(wrong())));
        assert_eq!(look("bad", Err(wrong())), None, "said once");
        assert_eq!(look("whole", Ok(())), Some(Ok(())));
    }

    #[test]
    fn a_file_that_is_gone_is_bad() {
        let mut changes = Changes::since(Some("a".to_owned()));
        let mut look = || changes.look(Err(wrong()), |_| Ok(()));
        assert_eq!(look(), None);
        assert_eq!(look(), Some(Err(wrong())));
    }
}
