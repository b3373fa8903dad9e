//! What is wrong with a file, and where.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// A file that is not the trace it should be.
#[derive(Debug, thiserror::Error)]
#[error("{}{place}: {problem}", path.display())]
pub struct TraceError {
    /// Which file.
    pub path: PathBuf,
    /// Where in it.
    pub place: Place,
    /// The field, if it is one, and what to do.
    pub problem: String,
}

/// Where in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere in particular.
    Whole,
    /// A line, from 1.
    Line(u64),
    /// An element of a list that is the whole file, from 1.
    Element(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Line(line) => write!(f, ":{line}"),
            Self::Element(element) => write!(f, ": element {element}"),
        }
    }
}

/// What is wrong with a row, for somebody who knows which.
#[derive(Debug)]
pub(super) struct FieldError(pub(super) String);

impl FieldError {
    pub(super) fn new(field: &str, problem: impl fmt::Display) -> Self {
        Self(format!("field `{field}`: {problem}"))
    }

    pub(super) fn at(self, place: Place) -> RowError {
        RowError { place, problem: self.0 }
    }
}

/// What is wrong in a file, for somebody who knows which.
#[derive(Debug)]
pub(super) struct RowError {
    pub(super) place: Place,
    pub(super) problem: String,
}

impl RowError {
    pub(super) fn within(self, path: &Path) -> TraceError {
        TraceError { path: path.to_owned(), place: self.place, problem: self.problem }
    }
}

impl From<io::Error> for RowError {
    fn from(error: io::Error) -> Self {
        Self { place: Place::Whole, problem: error.to_string() }
    }
}
