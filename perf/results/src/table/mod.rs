//! Results as plain text for a terminal.

mod comparison;
mod grid;
mod number;
mod run;
mod sweep;

pub use self::sweep::sweep;

pub(crate) use self::comparison::verdict;
pub(crate) use self::number::{load, number, plain};
pub(crate) use self::run::{cost, distributions, floor, requests, slo};
pub(crate) use self::sweep::sort;

use crate::{Comparison, Document};

/// One run, ending in a line feed.
pub fn run(document: &Document) -> String {
    run::table(document)
}

/// Two systems compared, ending in a line feed.
pub fn comparison(comparison: &Comparison) -> String {
    comparison::table(comparison)
}

#[cfg(test)]
mod tests;
