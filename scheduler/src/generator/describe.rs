//! Workers and pairs as `/v1/workers` shows them.

use baton_proto::v1::{Role, Step};
use serde_json::{Value, json};

use crate::fleet::{Difference, Member, PairState, PairView};

/// A worker; a prefill worker with its pairs.
pub(super) fn describe_worker(member: &Member, pairs: &[PairView]) -> Value {
    let info = &member.info;
    let (load, reported_at) = member.load();
    let (requests, prompt_tokens) = member.in_flight();
    let model = info.model.clone().unwrap_or_default();
    let fabric = info.fabric.clone().unwrap_or_default();
    let mut described = json!({
        "worker_id": info.worker_id,
        "role": role(member),
        "incarnation": info.incarnation,
        "endpoint": info.endpoint,
        "serving_endpoint": info.serving_endpoint,
        "gateway_endpoint": info.gateway_endpoint,
        "admin_endpoint": info.admin_endpoint,
        "pid": info.pid,
        "model": { "name": model.name, "revision": model.revision, "dtype": model.dtype },
        "fabric": { "name": fabric.name, "provider": fabric.provider },
        "capacity_tokens": member.capacity_tokens(),
        "adapters": *member.adapters(),
        "load": {
            "waiting": load.waiting,
            "running": load.running,
            "waiting_prompt_tokens": load.waiting_prompt_tokens,
            "blocks_free": load.blocks_free,
            "blocks_total": load.blocks_total,
            "draining": load.draining,
            "age_ms": reported_at.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        },
        "in_flight": { "requests": requests, "prompt_tokens": prompt_tokens },
    });
    if member.role() == Role::Prefill {
        let own = pairs.iter().filter(|pair| pair.prefill == info.worker_id);
        described["pairs"] = own.map(describe_pair).collect();
    }
    described
}

/// What a worker's steps took: an array for each, of the fields in `columns`.
pub(super) fn describe_steps(member: &Member) -> Value {
    let info = &member.info;
    let kv = info.kv_cache.clone().unwrap_or_default();
    let engine = info.engine.unwrap_or_default();
    let model = info.model.clone().unwrap_or_default();
    let row =
        |step: &Step| json!([step.prompt_tokens, step.pairs, step.sequences, step.context_tokens, step.us]);
    json!({
        "worker_id": info.worker_id,
        "role": role(member),
        "model": {
            "name": model.name,
            "vocab_size": model.vocab_size,
            "max_context_tokens": model.max_context_tokens,
        },
        "kv": {
            "bytes_per_token": member.facts().kv_bytes_per_token,
            "capacity_tokens": member.capacity_tokens(),
            "block_tokens": kv.block_tokens,
            "layers": kv.layers,
        },
        "engine": {
            "max_step_tokens": engine.max_step_tokens,
            "mixed_prompt_tokens": engine.mixed_prompt_tokens,
            "max_running": engine.max_running,
            "growth_tokens": engine.growth_tokens,
            "start_ms": engine.start_ms,
        },
        "columns": ["prompt_tokens", "pairs", "sequences", "context_tokens", "us"],
        "steps": member.steps().iter().map(row).collect::<Vec<_>>(),
    })
}

fn role(member: &Member) -> &'static str {
    if member.role() == Role::Prefill { "prefill" } else { "decode" }
}

fn describe_pair(pair: &PairView) -> Value {
    let mut described = json!({ "decode_worker": pair.decode, "state": pair.state.name() });
    match &pair.state {
        PairState::Refused(difference) => {
            let Difference { field, prefill, decode } = difference;
            described["differs"] = json!({ "field": field, "prefill": prefill, "decode": decode });
        }
        PairState::Unreachable(reason) => described["reason"] = json!(reason),
        PairState::Trying | PairState::Connected => {}
    }
    described
}
