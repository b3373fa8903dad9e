//! Counts of drafts, under vLLM's names.

use std::fmt;

use baton_engine::SpeculationTotals;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};

use crate::collect::counter;

/// Writes the counts of an engine that drafts up to `draft_tokens` tokens.
pub(crate) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    totals: &SpeculationTotals,
    draft_tokens: usize,
    model_name: &str,
) -> fmt::Result {
    let model = [("model_name", model_name)];
    for (name, help, value) in [
        ("vllm:spec_decode_num_drafts", "Drafts that were checked", totals.drafts),
        ("vllm:spec_decode_num_draft_tokens", "Drafted tokens that were checked", totals.draft_tokens),
        ("vllm:spec_decode_num_accepted_tokens", "Drafted tokens that were right", totals.accepted_tokens),
    ] {
        counter(encoder, name, help, &model, value)?;
    }
    let (name, help) = (
        "vllm:spec_decode_num_accepted_tokens_per_pos",
        "Drafted tokens that were right, by their place in the draft",
    );
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (position, accepted) in totals.accepted_at[..draft_tokens].iter().enumerate() {
        let position = position.to_string();
        let labels = [("model_name", model_name), ("position", position.as_str())];
        ConstCounter::new(*accepted).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
