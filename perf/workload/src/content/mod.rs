//! From pieces to what is sent: token ids ([`IdContent`]) or texts ([`TextContent`]).
//!
//! Content depends on the seed and on pieces' ids and lengths alone: equal pieces say the same wherever they are, and the shorter of two
//! pieces with one id is the beginning of the longer. Two pieces say different things from their first token (word) on, as long as
//! their ids are closer to each other than the vocabulary is large; beyond that from the second or third on. So a server's prefix cache
//! finds what the plan says, and nothing else.

mod count;
mod ids;
mod pattern;
#[cfg(test)]
mod tests;
mod text;
mod words;

pub use self::{
    count::{CountTokens, Estimate},
    ids::{IdContent, TextWithoutTokenizer, VocabularyTooSmall},
    text::{CountCheck, Message, TextContent},
};
