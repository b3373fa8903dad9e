//! Which format a file has.

use std::{fmt, io::BufRead, str::FromStr};

use super::{
    Place, azure,
    error::{FieldError, RowError},
    fields::Fields,
    lines::{Lines, first_byte},
    own,
};

/// A format of traces or prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// Mooncake's, with prefixes.
    Mooncake,
    /// Azure's CSV.
    Azure,
    /// The project's own.
    Jsonl,
    /// Conversations.
    Sharegpt,
    /// A prompt a line.
    Lines,
}

impl TraceFormat {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Mooncake, Self::Azure, Self::Jsonl, Self::Sharegpt, Self::Lines];

    fn name(self) -> &'static str {
        match self {
            Self::Mooncake => "mooncake",
            Self::Azure => "azure",
            Self::Jsonl => "jsonl",
            Self::Sharegpt => "sharegpt",
            Self::Lines => "lines",
        }
    }
}

impl fmt::Display for TraceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TraceFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or(format!("it must be one of {known}"))
    }
}

/// Looks at the first line that is not blank. What begins like JSON must be a format that is known: JSON is nobody's prompt.
pub(super) fn detect(mut reader: impl BufRead) -> Result<TraceFormat, RowError> {
    if first_byte(&mut reader)? == Some(b'[') {
        return Ok(TraceFormat::Sharegpt);
    }
    let mut lines = Lines::new(reader);
    let Some((line, place)) = lines.next()? else {
        return Err(RowError { place: Place::Whole, problem: "it is empty".into() });
    };
    let line = line.trim_start();
    if !line.starts_with('{') {
        return Ok(if azure::is_header(line) { TraceFormat::Azure } else { TraceFormat::Lines });
    }
    let fields = Fields::of_line(line).map_err(|error| error.at(place))?;
    if fields.has("conversations") {
        Ok(TraceFormat::Sharegpt)
    } else if fields.has("input_length") {
        Ok(TraceFormat::Mooncake)
    } else if own::PROMPTS.iter().any(|field| fields.has(field)) {
        Ok(TraceFormat::Jsonl)
    } else {
        let known = "`input_length` (Mooncake), `conversations` (ShareGPT), or one of input_tokens, pieces, prompt, messages";
        Err(FieldError(format!("no format has these fields; known are {known}")).at(place))
    }
}
