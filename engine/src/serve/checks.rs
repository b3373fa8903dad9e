//! What is checked before a request is taken; whatever comes after trusts it.

use super::{EngineState, SequenceRequest, SubmitError, shared::Shared};

impl Shared {
    pub(super) fn check(&self, request: &SequenceRequest) -> Result<(), SubmitError> {
        self.check_serving()?;
        self.check_request(request)
    }

    pub(super) fn check_serving(&self) -> Result<(), SubmitError> {
        match &*self.state.borrow() {
            EngineState::Serving => Ok(()),
            EngineState::Draining => Err(SubmitError::Draining),
            EngineState::Stopped { reason, .. } => Err(SubmitError::Stopped { reason: reason.clone() }),
        }
    }

    pub(super) fn check_request(&self, request: &SequenceRequest) -> Result<(), SubmitError> {
        request.sampling.validate(self.vocab_size)?;
        self.check_prompt_len(request.prompt.len())?;
        request.prompt.iter().enumerate().try_for_each(|(position, &id)| self.check_token(position, id))
    }

    pub(super) fn check_token(&self, position: usize, id: u32) -> Result<(), SubmitError> {
        let vocab = self.vocab_size;
        if (id as usize) < vocab { Ok(()) } else { Err(SubmitError::UnknownToken { position, id, vocab }) }
    }

    pub(super) fn check_prompt_len(&self, prompt_tokens: usize) -> Result<(), SubmitError> {
        if prompt_tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        let max_context_tokens = self.max_context_tokens;
        if prompt_tokens >= max_context_tokens {
            return Err(SubmitError::PromptExceedsContext { prompt_tokens, max_context_tokens });
        }
        Ok(())
    }

    pub(super) fn check_pool(&self, tokens: usize, prompt_tokens: usize) -> Result<(), SubmitError> {
        let pool_tokens = self.pool_tokens();
        if tokens > pool_tokens {
            return Err(SubmitError::PromptExceedsPool { prompt_tokens, pool_tokens });
        }
        Ok(())
    }

    pub(super) fn pool_tokens(&self) -> usize {
        self.allocator.counts().total * self.layout.block_tokens
    }
}
