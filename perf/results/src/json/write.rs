use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{COMPARISON, RUN, RecordsFile, SCHEMA_VERSION};
use crate::{Comparison, Document, Origin, Record, Run, Slo, Summary, Trim, Utilisation, Validity};

/// Runs of more requests than this have them in a file beside the document.
pub const INLINE_RECORDS: usize = 1_000;

/// A file that can't be written.
#[derive(Debug, thiserror::Error)]
#[error("can't write {}", path.display())]
pub struct WriteError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

#[derive(Serialize)]
struct RunFile<'a> {
    schema: &'static str,
    schema_version: u32,
    validity: &'a Validity,
    run: &'a Run,
    origin: &'a Origin,
    slo: &'a Slo,
    trim: &'a Trim,
    summary: &'a Summary,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    utilisation: &'a [Utilisation],
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<&'a [Record]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records_file: Option<RecordsFile>,
}

#[derive(Serialize)]
struct ComparisonFile<'a> {
    schema: &'static str,
    schema_version: u32,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

impl Document {
    /// Writes it to `path`. The requests of a run with more than [`INLINE_RECORDS`] go to `NAME.records.jsonl` beside it, a
    /// request a line.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        let measured = &self.measured;
        let beside = measured.records.len() > INLINE_RECORDS;
        let records_file = if beside { Some(self.write_records(path)?) } else { None };
        let file = RunFile {
            schema: RUN,
            schema_version: SCHEMA_VERSION,
            validity: &measured.validity,
            run: &measured.run,
            origin: &measured.origin,
            slo: &measured.slo,
            trim: &measured.trim,
            summary: &self.summary,
            utilisation: &measured.utilisation,
            records: (!beside).then_some(&measured.records),
            records_file,
        };
        json(path, &file)
    }

    fn write_records(&self, document: &Path) -> Result<RecordsFile, WriteError> {
        let path = beside(document);
        let fail = |source| WriteError { path: path.clone(), source };
        let mut out = Hashed { to: BufWriter::new(File::create(&path).map_err(fail)?), hash: Sha256::new() };
        for record in &self.measured.records {
            line(&mut out, record).map_err(fail)?;
        }
        out.flush().map_err(fail)?;
        Ok(RecordsFile {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            count: self.measured.records.len() as u64,
            sha256: hex(&out.hash.finalize()),
        })
    }
}

impl Comparison {
    /// Writes it to `path`.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        json(path, &ComparisonFile { schema: COMPARISON, schema_version: SCHEMA_VERSION, comparison: self })
    }
}

/// `NAME.records.jsonl` beside `NAME.json`; a name that ends otherwise is kept whole, so that `NAME.1` and `NAME.2` do not share one.
fn beside(document: &Path) -> PathBuf {
    if document.extension().is_some_and(|extension| extension == "json") {
        return document.with_extension("records.jsonl");
    }
    let mut path = document.as_os_str().to_owned();
    path.push(".records.jsonl");
    path.into()
}

/// Writes one JSON value and a line feed.
pub(crate) fn json(path: &Path, value: &impl Serialize) -> Result<(), WriteError> {
    let fail = |source| WriteError { path: path.to_owned(), source };
    let mut out = BufWriter::new(File::create(path).map_err(fail)?);
    line(&mut out, value).map_err(fail)?;
    out.flush().map_err(fail)
}

/// Appends one JSON value and a line feed.
pub(crate) fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes what passes through.
struct Hashed<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_beside_each_other_do_not_share_their_requests() {
        let found = ["a/run.json", "a/run.1.json", "a/run.2", "run"].map(|name| beside(Path::new(name)));
        let expected =
            ["a/run.records.jsonl", "a/run.1.records.jsonl", "a/run.2.records.jsonl", "run.records.jsonl"];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
