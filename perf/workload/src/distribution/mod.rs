//! Distributions of token counts and of times, written as short texts.

mod histogram;
mod parse;
#[cfg(test)]
mod tests;
mod unit;

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

pub use self::{
    parse::DistributionInvalid,
    unit::{MAX_TOKENS, Seconds, Tokens, Unit, parse_time},
};
use crate::random::{Stream, exp};

/// A distribution of token counts ([`Tokens`], whole numbers from 1) or of times ([`Seconds`], from 0). Written as:
///
/// ```text
/// 1024, fixed:1024                          always this
/// uniform:100-2000                          each alike, both ends included
/// normal:mean=500,stddev=100,min=1,max=900  cut off at min and max: drawn again when outside
/// lognormal:median=350,p99=1100             likewise; p90=, p95= or sigma= (of the logarithm) instead of p99=
/// exponential:mean=500                      likewise
/// histogram:1-100=5,101-200=3,4096=1        ranges and their weights, each value in a range alike
/// file:lengths.txt                          the same in a file, a line each: `1-100 5`; or a value a line, each alike
/// ```
///
/// Times have a unit: `250ms`, `1.5s`, `2m`, `1h`.
#[derive(Clone, PartialEq)]
pub struct Distribution<U> {
    shape: Shape,
    text: Arc<str>,
    unit: PhantomData<U>,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Fixed(f64),
    Uniform(Range),
    Normal { mean: f64, stddev: f64, within: Range },
    LogNormal { median: f64, sigma: f64, within: Range },
    Exponential { mean: f64, within: Range },
    Histogram(Arc<histogram::Histogram>),
}

/// Both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    from: f64,
    to: f64,
}

/// How often a value outside of its range is drawn again, before it is moved to the nearer end.
const ATTEMPTS: u32 = 1000;

impl<U: Unit> Distribution<U> {
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The largest value that can be drawn.
    pub(crate) fn max(&self) -> f64 {
        match &self.shape {
            Shape::Fixed(value) => *value,
            Shape::Uniform(within)
            | Shape::Normal { within, .. }
            | Shape::LogNormal { within, .. }
            | Shape::Exponential { within, .. } => within.to,
            Shape::Histogram(histogram) => histogram.max(),
        }
    }

    fn draw(&self, stream: &mut Stream) -> f64 {
        match &self.shape {
            Shape::Fixed(value) => *value,
            Shape::Uniform(range) => U::uniform(*range, stream),
            Shape::Normal { mean, stddev, within } => {
                within.draw::<U>(stream, |stream| mean + stddev * stream.normal())
            }
            Shape::LogNormal { median, sigma, within } => {
                within.draw::<U>(stream, |stream| median * exp(sigma * stream.normal()))
            }
            Shape::Exponential { mean, within } => {
                within.draw::<U>(stream, |stream| mean * stream.exponential())
            }
            Shape::Histogram(histogram) => U::uniform(histogram.draw(stream), stream),
        }
    }
}

impl Distribution<Tokens> {
    /// Always so many; 0 and more than [`MAX_TOKENS`] become the nearest number that is possible.
    pub fn fixed(tokens: u32) -> Self {
        let tokens = tokens.clamp(1, MAX_TOKENS);
        Self { shape: Shape::Fixed(f64::from(tokens)), text: tokens.to_string().into(), unit: PhantomData }
    }

    pub(crate) fn tokens(&self, stream: &mut Stream) -> u32 {
        self.draw(stream) as u32
    }
}

impl Distribution<Seconds> {
    pub(crate) fn time(&self, stream: &mut Stream) -> Duration {
        Duration::from_secs_f64(self.draw(stream))
    }
}

impl Range {
    fn contains(self, value: f64) -> bool {
        self.from <= value && value <= self.to
    }

    fn draw<U: Unit>(self, stream: &mut Stream, draw: impl Fn(&mut Stream) -> f64) -> f64 {
        let mut value = U::round(draw(stream));
        for _ in 1..ATTEMPTS {
            if self.contains(value) {
                break;
            }
            value = U::round(draw(stream));
        }
        value.clamp(self.from, self.to)
    }
}

impl<U> fmt::Display for Distribution<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<U> fmt::Debug for Distribution<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Distribution({})", self.text)
    }
}
