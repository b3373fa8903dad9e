//! Who a worker is: what it says to the registry, and what its peers must match.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_engine::{Dtype, EngineConfig, KvLayout, Model};
use baton_kv_transfer::{self as kv, FabricDescription};
use baton_proto::v1::{EngineInfo, FabricInfo, KvCacheInfo, ModelInfo, Role};

/// The default name: the role and the host's.
pub(crate) fn default_worker_id(role: Role) -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    match role {
        Role::Prefill => format!("prefill-{host}"),
        Role::Decode | Role::Unspecified => format!("decode-{host}"),
    }
}

/// Differs each time the process starts, and grows: microseconds since 1970.
pub(crate) fn incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn model_info(model: &Model, name: &str, max_context_tokens: usize) -> ModelInfo {
    ModelInfo {
        name: name.to_owned(),
        revision: model.revision().to_owned(),
        dtype: model.dtype().to_string(),
        max_context_tokens: count(max_context_tokens),
        vocab_size: count(model.config().vocab),
    }
}

pub(crate) fn kv_cache_info(layout: &KvLayout, num_blocks: u32) -> KvCacheInfo {
    KvCacheInfo {
        block_tokens: count(layout.block_tokens),
        layers: count(layout.layers),
        kv_heads: count(layout.kv_heads),
        head_dim: count(layout.head_dim),
        dtype: layout.dtype.to_string(),
        num_blocks,
    }
}

pub(crate) fn engine_info(config: &EngineConfig, started_within: Duration) -> EngineInfo {
    EngineInfo {
        max_step_tokens: count(config.max_step_tokens),
        mixed_prompt_tokens: config.mixed_prompt_tokens.map_or(0, count),
        max_running: count(config.max_running),
        growth_tokens: count(config.growth_tokens),
        start_ms: u32::try_from(started_within.as_millis()).unwrap_or(u32::MAX),
    }
}

pub(crate) fn fabric_info(fabric: FabricDescription) -> FabricInfo {
    FabricInfo {
        name: fabric.name.to_owned(),
        provider: fabric.provider,
        control_endpoint: fabric.control_endpoint,
        node_id: fabric.node_id.into(),
    }
}

/// The engine's layout as kv-transfer names it: K of a block, then V, heads before tokens, all heads.
pub(crate) fn transfer_layout(layout: &KvLayout) -> kv::KvLayout {
    kv::KvLayout {
        layers: count(layout.layers),
        kv_heads: count(layout.kv_heads),
        head_dim: count(layout.head_dim),
        block_tokens: count(layout.block_tokens),
        dtype: match layout.dtype {
            Dtype::Bf16 => kv::KvDtype::Bf16,
            Dtype::F32 => kv::KvDtype::F32,
        },
        placement: kv::KvPlacement::Joined,
        order: kv::KvOrder::Hnd,
        tensor_parallel: kv::TensorParallel::SINGLE,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
