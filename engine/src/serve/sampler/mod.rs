//! From logits to a token, the same on every worker.
//!
//! In vLLM's order: `logit_bias`; no end before `min_tokens`; repetition, frequency and presence penalty; what the grammar
//! allows; then greedy, or temperature, `min_p`, `top_k`, `top_p` and a draw. Log-probabilities are of the raw logits.
//!
//! The draw for output index `i` depends on `(seed, i)` alone, and all arithmetic that decides is plain IEEE addition,
//! multiplication and division in a fixed order: neither batch neighbours nor the machine change the choice.

mod adjust;
mod draw;
mod filter;
mod logprobs;
mod math;

use baton_grammar::{GrammarBroken, GrammarState};

use super::{GeneratedToken, SamplingParams, SequenceFailure};
use adjust::History;
use filter::Candidate;

/// Temperatures below this are greedy, as in vLLM.
const GREEDY_BELOW: f32 = 1e-5;

/// Chooses the tokens of one sequence.
pub(super) struct Sampler {
    params: SamplingParams,
    /// Tokens that end the output.
    ends: Vec<u32>,
    /// Tokens that may not come before `min_tokens`.
    early: Vec<u32>,
    history: History,
    /// How far the output has come in the grammar that it must follow.
    grammar: Option<GrammarState>,
    generated: u32,
}

/// Memory that sampling needs for a moment, kept from token to token.
#[derive(Default)]
pub(super) struct Scratch {
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// Why no token can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoToken {
    /// The logits are of no use.
    BadLogits(&'static str),
    /// The grammar can't be followed further.
    Grammar(GrammarBroken),
}

impl NoToken {
    /// As the end of a sequence whose token at `position` was to be chosen.
    pub(super) fn into_failure(self, position: usize) -> SequenceFailure {
        match self {
            Self::BadLogits(problem) => SequenceFailure::BadLogits { position, problem },
            Self::Grammar(broken) => broken.into(),
        }
    }
}

impl From<GrammarBroken> for NoToken {
    fn from(broken: GrammarBroken) -> Self {
        Self::Grammar(broken)
    }
}

impl Sampler {
    /// For a sequence that starts with `prompt`, and parameters that are valid.
    pub(super) fn new(params: SamplingParams, eos_token_ids: &[u32], prompt: &[u32]) -> Self {
        let early = [params.stop_token_ids.as_slice(), eos_token_ids].concat();
        let ends = if params.ignore_eos { params.stop_token_ids.clone() } else { early.clone() };
        let grammar = params.grammar.as_ref().map(baton_grammar::Grammar::start);
        Self { history: History::new(&params, prompt), params, ends, early, grammar, generated: 0 }
    }

    /// Chooses the next token from `logits`, `[vocab_size]`.
    pub(super) fn sample(
        &mut self,
        logits: &[f32],
        scratch: &mut Scratch,
    ) -> Result<GeneratedToken, NoToken> {
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(NoToken::BadLogits("a logit is not a number, or infinite"));
        }
        let id = self.choose(logits, scratch)?;
        let logprobs = self.params.logprobs.map(|top| logprobs::of(logits, id, top as usize));
        self.record(id);
        Ok(GeneratedToken { id, logprobs })
    }

    fn choose(&mut self, raw: &[f32], scratch: &mut Scratch) -> Result<u32, NoToken> {
        let Scratch { logits, candidates } = scratch;
        self.adjust(raw, logits);
        let is_greedy = self.params.temperature < GREEDY_BELOW;
        let best = match &mut self.grammar {
            None => math::argmax(logits),
            Some(grammar) => allowed_best(grammar, logits, is_greedy)?,
        };
        let Some(best) = best else {
            return self.choose_an_end(raw, logits);
        };
        if is_greedy {
            return Ok(best);
        }
        Ok(draw_from(logits, best, candidates, &self.params, self.generated))
    }

    /// Everything that is done to logits before the grammar.
    fn adjust(&self, raw: &[f32], logits: &mut Vec<f32>) {
        logits.clear();
        logits.extend_from_slice(raw);
        adjust::add_bias(logits, &self.params.logit_bias);
        if self.generated < self.params.min_tokens {
            adjust::forbid(logits, &self.early);
        }
        self.history.penalise(logits, &self.params);
    }

    /// When no token is left: a grammar that is complete before `min_tokens` leaves only the end, and so ends the output.
    fn choose_an_end(&mut self, raw: &[f32], logits: &mut Vec<f32>) -> Result<u32, NoToken> {
        if let Some(grammar) = &mut self.grammar {
            logits.clear();
            logits.extend_from_slice(raw);
            grammar.mask(logits)?;
        }
        math::argmax(logits).ok_or(NoToken::BadLogits("no token is allowed"))
    }

    /// Counts a token as generated.
    pub(super) fn record(&mut self, id: u32) {
        self.history.record(id);
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(id);
        }
        self.generated += 1;
    }

    /// Cuts `draft` before the first token that can't be the next one, or after which there is none.
    pub(super) fn cut(&mut self, draft: &mut Vec<u32>) {
        let end = draft.iter().position(|id| self.ends.contains(id));
        draft.truncate(end.unwrap_or(draft.len()));
        if let Some(grammar) = &mut self.grammar {
            let allowed = grammar.count_allowed(draft);
            draft.truncate(allowed);
        }
    }

    pub(super) fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// How many tokens may still come.
    pub(super) fn left(&self) -> usize {
        self.params.max_tokens.saturating_sub(self.generated) as usize
    }

    /// Whether `id` ends the output.
    pub(super) fn ends_with(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// Whether `max_tokens` are generated.
    pub(super) fn is_exhausted(&self) -> bool {
        self.generated >= self.params.max_tokens
    }
}

/// What these parameters would choose at output index `index` if only `raw` counted, and no token before: a guess at what a
/// [`Sampler`] chooses from similar logits. The draw is the same one, so that where the two distributions are alike the guess
/// is right, however many tokens are likely.
pub(super) fn guess(
    params: &SamplingParams,
    index: usize,
    raw: &[f32],
    scratch: &mut Scratch,
) -> Option<u32> {
    let Scratch { logits, candidates } = scratch;
    logits.clear();
    logits.extend_from_slice(raw);
    adjust::add_bias(logits, &params.logit_bias);
    let best = math::argmax(logits).filter(|best| logits[*best as usize].is_finite())?;
    if params.temperature < GREEDY_BELOW || logits.iter().any(|logit| logit.is_nan()) {
        return Some(best);
    }
    Some(draw_from(logits, best, candidates, params, u32::try_from(index).ok()?))
}

/// Temperature, filters and the draw for output index `index`; `best` is the most likely token.
fn draw_from(
    logits: &[f32],
    best: u32,
    candidates: &mut Vec<Candidate>,
    params: &SamplingParams,
    index: u32,
) -> u32 {
    filter::fill(candidates, logits, logits[best as usize], params.temperature);
    filter::min_p(candidates, params.min_p);
    filter::top_k(candidates, params.top_k);
    filter::top_p(candidates, params.top_p);
    draw::pick(candidates, draw::uniform(params.seed, index))
}

/// The most likely token that the grammar allows, with all others forbidden. When only that one is of interest and the most
/// likely of all is allowed, which is usual, it is the answer, and asking about one token is much cheaper than about all.
fn allowed_best(
    grammar: &mut GrammarState,
    logits: &mut [f32],
    is_greedy: bool,
) -> Result<Option<u32>, GrammarBroken> {
    if is_greedy
        && let Some(best) = math::argmax(logits)
        && grammar.allows(best)?
    {
        return Ok(Some(best));
    }
    grammar.mask(logits)?;
    Ok(math::argmax(logits))
}

#[cfg(test)]
mod tests;
