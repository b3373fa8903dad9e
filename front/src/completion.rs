//! One completion as text: what its tokens say, up to where it ends.

use std::sync::Arc;

use baton_parsers::{Delta, OutputParser};
use baton_proto::v1::{FinishReason, Token};
use baton_tokenizer::{DetokenizeStream, StopMatcher, Tokenizer};

/// How tokens become the text that is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct TextOptions {
    pub(crate) stop: Vec<String>,
    pub(crate) stop_token_ids: Vec<u32>,
    /// Show the stop string, or the text of the stop token, at the end.
    pub(crate) include_stop: bool,
    pub(crate) skip_special: bool,
    /// Special tokens that are shown all the same: parsers look for them.
    pub(crate) shown_special: Arc<[u32]>,
    pub(crate) ignore_eos: bool,
}

/// What one event adds to a completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Piece {
    /// May be empty: a character or a stop string may be unfinished.
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    /// The text taken apart, where a model's format is; else `None`.
    pub(crate) deltas: Option<Vec<Delta>>,
    pub(crate) end: Option<End>,
}

/// How a completion ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `max_tokens`, or the end of the context.
    Length,
    /// The model ended it.
    Eos,
    /// The model ended it, and called tools.
    ToolCalls,
    /// One of the client's stop tokens.
    StopToken(u32),
    /// One of the client's stop strings.
    StopString(String),
}

impl End {
    /// OpenAI's `finish_reason`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Eos | Self::StopToken(_) | Self::StopString(_) => "stop",
        }
    }
}

/// A completion's text as it grows.
pub(crate) struct CompletionText {
    detokenizer: DetokenizeStream,
    matcher: StopMatcher,
    options: Arc<TextOptions>,
    tokenizer: Arc<Tokenizer>,
    last_token: Option<u32>,
}

impl CompletionText {
    pub(crate) fn new(tokenizer: Arc<Tokenizer>, prompt: &[u32], options: Arc<TextOptions>) -> Self {
        Self {
            detokenizer: DetokenizeStream::new(tokenizer.clone(), prompt, options.skip_special)
                .showing(options.shown_special.clone()),
            matcher: StopMatcher::new(&options.stop, options.include_stop),
            options,
            tokenizer,
            last_token: None,
        }
    }

    /// Takes tokens. With an end in the answer a stop string is complete: what comes after its token does not count.
    pub(crate) fn push(&mut self, tokens: Vec<Token>) -> Piece {
        let mut piece = Piece { tokens: Vec::with_capacity(tokens.len()), ..Piece::default() };
        for token in tokens {
            let mut delta = String::new();
            self.last_token = Some(token.id);
            if self.options.include_stop || !self.is_terminator(token.id) {
                self.detokenizer.push(token.id, &mut delta);
            }
            piece.tokens.push(token);
            if let Some(found) = self.matcher.push(&delta, &mut piece.text) {
                piece.end = Some(End::StopString(self.options.stop[found.stop].clone()));
                break;
            }
        }
        piece
    }

    /// The workers are done: what was held back is shown now.
    pub(crate) fn finish(&mut self, reason: FinishReason) -> Piece {
        let mut delta = String::new();
        self.detokenizer.finish(&mut delta);
        let mut piece = Piece::default();
        if let Some(found) = self.matcher.push(&delta, &mut piece.text) {
            piece.end = Some(End::StopString(self.options.stop[found.stop].clone()));
            return piece;
        }
        self.matcher.finish(&mut piece.text);
        piece.end = Some(match (reason, self.last_token) {
            (FinishReason::Length, _) => End::Length,
            (_, Some(id)) if self.options.stop_token_ids.contains(&id) => End::StopToken(id),
            _ => End::Eos,
        });
        piece
    }

    /// A token that ends the completion: the last one, and not part of the text.
    fn is_terminator(&self, id: u32) -> bool {
        self.options.stop_token_ids.contains(&id)
            || (!self.options.ignore_eos && self.tokenizer.eos_ids().contains(&id))
    }
}

impl Piece {
    /// Takes the text apart, of a model whose format is known.
    pub(crate) fn parse(&mut self, parser: &mut OutputParser) {
        let mut deltas = parser.push(&self.text);
        if self.end.is_some() {
            deltas.extend(parser.finish());
        }
        if matches!(self.end, Some(End::Eos | End::StopToken(_))) && parser.has_calls() {
            self.end = Some(End::ToolCalls);
        }
        self.deltas = Some(deltas);
    }
}
