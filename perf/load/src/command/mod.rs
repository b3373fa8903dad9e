//! `baton bench run | sweep | goodput | compare | replay | calibrate`: options, and what they do.
//!
//! Functions here block, and start runtimes of their own: they are called outside of any.

mod calibrate;
mod common;
mod compare;
mod goodput;
mod interrupt;
mod measure;
mod output;
mod run;
mod sweep;
mod target;

use std::io;

use baton_results::WriteError;
use baton_workload::{ContentError, OptionsInvalid, RateInvalid};

pub use calibrate::{CalibrateArgs, calibrate};
pub use common::CommonArgs;
pub use compare::{CompareArgs, compare};
pub use goodput::{GoodputArgs, goodput};
pub use measure::MeasureArgs;
pub use output::OutputArgs;
pub use run::{ReplayArgs, RunArgs, replay, run};
pub use sweep::{SweepArgs, sweep};
pub use target::{EndpointArgs, TargetArgs};

use crate::{BenchError, modes::ModeError};

/// Why a command ended without all of its results.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error that it holds")]
pub enum CommandError {
    #[error(transparent)]
    Options(#[from] OptionsInvalid),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Rate(#[from] RateInvalid),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Mode(#[from] ModeError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the terminal can't be written to: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Other(String),
}
