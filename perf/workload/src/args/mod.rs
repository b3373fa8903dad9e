//! The options of a workload on a command line, and their conversion into settings.

mod content;
mod load;
mod source;
#[cfg(test)]
mod tests;

pub use self::{
    content::{Content, ContentArgs, ContentError},
    load::{LimitArgs, LoadArgs},
    source::SourceArgs,
};
use crate::workload::Workload;

/// All options of a workload. A command that sweeps over loads takes [`SourceArgs`] and [`LimitArgs`] alone.
#[derive(clap::Args, Clone, Debug)]
pub struct WorkloadArgs {
    /// When requests start.
    #[command(flatten)]
    pub load: LoadArgs,
    /// How many.
    #[command(flatten)]
    pub limit: LimitArgs,
    /// What they ask.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Options that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionsInvalid(pub(crate) String);

impl WorkloadArgs {
    /// The settings.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub fn workload(&self) -> Result<Workload, OptionsInvalid> {
        self.source.workload(self.load.load(&self.source)?, &self.limit)
    }
}
