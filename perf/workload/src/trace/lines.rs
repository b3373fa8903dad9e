//! Files of lines, of which none may be too long.

use std::{
    io::{self, BufRead, Read as _},
    ops::ControlFlow,
};

use super::{
    MAX_ROW_BYTES, Place, Row,
    error::{FieldError, RowError},
};

/// Lines without their ends, one at a time, with their places; blank ones are passed over.
pub(super) struct Lines<R> {
    reader: R,
    bytes: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, bytes: Vec::new(), number: 0 }
    }

    pub(super) fn next(&mut self) -> Result<Option<(&str, Place)>, RowError> {
        loop {
            self.bytes.clear();
            self.number += 1;
            let place = Place::Line(self.number);
            let read = self.reader.by_ref().take(MAX_ROW_BYTES + 1).read_until(b'\n', &mut self.bytes)?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 > MAX_ROW_BYTES {
                return Err(FieldError(format!("the line is over {} MiB", MAX_ROW_BYTES >> 20)).at(place));
            }
            if !self.bytes.trim_ascii().is_empty() {
                let text = str::from_utf8(&self.bytes);
                let text = text.map_err(|error| FieldError(format!("it is not UTF-8: {error}")).at(place))?;
                // Windows tools put a mark at the beginning of a file.
                return Ok(Some((text.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']), place)));
            }
        }
    }
}

/// After white space, which is consumed; the line may be of any length.
pub(super) fn first_byte(reader: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let bytes = reader.fill_buf()?;
        let blank = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        match bytes.get(blank) {
            Some(&byte) => return Ok(Some(byte)),
            None if bytes.is_empty() => return Ok(None),
            None => reader.consume(blank),
        }
    }
}

pub(super) fn for_each(
    reader: impl BufRead,
    row: impl Fn(&str, Place) -> Result<Row, FieldError>,
    each: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> Result<(), RowError> {
    let mut lines = Lines::new(reader);
    while let Some((line, place)) = lines.next()? {
        if each(row(line, place).map_err(|error| error.at(place))?).is_break() {
            break;
        }
    }
    Ok(())
}
