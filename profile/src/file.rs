//! Profiles as files.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Profile;

/// What a profile's file says it is.
pub const FORMAT: &str = "baton-profile";
/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 2;

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no profile.
    #[error("{}:{}: {source}; a profile is JSON of format \"{FORMAT}\", version {VERSION}, without unknown keys (docs/tuning.md)", path.display(), source.line())]
    Json {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// Of another format or version.
    #[error("{}: this is \"{format}\", version {version}, but \"{FORMAT}\", version {VERSION} is needed; measure or estimate it again", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its format.
        format: String,
        /// Its version.
        version: u32,
    },
    /// A number that can't be.
    #[error("{}: {source}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which number.
        source: ValueError,
    },
}

/// A number that can't be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("`{field}` is {value}, but must be {must}")]
pub struct ValueError {
    /// Which field.
    pub field: &'static str,
    /// What it says.
    pub value: f64,
    /// What it must be.
    pub must: &'static str,
}

/// A file: format and version first, then the profile's own fields.
#[derive(Serialize)]
struct Written<'a> {
    format: &'static str,
    version: u32,
    #[serde(flatten)]
    profile: &'a Profile,
}

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

impl Profile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Io { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads `text`, which came from `path`.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ProfileError> {
        let json = |source| ProfileError::Json { path: path.to_owned(), source };
        let Head { format, version } = serde_json::from_str(text).map_err(json)?;
        if (format.as_str(), version) != (FORMAT, VERSION) {
            return Err(ProfileError::Version { path: path.to_owned(), format, version });
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(rename = "format")]
            _format: String,
            #[serde(rename = "version")]
            _version: u32,
            name: String,
            source: super::Source,
            prefill: super::PrefillTimes,
            decode: super::DecodeTimes,
            transfer: super::Transfer,
            kv: super::KvMemory,
            #[serde(default)]
            limits: super::Limits,
            #[serde(default)]
            overhead: super::Overhead,
            #[serde(default)]
            startup_s: f64,
        }
        let file: File = serde_json::from_str(text).map_err(json)?;
        let profile = Self {
            name: file.name,
            source: file.source,
            prefill: file.prefill,
            decode: file.decode,
            transfer: file.transfer,
            kv: file.kv,
            limits: file.limits,
            overhead: file.overhead,
            startup_s: file.startup_s,
        };
        profile.check().map_err(|source| ProfileError::Value { path: path.to_owned(), source })?;
        Ok(profile)
    }

    /// As a file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let written = Written { format: FORMAT, version: VERSION, profile: self };
        serde_json::to_string_pretty(&written).unwrap_or_default() + "\n"
    }

    /// Whether all numbers can be, as in a file that was read.
    ///
    /// # Errors
    /// The first one that can't.
    pub fn check(&self) -> Result<(), ValueError> {
        let Self { transfer, kv, limits, overhead, .. } = self;
        let not_negative = [
            ("transfer.latency_ms", transfer.latency_ms),
            ("transfer.per_piece_us", transfer.per_piece_us),
            ("overhead.request_ms", overhead.request_ms),
            ("overhead.call_ms", overhead.call_ms),
            ("startup_s", self.startup_s),
        ];
        let positive = [
            ("transfer.bytes_per_second", transfer.bytes_per_second),
            ("transfer.pieces_per_block", f64::from(transfer.pieces_per_block)),
            ("transfer.layer_groups", f64::from(transfer.layer_groups)),
            ("kv.bytes_per_token", kv.bytes_per_token),
            ("kv.block_tokens", f64::from(kv.block_tokens)),
            ("limits.step_tokens", f64::from(limits.step_tokens)),
            ("limits.mixed_prompt_tokens", f64::from(limits.mixed_prompt_tokens.unwrap_or(1))),
            ("limits.running", f64::from(limits.running)),
            ("limits.growth_tokens", f64::from(limits.growth_tokens)),
        ];
        for (field, value) in not_negative {
            if !value.is_finite() || value < 0.0 {
                return Err(ValueError { field, value, must: "finite and not negative" });
            }
        }
        for (field, value) in positive {
            if !value.is_finite() || value <= 0.0 {
                return Err(ValueError { field, value, must: "more than 0" });
            }
        }
        if kv.blocks() == 0 || kv.blocks() > u64::from(u32::MAX / 2) {
            return Err(ValueError {
                field: "kv.capacity_tokens",
                value: kv.capacity_tokens as f64,
                must: "from one to two billion blocks",
            });
        }
        Ok(())
    }
}
