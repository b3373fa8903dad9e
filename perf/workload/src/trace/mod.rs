//! Traces and prompts out of files, row by row.
//!
//! | format | what a row is |
//! |---|---|
//! | Mooncake | JSON: `timestamp` (ms), `input_length`, `output_length`, `hash_ids`: an id for each 512 tokens of the prompt, the last one for what is left |
//! | Azure | CSV: `TIMESTAMP` (`2023-11-16 18:15:46.6805900`), `ContextTokens`, `GeneratedTokens`; other columns are passed over |
//! | JSONL | JSON, the project's own: [`own`] |
//! | ShareGPT | JSON: `conversations`, a list of `from` (`human`, `gpt`, `system`) and `value`; all in one list, or one a line |
//! | lines | a prompt |
//!
//! A file is read as a stream: one row is in memory at a time, and none may be longer than [`MAX_ROW_BYTES`].

mod azure;
mod detect;
mod error;
mod fields;
mod lines;
mod mooncake;
pub mod own;
mod sharegpt;
#[cfg(test)]
mod tests;

use std::{fs::File, io::BufReader, ops::ControlFlow, path::Path, time::Duration};

pub use self::{
    detect::TraceFormat,
    error::{Place, TraceError},
};
use crate::plan::{Role, Text};

/// A longer row is a mistake, such as a file without line breaks.
pub const MAX_ROW_BYTES: u64 = 64 << 20;

/// Tokens that each of Mooncake's `hash_ids` stands for.
pub const MOONCAKE_BLOCK_TOKENS: u32 = 512;

/// A request as a file tells it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// From any beginning that all rows have in common.
    pub(crate) at: Option<Duration>,
    pub(crate) prompt: RowPrompt,
    pub(crate) output: Option<RowOutput>,
    /// Rows of the same session are its turns; each has only what is new.
    pub(crate) session: Option<SessionName>,
    pub(crate) think: Option<Duration>,
    pub(crate) place: Place,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowPrompt {
    Tokens(u32),
    /// Ids of the file and their tokens.
    Pieces(Vec<(u64, u32)>),
    Messages(Vec<Text>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SessionName {
    /// Its rows may be anywhere in the file.
    Given(String),
    /// It is this element or line of the file, and all its rows come together.
    Place(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowOutput {
    Tokens(u32),
    /// As many as this text has.
    LikeText(String),
}

impl Row {
    fn at_place(place: Place, prompt: RowPrompt) -> Self {
        Self { at: None, prompt, output: None, session: None, think: None, place }
    }
}

/// Hands each row of a file to `each`, until it breaks.
pub(crate) fn read(
    path: &Path,
    format: Option<TraceFormat>,
    each: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> Result<(), TraceError> {
    let in_file = |error: error::RowError| error.within(path);
    let open = || File::open(path).map_err(|error| in_file(error.into()));
    let format = match format {
        Some(format) => format,
        None => detect::detect(BufReader::new(open()?)).map_err(in_file)?,
    };
    let file = BufReader::new(open()?);
    match format {
        TraceFormat::Mooncake => lines::for_each(file, mooncake::row, each),
        TraceFormat::Jsonl => lines::for_each(file, own::row, each),
        TraceFormat::Lines => lines::for_each(file, prompt, each),
        TraceFormat::Azure => azure::for_each(file, each),
        TraceFormat::Sharegpt => sharegpt::for_each(file, each),
    }
    .map_err(in_file)
}

fn prompt(line: &str, place: Place) -> Result<Row, error::FieldError> {
    let text = Text { role: Role::User, text: line.to_owned() };
    Ok(Row::at_place(place, RowPrompt::Messages(vec![text])))
}
