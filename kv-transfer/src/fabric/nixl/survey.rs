//! What a machine's NIXL offers, for people.

use std::path::Path;

use super::agent::Agent;
use super::library;
use crate::StartError;

/// One NIXL.
#[derive(Clone, Debug)]
pub struct NixlSurvey {
    /// The backends whose plugins it has, by name; not each of them can run on each machine.
    pub plugins: Vec<String>,
}

impl NixlSurvey {
    /// Opens the library at `path` (the file, its folder, or a Python environment's `site-packages`), or where the loader
    /// finds it, and asks for its plugins.
    ///
    /// # Errors
    /// [`StartError::NixlMissing`], or the library's own.
    pub fn take(path: Option<&Path>) -> Result<Self, StartError> {
        let library = library::open(path)?;
        let mut plugins = Agent::create(library, c"baton-doctor")?.plugins()?;
        plugins.sort();
        Ok(Self { plugins })
    }
}
