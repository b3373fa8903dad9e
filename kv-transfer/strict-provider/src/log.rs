//! Violations, where a test can find them.

use std::fs::{File, OpenOptions};
use std::io::Write;

use crate::rules::{Broken, Rule};
use crate::settings::Settings;

/// A file that several processes append to, a line at a time.
#[derive(Debug)]
pub(crate) struct Log(Option<File>);

impl Log {
    pub(crate) fn open(settings: &Settings) -> Self {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        match settings.log.as_ref().map(open) {
            None => Self(None),
            Some(Ok(file)) => Self(Some(file)),
            Some(Err(error)) => {
                complain(&format!("the log cannot be opened: {error}"));
                Self(None)
            }
        }
    }

    /// A rule was broken. Writing is one call, so lines of two processes do not mix, and nothing is lost by a kill.
    pub(crate) fn violation(&self, rule: Rule, text: &str) {
        self.line(&format!("violation pid={} rule={rule:?}: {text}\n", std::process::id()));
    }

    pub(crate) fn broken(&self, broken: &Broken) {
        self.violation(broken.rule, &broken.text);
    }

    /// Something worth knowing that nobody is to blame for.
    pub(crate) fn note(&self, text: &str) {
        if self.0.is_some() {
            self.line(&format!("note pid={}: {text}\n", std::process::id()));
        }
    }

    fn line(&self, line: &str) {
        match &self.0 {
            Some(file) => {
                let mut file = file;
                if let Err(error) = file.write_all(line.as_bytes()) {
                    complain(&format!("{line} (and the log cannot be written: {error})"));
                }
            }
            None => complain(line.trim_end()),
        }
    }
}

/// Standard error, for what must not be lost.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "strict provider: {text}");
}
