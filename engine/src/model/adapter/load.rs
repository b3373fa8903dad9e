//! From an adapter's folder onto a device.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use super::{
    AdapterError,
    config::AdapterConfig,
    weights::{AdapterWeights, LayerChanges, LowRank, Projection},
};
use crate::{
    device::{Device, WeightFormat},
    model::{
        ModelConfig, StoredMatrix,
        checkpoint::Checkpoint,
        config::{FeedForward, Layer},
        fingerprint,
        load::read_json,
    },
};

/// What PEFT puts before the model's own names.
const PREFIX: &str = "base_model.model.";
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// An adapter's files, read and checked as far as that goes without a model.
pub(crate) struct AdapterFiles {
    config: AdapterConfig,
    tensors: Checkpoint,
    /// Hash of all that they say.
    pub(crate) revision: String,
}

/// Part of a projection that an adapter may change: `n` outputs from column `first_column` on, of `k` inputs.
struct Target {
    module: &'static str,
    projection: Projection,
    first_column: usize,
    n: usize,
    k: usize,
}

impl AdapterFiles {
    /// Reads `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self, AdapterError> {
        if !folder.is_dir() {
            return Err(AdapterError::FolderMissing(folder.to_owned()));
        }
        let hints = [
            (CONFIG, "it must be a folder as PEFT's save_pretrained writes it"),
            (WEIGHTS, "save the adapter with safe_serialization = True"),
        ];
        for (file, hint) in hints {
            if !folder.join(file).is_file() {
                return Err(AdapterError::FileMissing { folder: folder.to_owned(), file, hint });
            }
        }
        let json: Value = read_json(&folder.join(CONFIG))?;
        let config = AdapterConfig::parse(&json)?;
        let tensors = Checkpoint::open_file(&folder.join(WEIGHTS))?;
        let revision = fingerprint::revision_of_all(&json, &tensors);
        Ok(Self { config, tensors, revision })
    }
}

/// Puts an adapter for a model of `config` on `device`; and its largest rank.
pub(crate) fn load<D: Device>(
    config: &ModelConfig,
    files: &AdapterFiles,
    mut device: D,
) -> Result<(AdapterWeights<D>, usize), AdapterError> {
    let mut left: BTreeSet<&str> = files.tensors.names().collect();
    let (mut layers, mut largest_rank) = (Vec::new(), 0);
    let (mut offered, mut changed) = (BTreeSet::new(), BTreeSet::new());
    for (index, layer) in config.layers.iter().enumerate() {
        let mut parts = Vec::new();
        for target in targets(config, layer) {
            offered.insert(target.module);
            let module = format!("model.layers.{index}.{}", target.module);
            let [a, b] = ["A", "B"].map(|matrix| format!("{PREFIX}{module}.lora_{matrix}.weight"));
            match (left.remove(&*a), left.remove(&*b)) {
                (false, false) => continue,
                (true, false) => return Err(AdapterError::MissingTensor { name: b }),
                (false, true) => return Err(AdapterError::MissingTensor { name: a }),
                (true, true) => {}
            }
            changed.insert(target.module);
            largest_rank = largest_rank.max(files.config.rank_of(&module));
            parts.push((target.projection, low_rank(files, &mut device, &module, [&a, &b], &target)?));
        }
        layers.push(LayerChanges { parts });
    }
    if let Some(name) = left.first() {
        return Err(AdapterError::UnusedTensor {
            name: (*name).to_owned(),
            problem: why_unused(config, name),
        });
    }
    check_targets(&files.config, &offered, &changed)?;
    Ok((AdapterWeights { layers }, largest_rank))
}

/// What of a layer can be changed.
fn targets(config: &ModelConfig, layer: &Layer) -> Vec<Target> {
    use Projection::{Down, GateUp, Output, Qkv};
    let (shape, hidden) = (config.head_shape(), config.hidden);
    let (q, kv) = (shape.q_width(), shape.kv_heads * shape.head_dim);
    let target = |module, projection, first_column, n, k| Target { module, projection, first_column, n, k };
    let mut targets = vec![
        target("self_attn.q_proj", Qkv, 0, q, hidden),
        target("self_attn.k_proj", Qkv, q, kv, hidden),
        target("self_attn.v_proj", Qkv, q + kv, kv, hidden),
        target("self_attn.o_proj", Output, 0, hidden, q),
    ];
    if let FeedForward::Dense { width } = layer.feed_forward {
        targets.extend([
            target("mlp.gate_proj", GateUp, 0, width, hidden),
            target("mlp.up_proj", GateUp, width, width, hidden),
            target("mlp.down_proj", Down, 0, hidden, width),
        ]);
    }
    targets
}

/// A pair of matrices: of even rank, which the kernels take, and with the scale in the second one.
fn low_rank<D: Device>(
    files: &AdapterFiles,
    device: &mut D,
    module: &str,
    [a, b]: [&str; 2],
    &Target { first_column, n, k, .. }: &Target,
) -> Result<LowRank<D>, AdapterError> {
    let (rank, scale) = (files.config.rank_of(module), files.config.scale_of(module));
    let even = rank.next_multiple_of(2);
    let mut inner = read(&files.tensors, a, [rank, k])?;
    inner.resize(even * k, 0.0);
    let mut outer = vec![0.0; n * even];
    for (row, values) in
        outer.chunks_exact_mut(even).zip(read(&files.tensors, b, [n, rank])?.chunks_exact(rank))
    {
        row.iter_mut().zip(values).for_each(|(to, from)| *to = from * scale);
    }
    let mut matrix = |values: &[f32], width| {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let stored = StoredMatrix::of_values(&bytes, values.len() / width, width);
        device.matrix(&stored, WeightFormat::Full).map_err(AdapterError::OutOfMemory)
    };
    Ok(LowRank { a: matrix(&inner, k)?, b: matrix(&outer, even)?, first_column })
}

fn read(tensors: &Checkpoint, name: &str, expected: [usize; 2]) -> Result<Vec<f32>, AdapterError> {
    let found = tensors.shape(name).unwrap_or_default();
    if found != expected {
        return Err(AdapterError::Shape { name: name.to_owned(), expected, found: found.to_vec() });
    }
    let mut values = vec![0.0; expected[0] * expected[1]];
    tensors.tensor(name, &expected)?.read_f32(0, &mut values);
    Ok(values)
}

/// A module that the model has, that the configuration names and that no layer has matrices for: the file was not saved whole.
/// Names that the model has no module for are PEFT's to ignore, and it does.
fn check_targets(
    config: &AdapterConfig,
    offered: &BTreeSet<&str>,
    changed: &BTreeSet<&str>,
) -> Result<(), AdapterError> {
    // A target is an end of a module's name, or begins before it: `q_proj`, `model.layers.0.self_attn.q_proj`.
    let ends_with = |long: &str, short: &str| long == short || long.ends_with(&format!(".{short}"));
    let is_among = |modules: &BTreeSet<&str>, target: &str| {
        modules.iter().any(|module| ends_with(module, target) || ends_with(target, module))
    };
    let is_missing = |target: &&String| is_among(offered, target) && !is_among(changed, target);
    let missing = config.targets.iter().find(is_missing).map(String::as_str);
    match missing.or(changed.is_empty().then_some("q_proj")) {
        Some(module) => Err(AdapterError::MissingTensor {
            name: format!("{PREFIX}model.layers.*.{module}.lora_A.weight"),
        }),
        None => Ok(()),
    }
}

/// What a tensor is that has no place.
fn why_unused(config: &ModelConfig, name: &str) -> String {
    const SUPPORTED: &str =
        "q, k, v and o projections can have adapters, and gate, up and down projections of dense layers";
    let layers = config.layers.len();
    let layer =
        name.split_once("layers.").and_then(|(_, rest)| rest.split('.').next()?.parse::<usize>().ok());
    if !name.starts_with(PREFIX) {
        return format!("its name does not begin with {PREFIX}, as PEFT's do");
    }
    if name.contains("lora_magnitude_vector") {
        return "it is DoRA's: merge the adapter into the model, or train it without".to_owned();
    }
    if name.contains("embed_tokens") || name.contains("lm_head") || name.contains("lora_embedding") {
        return "embeddings and the output projection cannot have adapters: merge it into the model"
            .to_owned();
    }
    if name.contains(".experts") || name.contains(".router") || name.contains("mlp.gate.") {
        return format!("experts and their router cannot have adapters; {SUPPORTED}");
    }
    if layer.is_some_and(|layer| layer >= layers) {
        return format!("the model has {layers} layers: is the adapter for another one?");
    }
    format!(
        "{} of a {} has no adapters; {SUPPORTED}",
        name.strip_prefix(PREFIX).unwrap_or(name),
        config.architecture
    )
}
