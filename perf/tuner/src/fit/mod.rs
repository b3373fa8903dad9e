//! Profiles from measurements: least squares of relative errors with coefficients that are not negative, in up to four pieces, and what is left unexplained.

mod least_squares;
mod mixed;

use baton_simulator::profile::{DecodePiece, DecodeTimes, PieceError, PrefillPiece, PrefillTimes, Transfer};
use serde::{Deserialize, Serialize};

pub use least_squares::Residuals;
use least_squares::{Fitted, Row, in_pieces, single};

/// A step of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// Tokens of prompts that it computed.
    pub prompt_tokens: u64,
    /// Of each prompt's new tokens with those before them: `new * (cached + new / 2)`, summed.
    pub pairs: f64,
    /// Sequences that generated a token.
    pub sequences: u32,
    /// Tokens that those had, together.
    pub context_tokens: u64,
    /// What it took.
    pub seconds: f64,
}

/// Times of steps, and how far they are from what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTimes {
    /// Of steps with prompts.
    pub prefill: PrefillTimes,
    /// Of steps that only generate.
    pub decode: DecodeTimes,
    /// As [`Profile::mixed_hidden`](baton_simulator::Profile::mixed_hidden).
    pub mixed_hidden: f64,
    /// Of steps that only computed prompts.
    pub prefill_residuals: Residuals,
    /// Of steps that only generated.
    pub decode_residuals: Residuals,
    /// Of steps that did both; none, if there were none.
    pub mixed_residuals: Option<Residuals>,
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

/// Times of steps.
///
/// # Errors
/// [`FitError`].
pub fn steps(records: &[StepRecord]) -> Result<StepTimes, FitError> {
    let only = |prompts: bool| {
        let is_such = move |record: &&StepRecord| {
            (record.prompt_tokens > 0, record.sequences > 0) == (prompts, !prompts)
        };
        records.iter().filter(is_such)
    };
    let (prefill, prefill_residuals) = prefill(only(true))?;
    let (decode, decode_residuals) = decode(only(false))?;
    let mixed = records.iter().filter(|record| record.prompt_tokens > 0 && record.sequences > 0);
    let (mixed_hidden, mixed_residuals) = mixed::hidden(mixed, &prefill, &decode);
    Ok(StepTimes { prefill, decode, mixed_hidden, prefill_residuals, decode_residuals, mixed_residuals })
}

fn prefill<'a>(records: impl Iterator<Item = &'a StepRecord>) -> Result<(PrefillTimes, Residuals), FitError> {
    let what = "steps with prompts";
    let rows = records.map(|record| Row {
        size: record.prompt_tokens,
        features: [1.0, record.prompt_tokens as f64, record.pairs],
        value: record.seconds * 1e3,
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

fn decode<'a>(records: impl Iterator<Item = &'a StepRecord>) -> Result<(DecodeTimes, Residuals), FitError> {
    let what = "steps of generation";
    let rows = records.map(|record| Row {
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
