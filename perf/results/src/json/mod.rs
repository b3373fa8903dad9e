//! Documents as files: JSON with a schema version, requests of large runs beside it as JSON lines.
//!
//! `docs/schemas/` has the JSON Schemas, which the tests hold against real documents. A field may be added without a new
//! version, as readers pass over what they do not know; whatever changes a field's meaning or removes one is a new version.

mod read;
mod write;

use serde::{Deserialize, Serialize};

pub use self::read::{ReadError, SavedDocument};
pub use self::write::{INLINE_RECORDS, WriteError};
pub(crate) use self::write::{json, line};

/// The version of both schemas that this code writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

const RUN: &str = "baton.bench.run";
const COMPARISON: &str = "baton.bench.comparison";

/// Where a large run's requests are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RecordsFile {
    /// The file's name, in the document's folder.
    name: String,
    /// How many lines it has.
    count: u64,
    /// Of its bytes, in hexadecimal.
    sha256: String,
}

#[cfg(test)]
mod tests;
