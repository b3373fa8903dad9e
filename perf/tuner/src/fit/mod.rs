//! Profiles from measurements: least squares of relative errors with coefficients that are not negative, in up to four pieces, and what is left unexplained.

mod least_squares;

use baton_profile::{
    DecodePiece, DecodeTimes, PieceError, PrefillPiece, PrefillTimes, StepShape, Transfer, step_ms,
};
use serde::{Deserialize, Serialize};

pub use least_squares::Residuals;
use least_squares::{Fitted, Row, in_pieces, single};

/// A step of an engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRecord {
    /// What it computed.
    pub shape: StepShape,
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
    /// Of steps that only computed prompts.
    pub prefill_residuals: Residuals,
    /// Of steps that only generated.
    pub decode_residuals: Residuals,
    /// Of steps that did both, to which nothing is fitted; none, if there were none.
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
    let such = |prompts: bool, generation: bool| {
        let is_such = move |record: &&StepRecord| {
            (record.shape.prompt_tokens > 0, record.shape.sequences > 0) == (prompts, generation)
        };
        records.iter().filter(is_such)
    };
    let (prefill, prefill_residuals) = prefill(such(true, false))?;
    let (decode, decode_residuals) = decode(such(false, true))?;
    let error = |record: &StepRecord| {
        let ms = step_ms(&prefill, &decode, &record.shape);
        (ms / (record.seconds * 1e3) - 1.0).abs()
    };
    let mixed_residuals = Residuals::new(such(true, true).map(error).collect());
    Ok(StepTimes { prefill, decode, prefill_residuals, decode_residuals, mixed_residuals })
}

fn prefill<'a>(records: impl Iterator<Item = &'a StepRecord>) -> Result<(PrefillTimes, Residuals), FitError> {
    let what = "steps with prompts";
    let rows = records.map(|record| Row {
        size: record.shape.prompt_tokens,
        features: [1.0, record.shape.prompt_tokens as f64, record.shape.pairs],
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
        size: u64::from(record.shape.sequences),
        features: [1.0, f64::from(record.shape.sequences), record.shape.context_tokens as f64],
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
