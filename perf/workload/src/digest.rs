//! The plan's fingerprint.
//!
//! The canonical form is a version line and then numbers in little-endian order, each list and text behind its length, each choice
//! behind its number. It also stands for the content that is made from ids: when that changes, so does the version.

use std::{fmt, time::Duration};

use sha2::Digest as _;

use crate::plan::{Cancel, Fill, Pacing, Piece, Planned, Role, Start, Text};

const VERSION: &[u8] = b"baton workload 1\n";

/// A SHA-256; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

pub(crate) fn digest(requests: &[Planned], texts: &[Text], pacing: Pacing, seed: u64) -> Sha256 {
    let mut writer = Writer(sha2::Sha256::new_with_prefix(VERSION));
    writer.number(seed);
    writer.optional(pacing.concurrency.map(u64::from));
    writer.optional(pacing.max_in_flight.map(u64::from));
    writer.optional(pacing.duration.map(nanoseconds));
    writer.number(texts.len() as u64);
    texts.iter().for_each(|text| writer.text(text));
    writer.number(requests.len() as u64);
    requests.iter().for_each(|request| writer.request(request));
    Sha256(writer.0.finalize().into())
}

struct Writer(sha2::Sha256);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|&number| self.number(number));
    }

    fn optional(&mut self, number: Option<u64>) {
        self.number(u64::from(number.is_some()));
        self.number(number.unwrap_or(0));
    }

    fn text(&mut self, text: &Text) {
        self.number(match text.role {
            Role::System => 0,
            Role::User => 1,
            Role::Assistant => 2,
        });
        self.number(text.text.len() as u64);
        self.0.update(text.text.as_bytes());
    }

    // The index is the place, which the order says.
    fn request(&mut self, request: &Planned) {
        let start = match request.start {
            Start::At(at) => [0, nanoseconds(at), 0],
            Start::WhenFree => [1, 0, 0],
            Start::After { index, think } => [2, u64::from(index), nanoseconds(think)],
        };
        self.numbers(&start);
        self.optional(request.session.map(u64::from));
        self.number(u64::from(request.turn));
        self.number(u64::from(request.output_tokens));
        let cancel = match request.cancel {
            None => [0, 0],
            Some(Cancel::AfterTokens(tokens)) => [1, u64::from(tokens)],
            Some(Cancel::AfterTime(time)) => [2, nanoseconds(time)],
        };
        self.numbers(&cancel);
        self.number(request.prompt.pieces.len() as u64);
        request.prompt.pieces.iter().for_each(|piece| self.piece(piece));
    }

    fn piece(&mut self, piece: &Piece) {
        self.number(piece.id);
        self.number(u64::from(piece.tokens));
        let fill = match piece.fill {
            Fill::Made => [0, 0],
            Fill::Answer { index } => [1, u64::from(index)],
            Fill::Text(id) => [2, u64::from(id.0)],
        };
        self.numbers(&fill);
    }
}

// 584 years are enough.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
