//! The YAML file. Everything in it is optional; what is unknown is refused, with its line and what is allowed.
//!
//! ```yaml
//! filters:                       # instead of the default ones
//!   - name: drain
//!   - name: failed
//!     avoid-ms: 1000
//!   - name: label
//!     key: gpu
//!     value: h200
//! scorers:                       # instead of the estimate alone
//!   - name: estimate
//!   - name: session
//!     weight: 2
//! point-ms: 100                  # what a whole point of the other scorers is worth beside the estimate
//! picker:
//!   name: near-best
//!   within-ms: 5
//! disaggregate:
//!   threshold: 512               # or estimate, always, never
//! ```

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{
    Disaggregate, Filter, Picker, Profile,
    names::{FILTERS, Kind, PICKERS, SCORERS},
};
use crate::{
    estimate::{Term, Terms},
    view::Ms,
};

/// A point is worth as much as this much waiting, unless the file says otherwise.
const POINT_MS: Ms = 100.0;

/// A file that is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProfileError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    filters: Option<Vec<Plugin>>,
    scorers: Option<Vec<Plugin>>,
    picker: Option<Plugin>,
    disaggregate: Option<Mode>,
    point_ms: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Estimate,
    Always,
    Never,
    Threshold(u64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Plugin {
    name: Spanned<String>,
    weight: Option<Spanned<f64>>,
    avoid_ms: Option<Spanned<f64>>,
    min_share: Option<Spanned<f64>>,
    within_ms: Option<Spanned<f64>>,
    key: Option<String>,
    value: Option<String>,
}

/// Reads a profile.
///
/// # Errors
/// [`ProfileError`]: says the line, and what is allowed there.
pub fn parse(text: &str) -> Result<Profile, ProfileError> {
    let file: File = if text.trim().is_empty() {
        return Ok(Profile::default());
    } else {
        serde_saphyr::from_str(text).map_err(|error| ProfileError(error.to_string()))?
    };
    let default = Profile::default();
    let point_ms = file.point_ms.as_ref().map_or(Ok(POINT_MS), not_negative)?;
    Ok(Profile {
        filters: match file.filters {
            Some(plugins) => plugins.iter().map(filter).collect::<Result<_, _>>()?,
            None => default.filters,
        },
        weights: match file.scorers {
            Some(plugins) => weights(&plugins, point_ms)?,
            None => default.weights,
        },
        picker: file.picker.as_ref().map_or(Ok(default.picker), picker)?,
        disaggregate: match file.disaggregate {
            None | Some(Mode::Estimate) => Disaggregate::Estimate,
            Some(Mode::Always) => Disaggregate::Always,
            Some(Mode::Never) => Disaggregate::Never,
            Some(Mode::Threshold(uncached_tokens)) => Disaggregate::Threshold { uncached_tokens },
        },
    })
}

fn filter(plugin: &Plugin) -> Result<Filter, ProfileError> {
    let name = plugin.resolve(Kind::Filter)?;
    plugin.only(name, parameters(&FILTERS, name))?;
    Ok(match name {
        "failed" => Filter::Failed { avoid_ms: plugin.number("avoid-ms", plugin.avoid_ms.as_ref())? },
        "label" => Filter::Label {
            key: plugin.text("key", plugin.key.as_ref())?,
            value: plugin.text("value", plugin.value.as_ref())?,
        },
        "prefix" => Filter::Prefix { min_share: plugin.number("min-share", plugin.min_share.as_ref())? },
        "drain" => Filter::Drain,
        "subset" => Filter::Subset,
        "capacity" => Filter::Capacity,
        "adapter" => Filter::Adapter,
        _ => Filter::RequestLabels,
    })
}

fn picker(plugin: &Plugin) -> Result<Picker, ProfileError> {
    let name = plugin.resolve(Kind::Picker)?;
    plugin.only(name, parameters(&PICKERS, name))?;
    Ok(match name {
        "near-best" => Picker::NearBest { within_ms: plugin.number("within-ms", plugin.within_ms.as_ref())? },
        "power-of-two" => Picker::PowerOfTwo,
        _ => Picker::Best,
    })
}

fn weights(plugins: &[Plugin], point_ms: Ms) -> Result<Terms, ProfileError> {
    let mut weights = Terms::default();
    let mut seen = Vec::new();
    for plugin in plugins {
        let name = plugin.resolve(Kind::Scorer)?;
        plugin.only(name, &["weight"])?;
        if seen.contains(&name) {
            return Err(at(&plugin.name, format!("scorer {name} is there twice: remove one")));
        }
        seen.push(name);
        let weight = plugin.weight.as_ref().map_or(Ok(1.0), not_negative)?;
        let terms = SCORERS.iter().find(|scorer| scorer.0 == name).map_or(&[][..], |scorer| scorer.1);
        for &term in terms {
            let unit = if Term::ESTIMATE.contains(&term) { 1.0 } else { point_ms };
            weights.set(term, weight * unit);
        }
    }
    Ok(weights)
}

impl Plugin {
    fn resolve(&self, kind: Kind) -> Result<&'static str, ProfileError> {
        kind.resolve(&self.name.value).ok_or_else(|| {
            let (name, word) = (&self.name.value, kind.word());
            at(&self.name, format!("there is no {word} {name:?}; there are {}", kind.allowed()))
        })
    }

    // A parameter of another plugin is as wrong as an unknown one.
    fn only(&self, name: &str, allowed: &[&str]) -> Result<(), ProfileError> {
        let given = [
            ("weight", self.weight.is_some()),
            ("avoid-ms", self.avoid_ms.is_some()),
            ("min-share", self.min_share.is_some()),
            ("within-ms", self.within_ms.is_some()),
            ("key", self.key.is_some()),
            ("value", self.value.is_some()),
        ];
        match given.iter().find(|(given, is_given)| *is_given && !allowed.contains(given)) {
            None => Ok(()),
            Some((wrong, _)) if allowed.is_empty() => {
                Err(at(&self.name, format!("{name} has no {wrong}: it has no parameters")))
            }
            Some((wrong, _)) => {
                Err(at(&self.name, format!("{name} has no {wrong}; it has {}", allowed.join(", "))))
            }
        }
    }

    fn number(&self, what: &str, value: Option<&Spanned<f64>>) -> Result<f64, ProfileError> {
        value.map_or_else(|| Err(self.lacks(what)), not_negative)
    }

    fn text(&self, what: &str, value: Option<&String>) -> Result<String, ProfileError> {
        value.cloned().ok_or_else(|| self.lacks(what))
    }

    fn lacks(&self, what: &str) -> ProfileError {
        at(&self.name, format!("{} needs {what}", self.name.value))
    }
}

fn parameters(plugins: &[(&str, &'static [&'static str])], name: &str) -> &'static [&'static str] {
    plugins.iter().find(|plugin| plugin.0 == name).map_or(&[], |plugin| plugin.1)
}

fn not_negative(value: &Spanned<f64>) -> Result<f64, ProfileError> {
    if value.value.is_finite() && value.value >= 0.0 {
        return Ok(value.value);
    }
    Err(at(value, format!("{} is no number from 0 on", value.value)))
}

fn at<T>(place: &Spanned<T>, message: String) -> ProfileError {
    ProfileError(format!("line {}: {message}", place.referenced.line()))
}
