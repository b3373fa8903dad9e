//! Azure's traces of 2023 and 2024 (AzurePublicDataset).

use std::{io::BufRead, ops::ControlFlow, time::Duration};

use serde_json::Value;

use super::{
    Place, Row, RowOutput, RowPrompt,
    error::{FieldError, RowError},
    fields,
    lines::Lines,
};

const TIME: &str = "TIMESTAMP";
const INPUT: &str = "ContextTokens";
const OUTPUT: &str = "GeneratedTokens";

pub(super) fn for_each(
    reader: impl BufRead,
    each: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> Result<(), RowError> {
    let mut lines = Lines::new(reader);
    let Some((header, place)) = lines.next()? else { return Ok(()) };
    let columns = Columns::of(header).map_err(|error| error.at(place))?;
    while let Some((line, place)) = lines.next()? {
        if each(columns.row(line, place).map_err(|error| error.at(place))?).is_break() {
            break;
        }
    }
    Ok(())
}

pub(super) fn is_header(line: &str) -> bool {
    Columns::of(line).is_ok()
}

/// Where each field is in a line.
struct Columns {
    time: usize,
    input: usize,
    output: usize,
}

impl Columns {
    fn of(header: &str) -> Result<Self, FieldError> {
        let place = |name: &str| {
            let place = header.split(',').position(|column| column.trim() == name);
            place.ok_or_else(|| FieldError::new(name, "no column of this name in the first line"))
        };
        Ok(Self { time: place(TIME)?, input: place(INPUT)?, output: place(OUTPUT)? })
    }

    fn row(&self, line: &str, place: Place) -> Result<Row, FieldError> {
        let field = |name: &str, place: usize| {
            line.split(',')
                .nth(place)
                .map(str::trim)
                .ok_or_else(|| FieldError::new(name, "the line ends before it"))
        };
        let tokens = |name: &str, place: usize| {
            let text = field(name, place)?;
            fields::tokens(name, &text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from))
        };
        let text = field(TIME, self.time)?;
        let at = time(text).ok_or_else(|| {
            FieldError::new(
                TIME,
                format!("`{text}` is not a time in UTC such as 2023-11-16 18:15:46.6805900"),
            )
        })?;
        Ok(Row {
            at: Some(at),
            output: Some(RowOutput::Tokens(tokens(OUTPUT, self.output)?)),
            ..Row::at_place(place, RowPrompt::Tokens(tokens(INPUT, self.input)?))
        })
    }
}

/// `2023-11-16 18:15:46.6805900`, as time since 1970; a fraction of up to 9 digits and the mark of UTC may be there or not.
fn time(text: &str) -> Option<Duration> {
    let text = text.strip_suffix("+00:00").or(text.strip_suffix('Z')).unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let is_time = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !is_time || fraction.len() > 9 {
        return None;
    }
    let [fraction_number] = numbers(fraction, '.')?;
    let nanoseconds = fraction_number * 10_u64.pow(9 - fraction.len() as u32);
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Duration::new(seconds, u32::try_from(nanoseconds).ok()?))
}

fn numbers<const N: usize>(text: &str, between: char) -> Option<[u64; N]> {
    let mut parts = text.split(between).map(|part| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse::<u64>().ok())?
    });
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = parts.next()??;
    }
    parts.next().is_none().then_some(numbers)
}

/// In the Gregorian calendar, counted in years that begin in March so that the leap day comes last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * month + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + days_before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<f64> {
        time(text).map(|time| time.as_secs_f64())
    }

    #[test]
    fn time_stamps_are_read_with_any_fraction() {
        assert_eq!(seconds("1970-01-01 00:00:00"), Some(0.0));
        assert_eq!(seconds("2000-02-29 12:00:00.5"), Some(951_825_600.5));
        assert_eq!(time("2023-11-16 18:15:46.6805900"), Some(Duration::new(1_700_158_546, 680_590_000)));
        assert_eq!(time("2024-05-10T00:00:00.009930+00:00"), Some(Duration::new(1_715_299_200, 9_930_000)));
        for bad in [
            "",
            "2023-11-16",
            "2023-13-01 00:00:00",
            "2023-01-01 24:00:00",
            "2023-01-01 0:0:0.1234567890",
            "2023-01-01 00:00:00+02:00",
            "x",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
