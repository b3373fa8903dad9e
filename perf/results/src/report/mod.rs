//! A report of runs and comparisons: charts, one HTML file that needs nothing else, and pictures.

mod cdfs;
mod curves;
mod forests;
mod html;
mod pick;
mod png;
mod tables;
mod timelines;
mod utilisation;

use std::path::Path;
use std::{fs, io};

use crate::{Chart, Comparison, Document, SavedDocument, WriteError};

pub use self::png::DrawError;

/// Documents that are shown together. Runs of one name and different loads are one curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Runs, by name and load.
    pub runs: Vec<Document>,
    /// Comparisons.
    pub comparisons: Vec<Comparison>,
}

impl Report {
    /// Of whatever was read, in a stated order: runs by name (in the order in which names first come) and load.
    pub fn new(documents: impl IntoIterator<Item = SavedDocument>) -> Self {
        let mut report = Self::default();
        for document in documents {
            match document {
                SavedDocument::Run(run) => report.runs.push(run),
                SavedDocument::Comparison(comparison) => report.comparisons.push(comparison),
            }
        }
        crate::table::sort(&mut report.runs);
        report
    }

    /// All charts that the documents have data for.
    pub fn charts(&self) -> Vec<Chart> {
        let mut charts = forests::charts(&self.comparisons);
        charts.extend(curves::charts(&self.runs));
        charts.extend(cdfs::charts(&self.runs));
        charts.extend(timelines::charts(&self.runs));
        charts.extend(utilisation::charts(&self.runs));
        charts
    }

    /// One HTML file that needs nothing else: no network, no scripts to be read.
    pub fn html(&self) -> String {
        html::page(self, &self.charts())
    }

    /// Writes [`Report::html`] to `path`.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_html(&self, path: &Path) -> Result<(), WriteError> {
        fs::write(path, self.html()).map_err(|source: io::Error| WriteError { path: path.to_owned(), source })
    }

    /// Writes each chart as `NAME.png` into `folder`, which is made if it is missing, and says how many there are.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn write_pngs(&self, folder: &Path) -> Result<usize, DrawError> {
        png::write(&self.charts(), folder)
    }
}

#[cfg(test)]
mod tests;
