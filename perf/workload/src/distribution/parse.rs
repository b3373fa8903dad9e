//! Distributions from their texts.

use std::{fs, marker::PhantomData, str::FromStr, sync::Arc};

use super::{Distribution, Range, Shape, Unit, histogram::Histogram};
use crate::random::ln;

/// A text that is not a distribution.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a distribution: {problem}")]
pub struct DistributionInvalid {
    /// As it was written.
    pub text: String,
    /// What is wrong, and how to write it.
    pub problem: String,
}

impl<U: Unit> FromStr for Distribution<U> {
    type Err = DistributionInvalid;

    /// Reads a file for `file:`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape =
            parse::<U>(text).map_err(|problem| DistributionInvalid { text: text.to_owned(), problem })?;
        Ok(Self { shape, text: text.into(), unit: PhantomData })
    }
}

fn parse<U: Unit>(text: &str) -> Result<Shape, String> {
    let Some((kind, rest)) = text.split_once(':') else {
        return match U::parse(text) {
            Ok(value) => Ok(Shape::Fixed(value)),
            Err(problem) if text.starts_with(|c: char| c.is_ascii_digit()) => Err(problem),
            Err(_) => Err(unknown::<U>()),
        };
    };
    match kind {
        "fixed" => U::parse(rest).map(Shape::Fixed),
        "uniform" => range::<U>(rest).map(Shape::Uniform),
        "normal" => normal::<U>(rest),
        "lognormal" => lognormal::<U>(rest),
        "exponential" => exponential::<U>(rest),
        "histogram" => histogram(rest.split(','), bin::<U>),
        "file" => file::<U>(rest),
        _ => Err(unknown::<U>()),
    }
}

fn unknown<U: Unit>() -> String {
    format!(
        "write {}, or one of fixed:, uniform:, normal:, lognormal:, exponential:, histogram:, file:",
        U::EXAMPLE
    )
}

/// `100-2000`, or one value.
fn range<U: Unit>(text: &str) -> Result<Range, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let range = Range { from: U::parse(from)?, to: U::parse(to)? };
    if range.from > range.to { Err(format!("{from} is over {to}")) } else { Ok(range) }
}

fn normal<U: Unit>(text: &str) -> Result<Shape, String> {
    let mut fields = Fields::of(text)?;
    let mean = fields.take("mean").ok_or("mean= is missing").map(U::parse)??;
    let stddev = fields.take("stddev").ok_or("stddev= is missing").map(U::parse)??;
    Ok(Shape::Normal { mean, stddev, within: fields.within::<U>("mean", mean)? })
}

fn lognormal<U: Unit>(text: &str) -> Result<Shape, String> {
    let mut fields = Fields::of(text)?;
    let median = fields.take("median").ok_or("median= is missing").map(U::parse)??;
    if median <= 0.0 {
        return Err("median must be over 0".into());
    }
    let sigma = sigma::<U>(&mut fields, median)?;
    Ok(Shape::LogNormal { median, sigma, within: fields.within::<U>("median", median)? })
}

/// The standard deviation of the logarithm, as such or by a percentile.
fn sigma<U: Unit>(fields: &mut Fields<'_>, median: f64) -> Result<f64, String> {
    // Percentiles of the standard normal distribution.
    let percentiles =
        [("p90", 1.281_551_565_544_6), ("p95", 1.644_853_626_951_47), ("p99", 2.326_347_874_040_84)];
    let by_percentile = percentiles.iter().find_map(|&(name, z)| Some((name, z, fields.take(name)?)));
    match (by_percentile, fields.take("sigma")) {
        (Some((name, z, text)), None) => {
            let value = U::parse(text)?;
            if value < median {
                Err(format!("{name} is under the median"))
            } else {
                Ok(ln(value / median) / z)
            }
        }
        (None, Some(sigma)) => match sigma.parse::<f64>() {
            Ok(sigma) if (0.0..=10.0).contains(&sigma) => Ok(sigma),
            _ => Err(format!("sigma is `{sigma}`: it must be a number from 0 to 10")),
        },
        _ => Err("say one of p90=, p95=, p99=, sigma=".into()),
    }
}

fn exponential<U: Unit>(text: &str) -> Result<Shape, String> {
    let mut fields = Fields::of(text)?;
    let mean = fields.take("mean").ok_or("mean= is missing").map(U::parse)??;
    Ok(Shape::Exponential { mean, within: fields.within::<U>("mean", mean)? })
}

/// `1-100=5`
fn bin<U: Unit>(text: &str) -> Result<(Range, f64), String> {
    let (values, weight) =
        text.split_once('=').ok_or_else(|| format!("`{text}` has no weight: write 1-100=5"))?;
    Ok((range::<U>(values)?, self::weight(weight)?))
}

/// `1-100 5`, or a value alone, which weighs 1.
fn line<U: Unit>(text: &str) -> Result<(Range, f64), String> {
    match text.split_once(char::is_whitespace) {
        Some((values, weight)) => Ok((range::<U>(values)?, self::weight(weight.trim())?)),
        None => Ok((range::<U>(text)?, 1.0)),
    }
}

fn weight(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(weight) if weight >= 0.0 && weight.is_finite() => Ok(weight),
        _ => Err(format!("`{text}` is not a weight: a number from 0")),
    }
}

fn histogram<'a>(
    texts: impl Iterator<Item = &'a str>,
    bin: impl Fn(&str) -> Result<(Range, f64), String>,
) -> Result<Shape, String> {
    let bins: Vec<_> = texts.map(bin).collect::<Result<_, _>>()?;
    Ok(Shape::Histogram(Arc::new(Histogram::try_new(bins)?)))
}

fn file<U: Unit>(path: &str) -> Result<Shape, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let lines = text.lines().map(str::trim).enumerate();
    let bins = lines
        .filter(|(_, text)| !text.is_empty() && !text.starts_with('#'))
        .map(|(number, text)| line::<U>(text).map_err(|problem| format!("{path}:{}: {problem}", number + 1)));
    let bins: Vec<_> = bins.collect::<Result<_, _>>()?;
    let histogram = Histogram::try_new(bins).map_err(|problem| format!("{path}: {problem}"))?;
    Ok(Shape::Histogram(Arc::new(histogram)))
}

/// `mean=500,stddev=100`
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    fn of(text: &'a str) -> Result<Self, String> {
        let mut fields: Vec<(&str, &str)> = Vec::new();
        for field in text.split(',') {
            let (name, value) =
                field.split_once('=').ok_or_else(|| format!("`{field}` is not name=value"))?;
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(format!("{name}= is there twice"));
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let place = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.swap_remove(place).1)
    }

    /// The last to be taken: what is left then is unknown.
    fn within<U: Unit>(mut self, centre: &str, value: f64) -> Result<Range, String> {
        let (min, max) = U::LIMITS;
        let from = self.take("min").map_or(Ok(min), U::parse)?;
        let to = self.take("max").map_or(Ok(max), U::parse)?;
        if let Some((name, _)) = self.0.first() {
            return Err(format!("{name}= is unknown here"));
        }
        let within = Range { from, to };
        if within.contains(value) { Ok(within) } else { Err(format!("the {centre} is not from min to max")) }
    }
}
