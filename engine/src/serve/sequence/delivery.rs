//! What a sequence sends: tokens, and its end.

use std::time::Instant;

use super::{Leg, Life, Sequence};
use crate::serve::{
    FinishReason, FirstToken, GeneratedToken, Prefilled, SequenceEvent, SequenceFailure, sampler::Scratch,
};

impl Sequence {
    /// Chooses the next token from `logits`, `[vocab_size]`, and sends it.
    pub(in crate::serve) fn sample(&mut self, logits: &[f32], scratch: &mut Scratch, now: Instant) -> Life {
        debug_assert_eq!(self.uncomputed(), 0, "all tokens are computed before the next is sampled");
        match self.sampler.sample(logits, scratch) {
            Ok(token) => self.push(token, now),
            Err(problem) => {
                self.fail(problem.into_failure(self.tokens.len()));
                Life::Ended
            }
        }
    }

    fn push(&mut self, token: GeneratedToken, now: Instant) -> Life {
        self.tokens.push(token.id);
        let is_first = self.clock.first_token.is_none();
        self.clock.first_token.get_or_insert(now);
        if let Leg::Whole { events } = &self.leg {
            if is_first {
                let (timing, cached_tokens) = (self.clock.timing(now), self.cached_tokens);
                let _ = events.try_send(SequenceEvent::Prefilled(Prefilled { timing, cached_tokens }));
            }
            if events.try_send(SequenceEvent::Token(token)).is_err() {
                // Nobody listens any more; the cancellation is on its way.
                self.release();
                return Life::Ended;
            }
            return if self.finish_if_over(now) { Life::Ended } else { Life::GoesOn };
        }
        let (finish, timing) = (self.finish_reason(), self.clock.timing(now));
        let cached_tokens = self.cached_tokens;
        self.release();
        if let Leg::First { reply, .. } = &mut self.leg
            && let Some(reply) = reply.take()
        {
            let _ = reply.send(Ok(FirstToken { token, finish, timing, cached_tokens }));
        }
        Life::Ended
    }

    /// Sends the terminal event when the last token ended the sequence; says whether it did.
    pub(in crate::serve) fn finish_if_over(&mut self, now: Instant) -> bool {
        let Some(reason) = self.finish_reason() else { return false };
        // Whoever sees the terminal event finds the blocks back in the pool.
        self.release();
        if let Leg::Whole { events } = &self.leg {
            let _ = events.try_send(SequenceEvent::Finished(reason, self.clock.timing(now)));
        }
        true
    }

    fn finish_reason(&self) -> Option<FinishReason> {
        let last = *self.tokens[self.prompt_len..].last()?;
        if self.sampler.ends_with(last) {
            Some(FinishReason::Stop)
        } else if self.sampler.is_exhausted() || self.tokens.len() >= self.most_tokens {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// Ends with a failure.
    pub(in crate::serve) fn fail(&mut self, failure: SequenceFailure) {
        self.release();
        match &mut self.leg {
            Leg::Whole { events } => {
                let _ = events.try_send(SequenceEvent::Failed(failure));
            }
            Leg::First { reply, .. } => {
                if let Some(reply) = reply.take() {
                    let _ = reply.send(Err(failure));
                }
            }
        }
    }
}
