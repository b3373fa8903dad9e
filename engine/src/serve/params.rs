//! Ranges of the sampling parameters.

use super::SamplingParams;

/// Most `logprobs` that may be asked for.
const MAX_LOGPROBS: u32 = 20;
/// Most entries of `logit_bias`, as in OpenAI's API with room to spare.
const MAX_LOGIT_BIASES: usize = 1024;
/// Most `stop_token_ids`.
const MAX_STOP_TOKENS: usize = 128;

/// A sampling parameter is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, it must be {allowed}")]
pub struct ParameterError {
    /// Name of the parameter.
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// What may be given.
    pub allowed: String,
}

impl SamplingParams {
    /// Greedy, everything else off.
    pub fn greedy(max_tokens: u32) -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            max_tokens,
            min_tokens: 0,
            ignore_eos: false,
            stop_token_ids: Vec::new(),
            logprobs: None,
            logit_bias: Vec::new(),
            grammar: None,
        }
    }

    /// Checks every parameter, for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// The first parameter out of its range, with its value and the range.
    pub fn validate(&self, vocab: usize) -> Result<(), ParameterError> {
        let Self {
            temperature, top_p, min_p, presence_penalty, frequency_penalty, repetition_penalty, ..
        } = *self;
        require("temperature", temperature, (0.0..=100.0).contains(&temperature), "between 0 and 100")?;
        require("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "greater than 0 and at most 1")?;
        require("min_p", min_p, (0.0..=1.0).contains(&min_p), "between 0 and 1")?;
        require("presence_penalty", presence_penalty, presence_penalty.abs() <= 2.0, "between -2 and 2")?;
        require("frequency_penalty", frequency_penalty, frequency_penalty.abs() <= 2.0, "between -2 and 2")?;
        let repetition_fits = repetition_penalty > 0.0 && repetition_penalty <= 10.0;
        require("repetition_penalty", repetition_penalty, repetition_fits, "greater than 0 and at most 10")?;
        require("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1")?;
        let min_fits = self.min_tokens <= self.max_tokens;
        require(
            "min_tokens",
            self.min_tokens,
            min_fits,
            format_args!("at most max_tokens, which is {}", self.max_tokens),
        )?;
        let can_end = self.grammar.is_none() || !self.ignore_eos;
        require(
            "ignore_eos",
            self.ignore_eos,
            can_end,
            "false with a grammar, which ends with the model's own end",
        )?;
        if let Some(logprobs) = self.logprobs {
            require("logprobs", logprobs, logprobs <= MAX_LOGPROBS, format_args!("at most {MAX_LOGPROBS}"))?;
        }
        self.validate_token_lists(vocab)
    }

    fn validate_token_lists(&self, vocab: usize) -> Result<(), ParameterError> {
        let stops = self.stop_token_ids.len();
        require(
            "stop_token_ids' length",
            stops,
            stops <= MAX_STOP_TOKENS,
            format_args!("at most {MAX_STOP_TOKENS}"),
        )?;
        let biases = self.logit_bias.len();
        require(
            "logit_bias' length",
            biases,
            biases <= MAX_LOGIT_BIASES,
            format_args!("at most {MAX_LOGIT_BIASES}"),
        )?;
        let known = |id: u32| (id as usize) < vocab;
        for &id in &self.stop_token_ids {
            require(
                "stop_token_ids",
                id,
                known(id),
                format_args!("less than the vocabulary's {vocab} tokens"),
            )?;
        }
        for &(id, bias) in &self.logit_bias {
            require(
                "logit_bias' token",
                id,
                known(id),
                format_args!("less than the vocabulary's {vocab} tokens"),
            )?;
            require("logit_bias", bias, bias.abs() <= 100.0, "between -100 and 100")?;
        }
        Ok(())
    }
}

fn require(
    field: &'static str,
    value: impl ToString,
    fits: bool,
    allowed: impl ToString,
) -> Result<(), ParameterError> {
    if fits {
        Ok(())
    } else {
        Err(ParameterError { field, value: value.to_string(), allowed: allowed.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut SamplingParams), expected: &str) {
        let mut params = SamplingParams::greedy(5);
        change(&mut params);
        let message = params.validate(10).err().map(|error| error.to_string());
        assert_eq!(message.as_deref().unwrap_or("fine"), expected);
    }

    #[test]
    fn messages_name_field_value_and_range() {
        check(|p| p.temperature = -1.0, "temperature is -1, it must be between 0 and 100");
        check(|p| p.temperature = f32::INFINITY, "temperature is inf, it must be between 0 and 100");
        check(|p| p.top_p = 0.0, "top_p is 0, it must be greater than 0 and at most 1");
        check(|p| p.top_p = f32::NAN, "top_p is NaN, it must be greater than 0 and at most 1");
        check(|p| p.min_p = 1.5, "min_p is 1.5, it must be between 0 and 1");
        check(|p| p.presence_penalty = 2.1, "presence_penalty is 2.1, it must be between -2 and 2");
        check(|p| p.frequency_penalty = f32::NAN, "frequency_penalty is NaN, it must be between -2 and 2");
        check(
            |p| p.repetition_penalty = 0.0,
            "repetition_penalty is 0, it must be greater than 0 and at most 10",
        );
        check(|p| p.max_tokens = 0, "max_tokens is 0, it must be at least 1");
        check(|p| p.min_tokens = 6, "min_tokens is 6, it must be at most max_tokens, which is 5");
        check(|p| p.logprobs = Some(21), "logprobs is 21, it must be at most 20");
        check(
            |p| p.stop_token_ids = vec![9, 10],
            "stop_token_ids is 10, it must be less than the vocabulary's 10 tokens",
        );
        check(|p| p.stop_token_ids = vec![0; 129], "stop_token_ids' length is 129, it must be at most 128");
        check(
            |p| p.logit_bias = vec![(10, 0.0)],
            "logit_bias' token is 10, it must be less than the vocabulary's 10 tokens",
        );
        check(|p| p.logit_bias = vec![(1, -101.0)], "logit_bias is -101, it must be between -100 and 100");
        check(|p| p.logit_bias = vec![(1, 0.0); 1025], "logit_bias' length is 1025, it must be at most 1024");
    }

    #[test]
    fn the_ends_of_the_ranges_are_inside() {
        check(|p| p.temperature = 100.0, "fine");
        check(|p| (p.top_p, p.min_p) = (1.0, 1.0), "fine");
        check(|p| (p.presence_penalty, p.frequency_penalty) = (-2.0, 2.0), "fine");
        check(|p| (p.min_tokens, p.logprobs) = (5, Some(20)), "fine");
        check(|p| p.logit_bias = vec![(9, 100.0)], "fine");
    }
}
