//! Times of steps: linear pieces, so that many steps can be summed at once.

use serde::{Deserialize, Serialize};

use crate::StepShape;

/// Steps with up to so many tokens of prompts: `fixed + tokens·per_token + pairs·per_pair`, with [pairs](crate::StepShape::pairs).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefillPiece {
    /// Tokens of a step up to which this holds; none: for all beyond the piece before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_tokens: Option<u64>,
    /// For each step, ms.
    pub fixed_ms: f64,
    /// For each token computed, ms.
    pub per_token_ms: f64,
    /// For each pair, ms.
    pub per_pair_ms: f64,
}

/// Steps of up to so many sequences that generate: `fixed + sequences·per_sequence + context tokens·per_context_token`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodePiece {
    /// Sequences up to which this holds; none: for all beyond the piece before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_sequences: Option<u32>,
    /// For each step, ms.
    pub fixed_ms: f64,
    /// For each sequence, ms.
    pub per_sequence_ms: f64,
    /// For each token whose keys and values are read, ms.
    pub per_context_token_ms: f64,
}

/// Steps with prompts. At least one piece, in order, the last without end; all times finite and not negative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<PrefillPiece>", into = "Vec<PrefillPiece>")]
pub struct PrefillTimes(Vec<PrefillPiece>);

/// Steps that only generate. At least one piece, in order, the last without end; all times finite and not negative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<DecodePiece>", into = "Vec<DecodePiece>")]
pub struct DecodeTimes(Vec<DecodePiece>);

/// Pieces that don't say what every step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// There are none.
    #[error("there must be at least one piece")]
    None,
    /// Not in order.
    #[error("piece {at}: pieces must be in order of their ends, and only the last one has none")]
    Order {
        /// Which, from 1.
        at: usize,
    },
    /// Not a time.
    #[error("piece {at}: times must be finite and not negative, and a step must take some time")]
    Time {
        /// Which, from 1.
        at: usize,
    },
}

/// A step that computes this, ms. In one with both, sequences that generate are so many more rows of what is multiplied with the weights: they take what
/// as many tokens of a prompt would take there, and what a step of generation takes beyond that.
#[must_use]
pub fn step_ms(prefill: &PrefillTimes, decode: &DecodeTimes, shape: &StepShape) -> f64 {
    let StepShape { prompt_tokens, pairs, sequences, context_tokens } = *shape;
    match (prompt_tokens, sequences) {
        (0, 0) => 0.0,
        (0, _) => decode.step_ms(sequences, context_tokens),
        (_, 0) => prefill.step_ms(prompt_tokens, pairs),
        _ => {
            let rows = u64::from(sequences);
            let added = prefill.step_ms(rows + prompt_tokens, pairs) - prefill.step_ms(rows, 0.0);
            decode.step_ms(sequences, context_tokens) + added.max(0.0)
        }
    }
}

impl PrefillTimes {
    /// As `pieces` say.
    ///
    /// # Errors
    /// [`PieceError`].
    pub fn try_new(pieces: Vec<PrefillPiece>) -> Result<Self, PieceError> {
        check(
            pieces
                .iter()
                .map(|piece| (piece.up_to_tokens, [piece.fixed_ms, piece.per_token_ms, piece.per_pair_ms])),
        )?;
        Ok(Self(pieces))
    }

    /// The piece for steps of so many tokens.
    #[must_use]
    pub fn piece(&self, tokens: u64) -> &PrefillPiece {
        let holds = |piece: &&PrefillPiece| piece.up_to_tokens.is_none_or(|end| tokens <= end);
        self.0.iter().find(holds).unwrap_or(&self.0[self.0.len() - 1])
    }

    /// A step of `tokens` with `pairs`, ms.
    #[must_use]
    pub fn step_ms(&self, tokens: u64, pairs: f64) -> f64 {
        let piece = self.piece(tokens);
        piece.fixed_ms + piece.per_token_ms * tokens as f64 + piece.per_pair_ms * pairs
    }

    /// All pieces.
    #[must_use]
    pub fn pieces(&self) -> &[PrefillPiece] {
        &self.0
    }
}

impl DecodeTimes {
    /// As `pieces` say.
    ///
    /// # Errors
    /// [`PieceError`].
    pub fn try_new(pieces: Vec<DecodePiece>) -> Result<Self, PieceError> {
        check(pieces.iter().map(|piece| {
            let times = [piece.fixed_ms, piece.per_sequence_ms, piece.per_context_token_ms];
            (piece.up_to_sequences.map(u64::from), times)
        }))?;
        Ok(Self(pieces))
    }

    /// The piece for steps of so many sequences.
    #[must_use]
    pub fn piece(&self, sequences: u32) -> &DecodePiece {
        let holds = |piece: &&DecodePiece| piece.up_to_sequences.is_none_or(|end| sequences <= end);
        self.0.iter().find(holds).unwrap_or(&self.0[self.0.len() - 1])
    }

    /// A step, ms.
    #[must_use]
    pub fn step_ms(&self, sequences: u32, context_tokens: u64) -> f64 {
        let piece = self.piece(sequences);
        piece.fixed_ms
            + piece.per_sequence_ms * f64::from(sequences)
            + piece.per_context_token_ms * context_tokens as f64
    }

    /// All pieces.
    #[must_use]
    pub fn pieces(&self) -> &[DecodePiece] {
        &self.0
    }
}

fn check(pieces: impl ExactSizeIterator<Item = (Option<u64>, [f64; 3])>) -> Result<(), PieceError> {
    let last = pieces.len().checked_sub(1).ok_or(PieceError::None)?;
    let mut before = 0;
    for (index, (end, times)) in pieces.enumerate() {
        let at = index + 1;
        if times.iter().any(|time| !time.is_finite() || *time < 0.0) || times.iter().sum::<f64>() <= 0.0 {
            return Err(PieceError::Time { at });
        }
        match end {
            Some(end) if index < last && end > before => before = end,
            None if index == last => {}
            _ => return Err(PieceError::Order { at }),
        }
    }
    Ok(())
}

impl TryFrom<Vec<PrefillPiece>> for PrefillTimes {
    type Error = PieceError;

    fn try_from(pieces: Vec<PrefillPiece>) -> Result<Self, PieceError> {
        Self::try_new(pieces)
    }
}

impl TryFrom<Vec<DecodePiece>> for DecodeTimes {
    type Error = PieceError;

    fn try_from(pieces: Vec<DecodePiece>) -> Result<Self, PieceError> {
        Self::try_new(pieces)
    }
}

impl From<PrefillTimes> for Vec<PrefillPiece> {
    fn from(times: PrefillTimes) -> Self {
        times.0
    }
}

impl From<DecodeTimes> for Vec<DecodePiece> {
    fn from(times: DecodeTimes) -> Self {
        times.0
    }
}
