//! Between the contracts' types and the engine's.

use baton_engine::{
    FailureKind as EngineFailureKind, FinishReason as EngineFinishReason, GeneratedToken, SamplingParams,
    SequenceFailure, SubmitError, TokenLogprobs,
};
use baton_proto::v1;

/// Sampling parameters off the wire, without their grammar, which has to be compiled; the engine validates them.
///
/// # Errors
/// They are missing.
pub(crate) fn sampling_from_wire(
    sampling: Option<v1::SamplingParams>,
) -> Result<SamplingParams, v1::Failure> {
    let v1::SamplingParams {
        temperature,
        top_p,
        top_k,
        min_p,
        seed,
        presence_penalty,
        frequency_penalty,
        repetition_penalty,
        max_tokens,
        min_tokens,
        ignore_eos,
        stop_token_ids,
        logprobs,
        logit_bias,
        grammar: _,
    } = sampling.ok_or_else(|| v1::Failure {
        kind: v1::FailureKind::Invalid.into(),
        message: "the request has no sampling parameters".to_owned(),
    })?;
    let mut logit_bias: Vec<(u32, f32)> = logit_bias.into_iter().collect();
    logit_bias.sort_unstable_by_key(|(id, _)| *id);
    Ok(SamplingParams {
        temperature,
        top_p,
        top_k,
        min_p,
        seed,
        presence_penalty,
        frequency_penalty,
        repetition_penalty,
        max_tokens,
        min_tokens,
        ignore_eos,
        stop_token_ids,
        logprobs,
        logit_bias,
        grammar: None,
    })
}

/// A token for the wire.
pub fn token_from_engine(token: GeneratedToken) -> v1::Token {
    let (logprob, top) = match token.logprobs {
        None => (None, Vec::new()),
        Some(TokenLogprobs { chosen, top }) => (Some(chosen), top),
    };
    let top = top.into_iter().map(|(token_id, logprob)| v1::TopLogprob { token_id, logprob }).collect();
    v1::Token { id: token.id, logprob, top }
}

/// A token off the wire.
pub fn token_from_wire(token: v1::Token) -> GeneratedToken {
    let top = token.top.into_iter().map(|top| (top.token_id, top.logprob)).collect();
    GeneratedToken { id: token.id, logprobs: token.logprob.map(|chosen| TokenLogprobs { chosen, top }) }
}

/// Why a sequence ended, for the wire.
pub fn finish_from_engine(reason: EngineFinishReason) -> v1::FinishReason {
    match reason {
        EngineFinishReason::Stop => v1::FinishReason::Stop,
        EngineFinishReason::Length => v1::FinishReason::Length,
    }
}

/// Why a request was not taken, for the wire.
pub fn failure_of_submit(error: &SubmitError) -> v1::Failure {
    v1::Failure { kind: kind(error.kind()).into(), message: error.to_string() }
}

/// Why a sequence failed, for the wire.
pub fn failure_of_sequence(failure: &SequenceFailure) -> v1::Failure {
    v1::Failure { kind: kind(failure.kind()).into(), message: failure.to_string() }
}

fn kind(kind: EngineFailureKind) -> v1::FailureKind {
    match kind {
        EngineFailureKind::Invalid => v1::FailureKind::Invalid,
        EngineFailureKind::Overloaded => v1::FailureKind::Overloaded,
        EngineFailureKind::Unavailable => v1::FailureKind::Unavailable,
        EngineFailureKind::Deadline => v1::FailureKind::Deadline,
        EngineFailureKind::Internal => v1::FailureKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_wire() {
        for logprobs in [None, Some(TokenLogprobs { chosen: -0.5, top: vec![(3, -0.5), (9, -1.5)] })] {
            let token = GeneratedToken { id: 3, logprobs };
            assert_eq!(token_from_wire(token_from_engine(token.clone())), token);
        }
    }
}
