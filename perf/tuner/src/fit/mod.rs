//! Profiles from measurements: least squares of relative errors with coefficients that are not negative, in one or two pieces, and what is left unexplained.

mod least_squares;

use baton_simulator::profile::{DecodePiece, DecodeTimes, PieceError, PrefillPiece, PrefillTimes, Transfer};
use serde::{Deserialize, Serialize};

pub use least_squares::Residuals;
use least_squares::{Fitted, Row, in_pieces, single};

/// A prompt that was computed alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefillRecord {
    /// Tokens computed.
    pub new_tokens: u64,
    /// Tokens before them that were cached.
    pub cached_tokens: u64,
    /// What it took.
    pub seconds: f64,
}

/// A step that only generated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeRecord {
    /// Sequences of the step.
    pub sequences: u32,
    /// Tokens that they had, together.
    pub context_tokens: u64,
    /// What it took.
    pub seconds: f64,
}

/// A transfer on a link that did nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRecord {
    /// Bytes moved.
    pub bytes: u64,
    /// Pieces that they were in.
    pub pieces: u64,
    /// From the first write to "all is here".
    pub seconds: f64,
}

/// Records that give no times.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// Too few, or all alike.
    #[error(
        "{what}: {usable} usable records of different sizes, at least {needed} are needed; measure more sizes"
    )]
    TooFew {
        /// Of what.
        what: &'static str,
        /// How many there are.
        usable: usize,
        /// How many there must be.
        needed: usize,
    },
    /// A record that can't be.
    #[error("{what}: record {record} says it took {seconds} s; a time is more than 0 and finite")]
    Time {
        /// Of what.
        what: &'static str,
        /// Which, from 1.
        record: usize,
        /// What it says.
        seconds: f64,
    },
    /// What was found gives no times.
    #[error("{what}: {source}; the records contradict each other")]
    Pieces {
        /// Of what.
        what: &'static str,
        /// Why.
        source: PieceError,
    },
    /// More bytes take no longer.
    #[error("transfers: the records show no bandwidth, as more bytes take no longer; measure larger ones")]
    NoBandwidth,
}

/// Times of steps with prompts, from prompts that were computed in steps of at most `step_tokens` tokens.
///
/// # Errors
/// [`FitError`].
pub fn prefill(records: &[PrefillRecord], step_tokens: u32) -> Result<(PrefillTimes, Residuals), FitError> {
    let what = "prompts";
    let chunk = u64::from(step_tokens.max(1));
    let rows = records.iter().map(|record| {
        let (new, cached) = (record.new_tokens as f64, record.cached_tokens as f64);
        Row {
            size: record.new_tokens.min(chunk),
            features: [record.new_tokens.div_ceil(chunk) as f64, new, new * (cached + new / 2.0)],
            value: record.seconds * 1e3,
        }
    });
    let fitted = in_pieces(what, &rows.collect::<Vec<_>>())?;
    let piece = |(end, [fixed_ms, per_token_ms, per_pair_ms]): (Option<u64>, [f64; 3])| PrefillPiece {
        up_to_tokens: end,
        fixed_ms,
        per_token_ms,
        per_pair_ms,
    };
    let times = PrefillTimes::try_new(fitted.pieces.iter().copied().map(piece).collect());
    Ok((times.map_err(|source| FitError::Pieces { what, source })?, fitted.residuals))
}

/// Times of steps that only generate.
///
/// # Errors
/// [`FitError`].
pub fn decode(records: &[DecodeRecord]) -> Result<(DecodeTimes, Residuals), FitError> {
    let what = "steps";
    let rows = records.iter().map(|record| Row {
        size: u64::from(record.sequences),
        features: [1.0, f64::from(record.sequences), record.context_tokens as f64],
        value: record.seconds * 1e3,
    });
    let fitted = in_pieces(what, &rows.collect::<Vec<_>>())?;
    let piece =
        |(end, [fixed_ms, per_sequence_ms, per_context_token_ms]): (Option<u64>, [f64; 3])| DecodePiece {
            up_to_sequences: end.map(|end| end as u32),
            fixed_ms,
            per_sequence_ms,
            per_context_token_ms,
        };
    let times = DecodeTimes::try_new(fitted.pieces.iter().copied().map(piece).collect());
    Ok((times.map_err(|source| FitError::Pieces { what, source })?, fitted.residuals))
}

/// What moving blocks takes; how blocks are cut and how layers are grouped is `like`'s.
///
/// # Errors
/// [`FitError`].
pub fn transfer(records: &[TransferRecord], like: Transfer) -> Result<(Transfer, Residuals), FitError> {
    let rows: Vec<Row> = records
        .iter()
        .map(|record| Row {
            size: record.bytes,
            features: [1.0, record.bytes as f64, record.pieces as f64],
            value: record.seconds * 1e3,
        })
        .collect();
    let Fitted { pieces, residuals } = single("transfers", &rows)?;
    let [latency_ms, per_byte_ms, per_piece_ms] = pieces[0].1;
    if per_byte_ms <= 0.0 {
        return Err(FitError::NoBandwidth);
    }
    let bytes_per_second = 1e3 / per_byte_ms;
    Ok((Transfer { latency_ms, bytes_per_second, per_piece_us: per_piece_ms * 1e3, ..like }, residuals))
}
