//! Who may join: pure checks, each refusal naming the field and both values.

use baton_proto::v1::{FabricInfo, KvCacheInfo, ModelInfo, Role, WorkerInfo};

/// The model that this scheduler serves.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServedModel {
    /// Names that workers may know it by.
    pub(crate) names: Vec<String>,
    /// Context that workers must have been started with, when the operator has said so.
    pub(crate) context_tokens: Option<u32>,
    /// Context that the model was made for, by its `config.json`.
    pub(crate) model_context_tokens: Option<u32>,
    /// Rows of the embedding table, by its `config.json`.
    pub(crate) vocab_size: Option<u32>,
}

/// Names and addresses come over the network, and go into logs and metrics.
const MOST_NAME_BYTES: usize = 256;

/// Checks a worker by itself, against the served model, and against `peer`, any member (all members are alike).
pub(super) fn check(
    info: &WorkerInfo,
    served: &ServedModel,
    peer: Option<&WorkerInfo>,
) -> Result<(), String> {
    check_form(info)?;
    let model = info.model.as_ref().ok_or("model is missing")?;
    let kv_cache = info.kv_cache.as_ref().ok_or("kv_cache is missing")?;
    check_served(model, served)?;
    check_capacity(kv_cache)?;
    peer.map_or(Ok(()), |peer| check_peer(info, peer))
}

/// A restarted worker replaces its former self; a straggler of the former one does not replace it back.
pub(super) fn check_incarnation(info: &WorkerInfo, present: Option<&WorkerInfo>) -> Result<(), String> {
    match present {
        Some(present) if present.incarnation > info.incarnation => Err(format!(
            "worker_id {:?} is taken by a newer process: incarnation {} here, {} offered",
            info.worker_id, present.incarnation, info.incarnation
        )),
        _ => Ok(()),
    }
}

fn check_form(info: &WorkerInfo) -> Result<(), String> {
    let text = [("worker_id", &info.worker_id), ("endpoint", &info.endpoint)];
    for (field, value) in text {
        if value.is_empty() || value.len() > MOST_NAME_BYTES || value.chars().any(char::is_control) {
            return Err(format!("{field} must be 1 to {MOST_NAME_BYTES} printable bytes, got {value:?}"));
        }
    }
    match info.role() {
        Role::Unspecified => Err("role is missing: prefill or decode".to_owned()),
        Role::Decode if info.serving_endpoint.is_empty() => {
            Err("serving_endpoint is empty: a decode worker joins through its sidecar".to_owned())
        }
        Role::Decode | Role::Prefill => Ok(()),
    }
}

fn check_served(model: &ModelInfo, served: &ServedModel) -> Result<(), String> {
    if !served.names.contains(&model.name) {
        return Err(format!(
            "model.name: this scheduler serves {:?}, the worker has {:?}",
            served.names, model.name
        ));
    }
    if served.vocab_size.is_some_and(|size| size != model.vocab_size) {
        return Err(differs("model.vocab_size", served.vocab_size.unwrap_or(0), model.vocab_size));
    }
    if served.context_tokens.is_some_and(|tokens| tokens != model.max_context_tokens) {
        return Err(differs(
            "model.max_context_tokens",
            served.context_tokens.unwrap_or(0),
            model.max_context_tokens,
        ));
    }
    if model.max_context_tokens == 0 {
        return Err("model.max_context_tokens is 0".to_owned());
    }
    Ok(())
}

fn check_capacity(kv_cache: &KvCacheInfo) -> Result<(), String> {
    if kv_cache.block_tokens == 0 || kv_cache.num_blocks == 0 {
        return Err(format!(
            "kv_cache holds nothing: {} blocks of {}",
            kv_cache.num_blocks, kv_cache.block_tokens
        ));
    }
    Ok(())
}

fn check_peer(info: &WorkerInfo, peer: &WorkerInfo) -> Result<(), String> {
    let (model, peer_model) =
        (info.model.clone().unwrap_or_default(), peer.model.clone().unwrap_or_default());
    let (kv, peer_kv) =
        (info.kv_cache.clone().unwrap_or_default(), peer.kv_cache.clone().unwrap_or_default());
    let (fabric, peer_fabric) =
        (info.fabric.clone().unwrap_or_default(), peer.fabric.clone().unwrap_or_default());
    let ModelInfo { name, revision, dtype, max_context_tokens, vocab_size } = model;
    // Blocks of another size are converted as they are handed over.
    let KvCacheInfo { block_tokens: _, layers, kv_heads, head_dim, dtype: kv_dtype, num_blocks: _ } = kv;
    let FabricInfo { name: fabric_name, provider, control_endpoint: _, node_id: _ } = fabric;
    equal("model.name", peer_model.name, name)?;
    equal("model.revision", peer_model.revision, revision)?;
    equal("model.dtype", peer_model.dtype, dtype)?;
    equal("model.max_context_tokens", peer_model.max_context_tokens, max_context_tokens)?;
    equal("model.vocab_size", peer_model.vocab_size, vocab_size)?;
    equal("kv_cache.layers", peer_kv.layers, layers)?;
    equal("kv_cache.kv_heads", peer_kv.kv_heads, kv_heads)?;
    equal("kv_cache.head_dim", peer_kv.head_dim, head_dim)?;
    equal("kv_cache.dtype", peer_kv.dtype, kv_dtype)?;
    equal("fabric.name", peer_fabric.name, fabric_name)?;
    equal("fabric.provider", peer_fabric.provider, provider)
}

fn equal<T: PartialEq + std::fmt::Debug>(field: &str, fleet: T, worker: T) -> Result<(), String> {
    if fleet == worker { Ok(()) } else { Err(differs(field, fleet, worker)) }
}

fn differs<T: std::fmt::Debug>(field: &str, fleet: T, worker: T) -> String {
    format!("{field} does not match: the fleet has {fleet:?}, the worker has {worker:?}")
}
