//! What a distribution is of.

use std::time::Duration;

use super::Range;
use crate::random::Stream;

/// No prompt or answer is longer: a bound for memory, far over any model's context.
pub const MAX_TOKENS: u32 = 10_000_000;

/// No time is longer: 30 days.
const MAX_SECONDS: f64 = 30.0 * 24.0 * 3600.0;

/// What a distribution is of: [`Tokens`] or [`Seconds`].
pub trait Unit: sealed::Sealed {
    /// A number in an error's advice.
    #[doc(hidden)]
    const EXAMPLE: &str;
    #[doc(hidden)]
    const LIMITS: (f64, f64);
    /// What is wrong with a number, if anything.
    #[doc(hidden)]
    fn parse(text: &str) -> Result<f64, String>;
    #[doc(hidden)]
    fn round(value: f64) -> f64;
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "the trait is sealed: nobody outside calls it")]
    fn uniform(range: Range, stream: &mut Stream) -> f64;
}

/// Token counts: whole numbers from 1 to [`MAX_TOKENS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {}

/// Times, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seconds {}

impl Unit for Tokens {
    const EXAMPLE: &str = "1024";
    const LIMITS: (f64, f64) = (1.0, MAX_TOKENS as f64);

    fn parse(text: &str) -> Result<f64, String> {
        match text.parse::<u32>() {
            Ok(tokens) if (1..=MAX_TOKENS).contains(&tokens) => Ok(f64::from(tokens)),
            _ => Err(format!("`{text}` is not a number of tokens: a whole number from 1 to {MAX_TOKENS}")),
        }
    }

    fn round(value: f64) -> f64 {
        value.round()
    }

    #[expect(private_interfaces, reason = "the trait is sealed: nobody outside calls it")]
    fn uniform(range: Range, stream: &mut Stream) -> f64 {
        range.from + stream.below((range.to - range.from) as u64 + 1) as f64
    }
}

impl Unit for Seconds {
    const EXAMPLE: &str = "2s";
    const LIMITS: (f64, f64) = (0.0, MAX_SECONDS);

    fn parse(text: &str) -> Result<f64, String> {
        parse_time(text).map(|time| time.as_secs_f64())
    }

    fn round(value: f64) -> f64 {
        value
    }

    #[expect(private_interfaces, reason = "the trait is sealed: nobody outside calls it")]
    fn uniform(range: Range, stream: &mut Stream) -> f64 {
        range.from + (range.to - range.from) * stream.unit()
    }
}

/// A time with its unit: `250ms`, `1.5s`, `2m`, `1h`; at most 30 days.
///
/// # Errors
/// What is wrong with it.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!("`{text}` is not a time: a number and one of us, ms, s, m, h, such as 1.5s"));
        }
    };
    match number.parse::<f64>() {
        Ok(number) if number * seconds <= MAX_SECONDS => Ok(Duration::from_secs_f64(number * seconds)),
        Ok(_) => Err(format!("`{text}` is over 30 days")),
        Err(_) => Err(format!("`{text}` is not a time: `{number}` is not a number")),
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Tokens {}
    impl Sealed for super::Seconds {}
}
