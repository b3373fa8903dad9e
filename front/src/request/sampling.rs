//! Sampling parameters, their defaults and ranges.

use std::collections::HashMap;

use baton_proto::v1::SamplingParams;
use rand::Rng as _;
use serde_json::Value;

use super::super::{
    api_error::ApiError,
    fields::{Fields, InvalidField, token_ids},
};
use crate::completion::TextOptions;

/// Smallest temperature above 0 that still divides logits without overflow; below it the choice is greedy anyway.
const LEAST_TEMPERATURE: f64 = 0.01;
const MOST_STOP_STRINGS: usize = 16;
const MOST_STOP_BYTES: usize = 1_024;
const MOST_STOP_TOKENS: usize = 128;
const MOST_BIASES: usize = 1_024;

/// Everything about the choice of tokens but `max_tokens` and `logprobs`.
pub(super) fn take_sampling(fields: &mut Fields, vocab_size: u32) -> Result<SamplingParams, ApiError> {
    let float = |fields: &mut Fields, name: &str, least: f64, most: f64, default: f64| {
        fields.number(name, least..=most).map(|number| number.unwrap_or(default))
    };
    let temperature = float(fields, "temperature", 0.0, 2.0, 1.0)?;
    let top_p = float(fields, "top_p", 0.0, 1.0, 1.0)?;
    if top_p == 0.0 {
        return Err(InvalidField::new("top_p", "expected a number above 0 and up to 1, got 0").into());
    }
    let repetition_penalty = float(fields, "repetition_penalty", 0.0, 10.0, 1.0)?;
    if repetition_penalty == 0.0 {
        return Err(
            InvalidField::new("repetition_penalty", "expected a number above 0 and up to 10, got 0").into()
        );
    }
    let seed = fields.integer("seed", i128::from(i64::MIN)..=i128::from(u64::MAX))?;
    Ok(SamplingParams {
        temperature: single(if temperature > 0.0 { temperature.max(LEAST_TEMPERATURE) } else { 0.0 }),
        top_p: single(top_p),
        top_k: take_top_k(fields)?,
        min_p: single(float(fields, "min_p", 0.0, 1.0, 0.0)?),
        seed: seed.map_or_else(|| rand::rng().random(), as_bits),
        presence_penalty: single(float(fields, "presence_penalty", -2.0, 2.0, 0.0)?),
        frequency_penalty: single(float(fields, "frequency_penalty", -2.0, 2.0, 0.0)?),
        repetition_penalty: single(repetition_penalty),
        max_tokens: 0,
        min_tokens: fields.uint("min_tokens", 0..=u32::MAX)?.unwrap_or(0),
        ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
        stop_token_ids: take_stop_tokens(fields, vocab_size)?,
        logprobs: None,
        logit_bias: take_logit_bias(fields, vocab_size)?,
        grammar: String::new(),
    })
}

/// How tokens become text.
pub(super) fn take_text(fields: &mut Fields, sampling: &SamplingParams) -> Result<TextOptions, ApiError> {
    Ok(TextOptions {
        stop: take_stop(fields)?,
        stop_token_ids: sampling.stop_token_ids.clone(),
        include_stop: fields.boolean("include_stop_str_in_output")?.unwrap_or(false),
        skip_special: fields.boolean("skip_special_tokens")?.unwrap_or(true),
        ignore_eos: sampling.ignore_eos,
        ..TextOptions::default()
    })
}

/// The seed of the `choice`th completion: the client's own for the first, and independent ones after it (SplitMix64).
pub(crate) fn choice_seed(seed: u64, choice: u32) -> u64 {
    if choice == 0 {
        return seed;
    }
    let mut mixed = seed.wrapping_add(u64::from(choice).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// vLLM's -1 and 0 both mean "off".
fn take_top_k(fields: &mut Fields) -> Result<u32, ApiError> {
    let top_k = fields.integer("top_k", -1..=i128::from(u32::MAX))?.unwrap_or(0);
    Ok(u32::try_from(top_k).unwrap_or(0))
}

fn take_stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let items = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(one) => vec![one],
    };
    if items.len() > MOST_STOP_STRINGS {
        let problem = format!("expected at most {MOST_STOP_STRINGS} stop strings, got {}", items.len());
        return Err(InvalidField::new("stop", problem).into());
    }
    let expected = format!("a string of 1 to {MOST_STOP_BYTES} bytes, or an array of such strings");
    items
        .into_iter()
        .map(|item| match item {
            Value::String(stop) if !stop.is_empty() && stop.len() <= MOST_STOP_BYTES => Ok(stop),
            other => Err(InvalidField::expected("stop", &expected, &other).into()),
        })
        .collect()
}

fn take_stop_tokens(fields: &mut Fields, vocab_size: u32) -> Result<Vec<u32>, ApiError> {
    let items = fields.array("stop_token_ids")?.unwrap_or_default();
    if items.len() > MOST_STOP_TOKENS {
        let problem = format!("expected at most {MOST_STOP_TOKENS} stop tokens, got {}", items.len());
        return Err(InvalidField::new("stop_token_ids", problem).into());
    }
    Ok(token_ids(&items, "stop_token_ids", vocab_size)?)
}

fn take_logit_bias(fields: &mut Fields, vocab_size: u32) -> Result<HashMap<u32, f32>, ApiError> {
    let biases = fields.object("logit_bias")?.unwrap_or_default();
    if biases.len() > MOST_BIASES {
        let problem = format!("expected at most {MOST_BIASES} tokens, got {}", biases.len());
        return Err(InvalidField::new("logit_bias", problem).into());
    }
    biases
        .iter()
        .map(|(token, bias)| {
            let id = token.parse().ok().filter(|&id: &u32| id < vocab_size).ok_or_else(|| {
                let problem = format!(
                    "expected token ids from 0 to {} as keys, got {token:?}",
                    vocab_size.saturating_sub(1)
                );
                InvalidField::new("logit_bias", problem)
            })?;
            let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).ok_or_else(|| {
                InvalidField::expected(format!("logit_bias.{id}"), "a number from -100 to 100", bias)
            })?;
            Ok((id, single(bias)))
        })
        .collect()
}

/// A negative seed is as good as its two's complement.
fn as_bits(seed: i128) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the low 64 bits are what is wanted"
    )]
    let bits = seed as u64;
    bits
}

fn single(number: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "in a range that f32 has; the wire type is f32")]
    let single = number as f32;
    single
}
