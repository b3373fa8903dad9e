//! From a command line to an engine and a transfer node over one pool.

use std::{path::Path, sync::Mutex};

use baton_engine::{
    CacheObserver, Engine, EngineConfig, Forward, KvLayout, LoadOptions, LoadProgress, LoraAdapters, Model,
    Speed, physical_cores,
};
use baton_grammar::Grammars;
use baton_kv_transfer::{KvGeometry, TransferConfig, TransferNode};
use baton_proto::v1::{KvCacheInfo, ModelInfo, Role};

use crate::{
    Adapters, ByteSize, KvBudget, RunError, WorkerArgs,
    context::LimitedContext,
    grammars, identity, kv_memory,
    size::free_memory_bytes,
    speculative::{Target, speculation},
    vocabulary,
};

/// Threads that pack an adapter's weights while the engine's threads serve.
const LOADING_THREADS: usize = 1;

/// Everything that needs the model.
pub(crate) struct Assembly {
    pub(crate) engine: Engine,
    pub(crate) node: TransferNode,
    pub(crate) model: ModelInfo,
    pub(crate) kv_cache: KvCacheInfo,
    pub(crate) vocab_size: usize,
    pub(crate) grammars: Option<Grammars>,
    pub(crate) adapters: Adapters,
}

/// Loads the model, starts the transfer node, and starts the engine in the node's pool.
///
/// `observer` is told what happens to the engine's prefix cache.
pub(crate) async fn assemble(
    args: &WorkerArgs,
    role: Role,
    observer: Box<dyn CacheObserver>,
) -> Result<Assembly, RunError> {
    let threads = args.threads.map_or_else(physical_cores, usize::from);
    // Of two errors the one about the model is told, as it would be without a tokenizer.
    let (model, tokens) = tokio::join!(load(&args.model, args, threads), vocabulary::read(&args.model));
    let (model, tokens) = (model?, tokens?);
    // Before anything is started: what is wrong with them should be known at once.
    let adapters = LoraAdapters::new(model.clone(), usize::from(args.max_loras), LOADING_THREADS);
    let adapters = Adapters::start(adapters, &args.lora_modules).await?;
    let model_context = model.config().max_position;
    let max_context_tokens = args.max_context.map_or(model_context, |tokens| tokens as usize);
    if max_context_tokens > model_context {
        return Err(RunError::ContextTooLong { asked: max_context_tokens, model: model_context });
    }
    let layout = model.kv_layout(usize::from(args.block_tokens));
    let num_blocks = num_blocks(args, &layout, max_context_tokens)?;

    let mut transfer = transfer_config(args.fabric.clone(), &layout, num_blocks, model.revision());
    transfer.libfabric_path.clone_from(&args.libfabric);
    transfer.rails.clone_from(&args.rails);
    transfer.nixl_path.clone_from(&args.nixl);
    transfer.limits.push_group_bytes = args.push_group.map(|size| size.0);
    transfer.limits.stage_below_bytes = args.stage_below.map(|size| size.0);
    transfer.ucx_path.clone_from(&args.ucx);
    transfer.listen_ip = args.listen.ip();
    let node = TransferNode::start(transfer)
        .await
        .map_err(|source| RunError::Transfer { fabric: args.fabric.to_string(), source })?;
    let fabric = node.fabric();
    tracing::info!(
        fabric = fabric.name,
        provider = fabric.provider,
        devices = fabric.devices.join(", "),
        endpoint = fabric.control_endpoint,
        "KV blocks travel over this fabric"
    );

    let forward = model.bind(kv_memory(node.pool()), &layout, num_blocks as usize, threads)?;
    let forward = LimitedContext { inner: forward, max_context_tokens };
    let vocab_size = forward.vocab_size();
    let eos_token_ids = model.eos_token_ids().to_vec();
    let grammars = grammars::prepare(tokens.clone(), vocab_size, &eos_token_ids).await?;
    let target = Target { model: &model, tokens, blocks: num_blocks as usize, threads };
    let speculation = match &args.speculative_config {
        Some(config) if role == Role::Decode => Some(speculation(args, config, target).await?),
        Some(_) => {
            tracing::info!("this worker only prefills: --speculative-config has no effect here");
            None
        }
        None => None,
    };
    let forward = Box::new(forward);
    let engine =
        Engine::start_speculating(forward, eos_token_ids, engine_config(args), Some(observer), speculation);
    Ok(Assembly {
        engine,
        node,
        model: identity::model_info(&model, &args.served_model_name(), max_context_tokens),
        kv_cache: identity::kv_cache_info(&layout, num_blocks),
        vocab_size,
        grammars,
        adapters,
    })
}

/// The transfer node's settings for an engine's pool: one piece of the one is one of the other.
pub fn transfer_config(
    fabric: baton_kv_transfer::FabricSpec,
    layout: &KvLayout,
    num_blocks: u32,
    revision: &str,
) -> TransferConfig {
    let geometry = KvGeometry { layout: identity::transfer_layout(layout), blocks: num_blocks };
    TransferConfig::new(fabric, geometry, format!("revision {revision}"))
}

/// Loads a model in the worker's type and format of weights.
pub(crate) async fn load(folder: &Path, args: &WorkerArgs, threads: usize) -> Result<Model, RunError> {
    let (folder, dtype, weights) = (folder.to_owned(), args.dtype, args.quantization);
    let shown = folder.display().to_string();
    let start = std::time::Instant::now();
    tracing::info!(folder = shown, %dtype, threads, "loading the model");
    // Reading and packing weights takes seconds: not on a thread of the runtime.
    let model = tokio::task::spawn_blocking(move || {
        let quarters = Mutex::new(0);
        let progress = |progress: LoadProgress| log_progress(&quarters, progress);
        let options =
            LoadOptions { dtype, weights, threads, progress: Some(&progress), ..LoadOptions::default() };
        Model::load(&folder, &options)
    })
    .await
    .map_err(|_| RunError::LoadPanicked)?
    .map_err(|source| RunError::Load { folder: shown, source })?;
    tracing::info!(
        architecture = model.config().architecture,
        revision = model.revision(),
        weights = %ByteSize(model.weights_bytes() as u64),
        scratch = %ByteSize(model.scratch_bytes(args.max_step_tokens as usize, args.max_running as usize) as u64),
        seconds = format_args!("{:.1}", start.elapsed().as_secs_f64()),
        "model loaded"
    );
    Ok(model)
}

/// A line each quarter.
fn log_progress(quarters: &Mutex<usize>, LoadProgress { done, total }: LoadProgress) {
    let now = 4 * done / total.max(1);
    let mut seen = quarters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if now > *seen && now < 4 {
        tracing::info!("loading the model: {}%", 25 * now);
    }
    *seen = now.max(*seen);
}

fn num_blocks(args: &WorkerArgs, layout: &KvLayout, max_context_tokens: usize) -> Result<u32, RunError> {
    let budget = KvBudget {
        blocks: args.kv_blocks,
        bytes: args.kv_memory,
        max_context_tokens,
        free_memory_bytes: free_memory_bytes(),
    };
    let num_blocks = budget.num_blocks(layout);
    let block_bytes = layout.pool_bytes(1) as u64;
    if let (0, Some(asked)) = (num_blocks, args.kv_memory) {
        return Err(RunError::NoKvBlock { asked, block_bytes });
    }
    let tokens = num_blocks as usize * layout.block_tokens;
    tracing::info!(
        blocks = num_blocks,
        tokens,
        size = %ByteSize(u64::from(num_blocks) * block_bytes),
        "KV cache; choose its size with --kv-memory or --kv-blocks"
    );
    if tokens < max_context_tokens {
        tracing::warn!(
            tokens,
            max_context_tokens,
            "the KV cache holds less than one full context: long prompts are refused"
        );
    }
    Ok(num_blocks)
}

fn speed(args: &WorkerArgs) -> Speed {
    match (&args.pace, args.compute_percent) {
        (Some(profile), _) => {
            tracing::info!(profile = profile.name, "steps take what a profile says");
            Speed::Profile(profile.clone())
        }
        (None, 100) => Speed::Full,
        (None, percent) => Speed::Share(percent),
    }
}

fn engine_config(args: &WorkerArgs) -> EngineConfig {
    EngineConfig {
        max_step_tokens: args.max_step_tokens as usize,
        mixed_prompt_tokens: args.prefill_chunk_tokens.map(|tokens| tokens as usize),
        max_running: args.max_running as usize,
        max_waiting: args.max_waiting as usize,
        prefix_cache: !args.no_prefix_cache,
        speed: speed(args),
        ..EngineConfig::default()
    }
}
