//! The operations of one kind that wait to be one request.

use super::notification::{self, MAX_IMMEDIATES};
use super::request::{Operation, Piece};

pub(super) struct Batch {
    pub(super) operation: Operation,
    pub(super) pieces: Vec<Piece>,
    pub(super) contexts: Vec<u32>,
    immediates: Vec<u32>,
}

impl Batch {
    pub(super) fn new(operation: Operation) -> Self {
        Self { operation, pieces: Vec::new(), contexts: Vec::new(), immediates: Vec::new() }
    }

    pub(super) fn add(&mut self, piece: Piece, immediate: u32, context: u32) {
        self.pieces.push(piece);
        self.contexts.push(context);
        self.immediates.push(immediate);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// No more fit into one request.
    pub(super) fn is_full(&self) -> bool {
        self.pieces.len() >= MAX_IMMEDIATES
    }

    /// The message that follows the bytes. A read has none: its peer is not told.
    pub(super) fn notification(&self, message: &mut Vec<u8>) {
        message.clear();
        if self.operation == Operation::Write {
            notification::encode(&self.immediates, message);
        }
    }

    /// Empties it; the contexts of what was in it.
    pub(super) fn take(&mut self) -> Vec<u32> {
        self.pieces.clear();
        self.immediates.clear();
        std::mem::take(&mut self.contexts)
    }
}
