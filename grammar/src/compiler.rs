//! From a grammar's text to a [`Grammar`], under limits.

use std::{fmt, sync::Arc};

use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
    earley::SlicedBiasComputer,
    toktrie::InferenceCapabilities,
};

use crate::{Grammar, GrammarError, Vocabulary};

/// Longest text of a grammar that is taken.
pub const MAX_SOURCE_BYTES: usize = 256 << 10;

/// Compiles grammars for one vocabulary.
pub(crate) struct Compiler {
    factory: ParserFactory,
}

impl Compiler {
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<Self, GrammarError> {
        // The front learns about a refused grammar from the error; nothing is printed.
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&vocabulary.env, InferenceCapabilities::default(), &slices)
            .map_err(|_| GrammarError::Unsupported("its vocabulary can't be cut into slices"))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self { factory })
    }

    /// CPU work: milliseconds for what is usual.
    pub(crate) fn compile(&self, source: &Arc<str>) -> Result<Grammar, GrammarError> {
        check_length(source)?;
        let parser = self.factory.create_parser(TopLevelGrammar::from_lark(source.to_string()));
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            None => Ok(Grammar::new(source.clone(), matcher)),
            Some(error) => Err(GrammarError::Invalid(plain(&error))),
        }
    }
}

pub(crate) fn check_length(source: &str) -> Result<(), GrammarError> {
    let (bytes, limit) = (source.len(), MAX_SOURCE_BYTES);
    if bytes > limit { Err(GrammarError::TooLong { bytes, limit }) } else { Ok(()) }
}

/// llguidance's own, with less memory: a state of the lexer takes up to 2 kB, and each sequence has its own lexer.
fn limits() -> ParserLimits {
    ParserLimits { max_lexer_states: 32_000, verbose_errors: false, ..ParserLimits::default() }
}

/// The first lines of an error, without what is for llguidance's own developers.
pub(crate) fn plain(error: &dyn fmt::Display) -> String {
    const MOST_CHARS: usize = 500;
    let text = error.to_string();
    let text = text.split("\n<").next().unwrap_or_default().trim();
    text.chars().take(MOST_CHARS).collect()
}
