use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::write::hex;
use super::{COMPARISON, RUN, RecordsFile, SCHEMA_VERSION};
use crate::{Comparison, Document, Measured, Origin, Record, Run, Slo, Trim, Utilisation, Validity};

/// What a file of results holds.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful of them at most, each larger still on the heap")]
pub enum SavedDocument {
    /// One run.
    Run(Document),
    /// Two systems compared.
    Comparison(Comparison),
}

/// A document that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No such file, or not readable.
    #[error("can't read {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Some other file.
    #[error(
        "{} is not a result of `baton bench`: its field \"schema\" is {found}; give the JSON files that `baton bench` wrote",
        path.display()
    )]
    NotResults {
        /// Which.
        path: PathBuf,
        /// What its field says.
        found: String,
    },
    /// Of another version.
    #[error(
        "{} has schema version {found}, and this Baton reads version {SCHEMA_VERSION}: {}",
        path.display(),
        if *found > SCHEMA_VERSION { "use a newer Baton" } else { "run the benchmark again, or use the Baton that wrote it" }
    )]
    Version {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Not what the schema says.
    #[error("{}, line {line}: {problem}; was it edited or cut off?", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The requests beside it are not those of this run.
    #[error("{} does not belong to {}: {problem}; put the file back that was written with it", records.display(), document.display())]
    OtherRecords {
        /// The document.
        document: PathBuf,
        /// The file with requests.
        records: PathBuf,
        /// What differs.
        problem: String,
    },
}

#[derive(Deserialize)]
struct Head {
    schema: Option<serde_json::Value>,
    schema_version: Option<u32>,
}

/// All figures are computed again when a run is read, so its `summary` is passed over.
#[derive(Deserialize)]
struct RunFile {
    validity: Validity,
    run: Run,
    origin: Origin,
    slo: Slo,
    trim: Trim,
    #[serde(default)]
    utilisation: Vec<Utilisation>,
    #[serde(default)]
    records: Vec<Record>,
    records_file: Option<RecordsFile>,
}

impl SavedDocument {
    /// Reads a file that [`Document::write`] or [`Comparison::write`] wrote, with the requests beside it.
    ///
    /// # Errors
    /// The file is missing, is something else, is of another version, or is damaged.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let bytes = open(path)?;
        let head: Head = parse(path, &bytes, 0)?;
        match head.schema.as_ref().and_then(serde_json::Value::as_str) {
            Some(RUN | COMPARISON) => {}
            _ => {
                let found = head.schema.map_or("missing".to_owned(), |schema| schema.to_string());
                return Err(ReadError::NotResults { path: path.to_owned(), found });
            }
        }
        match head.schema_version {
            Some(SCHEMA_VERSION) => {}
            found => return Err(ReadError::Version { path: path.to_owned(), found: found.unwrap_or(0) }),
        }
        if head.schema.is_some_and(|schema| schema == COMPARISON) {
            return Ok(Self::Comparison(parse(path, &bytes, 0)?));
        }
        let mut file: RunFile = parse(path, &bytes, 0)?;
        if let Some(beside) = file.records_file.take() {
            file.records = read_records(path, &beside)?;
        }
        Ok(Self::Run(Document::new(file.into())))
    }
}

impl From<RunFile> for Measured {
    fn from(file: RunFile) -> Self {
        Self {
            run: file.run,
            origin: file.origin,
            slo: file.slo,
            trim: file.trim,
            utilisation: file.utilisation,
            validity: file.validity,
            records: file.records,
        }
    }
}

fn read_records(document: &Path, beside: &RecordsFile) -> Result<Vec<Record>, ReadError> {
    // Only its name counts: a document can't make its reader open files elsewhere.
    let name = Path::new(&beside.name).file_name().unwrap_or_default();
    let path = document.with_file_name(name);
    let bytes = open(&path)?;
    let other = |problem: String| ReadError::OtherRecords {
        document: document.to_owned(),
        records: path.clone(),
        problem,
    };
    if hex(&Sha256::digest(&bytes)) != beside.sha256 {
        return Err(other("its SHA-256 is another".into()));
    }
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).enumerate();
    let records: Vec<Record> = lines.map(|(n, line)| parse(&path, line, n)).collect::<Result<_, _>>()?;
    if records.len() as u64 != beside.count {
        return Err(other(format!("it has {} requests instead of {}", records.len(), beside.count)));
    }
    Ok(records)
}

fn open(path: &Path) -> Result<Vec<u8>, ReadError> {
    fs::read(path).map_err(|source| ReadError::Open { path: path.to_owned(), source })
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, bytes: &'a [u8], lines_before: usize) -> Result<T, ReadError> {
    serde_json::from_slice(bytes).map_err(|error| ReadError::Malformed {
        path: path.to_owned(),
        line: lines_before + error.line(),
        problem: error.to_string(),
    })
}
