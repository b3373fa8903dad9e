//! Conversations in ShareGPT's format.

use std::{
    cell::Cell,
    fmt,
    io::{self, BufRead, Read},
    ops::ControlFlow,
};

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::Value;

use super::{
    MAX_ROW_BYTES, Place, Row, RowOutput, RowPrompt, SessionName,
    error::{FieldError, RowError},
    fields::{Fields, missing, short},
    lines::{Lines, first_byte},
};
use crate::plan::{Role, Text};

type Each<'a> = &'a mut dyn FnMut(Row) -> ControlFlow<()>;

/// One list of conversations, or a conversation a line.
pub(super) fn for_each(mut reader: impl BufRead, each: Each<'_>) -> Result<(), RowError> {
    if first_byte(&mut reader)? == Some(b'[') {
        return elements(reader, each);
    }
    let mut lines = Lines::new(reader);
    while let Some((line, place)) = lines.next()? {
        let value = serde_json::from_str(line)
            .map_err(|error| FieldError(format!("it is not JSON: {error}")).at(place))?;
        if conversation(value, place, each).map_err(|error| error.at(place))?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Each element of a list, without holding the list.
fn elements(reader: impl BufRead, each: Each<'_>) -> Result<(), RowError> {
    let budget = Cell::new(MAX_ROW_BYTES);
    let mut elements = Elements { each, budget: &budget, number: 0, ended: None };
    let mut deserializer = serde_json::Deserializer::from_reader(Metered { reader, budget: &budget });
    let result = deserializer.deserialize_seq(&mut elements);
    let place = Place::Element(elements.number);
    match (elements.ended, result) {
        (Some(Ok(())), _) | (None, Ok(())) => Ok(()),
        (Some(Err(error)), _) => Err(error.at(place)),
        (None, Err(error)) => {
            Err(FieldError(format!("it is not a list of conversations: {error}")).at(place))
        }
    }
}

/// Lets through so many bytes for each element.
struct Metered<'a, R> {
    reader: R,
    budget: &'a Cell<u64>,
}

impl<R: BufRead> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let left = self.budget.get().checked_sub(read as u64);
        let over = || io::Error::other(format!("an element is over {} MiB", MAX_ROW_BYTES >> 20));
        self.budget.set(left.ok_or_else(over)?);
        Ok(read)
    }
}

struct Elements<'a> {
    each: Each<'a>,
    budget: &'a Cell<u64>,
    number: u64,
    // Why reading ended early.
    ended: Option<Result<(), FieldError>>,
}

impl<'de> Visitor<'de> for &mut Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of conversations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        loop {
            self.number += 1;
            self.budget.set(MAX_ROW_BYTES);
            let Some(value) = list.next_element::<Value>()? else { return Ok(()) };
            match conversation(value, Place::Element(self.number), self.each) {
                Ok(ControlFlow::Continue(())) => (),
                Ok(ControlFlow::Break(())) => self.ended = Some(Ok(())),
                Err(error) => self.ended = Some(Err(error)),
            }
            if self.ended.is_some() {
                return Err(A::Error::custom("ended early"));
            }
        }
    }
}

/// A row for each answer: what was said since the one before. Nobody speaks before the first user but the system.
fn conversation(value: Value, place: Place, each: Each<'_>) -> Result<ControlFlow<()>, FieldError> {
    let mut fields = Fields::of(value)?;
    let list = fields.list("conversations")?.ok_or_else(|| missing("conversations"))?;
    let session = match place {
        Place::Line(number) | Place::Element(number) => Some(SessionName::Place(number)),
        Place::Whole => None,
    };
    let mut new: Vec<Text> = Vec::new();
    for value in list {
        let said = said(value)?;
        if said.role != Role::Assistant {
            new.push(said);
            continue;
        }
        if new.iter().any(|text| text.role == Role::User) {
            let row = Row {
                output: Some(RowOutput::LikeText(said.text)),
                session: session.clone(),
                ..Row::at_place(place, RowPrompt::Messages(std::mem::take(&mut new)))
            };
            if each(row).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn said(value: Value) -> Result<Text, FieldError> {
    let within = |error: FieldError| FieldError::new("conversations", error.0);
    let shown = short(&value);
    let mut fields = Fields::of(value).map_err(within)?;
    let role = match fields.text("from").map_err(within)?.as_deref() {
        Some("human" | "user") => Role::User,
        Some("gpt" | "assistant" | "chatgpt" | "bing" | "bard") => Role::Assistant,
        Some("system") => Role::System,
        _ => {
            return Err(FieldError::new(
                "conversations",
                format!("`from` is not human, gpt or system in {shown}"),
            ));
        }
    };
    let text = fields.text("value").map_err(within)?.ok_or_else(|| within(missing("value")))?;
    Ok(Text { role, text })
}
