//! Adapters against PEFT, on every device; and every folder that is refused, with what the user is told.

use std::{fs, path::Path};

use baton_engine::{AdapterError, Dtype, Isa, LoraAdapters};
use safetensors::{SafeTensors, serialize, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    fixture::{
        Case, Driver, MODELS, adapter_folders, cases, folder, load, load_adapter, load_int8, load_reference,
    },
    transformers::relative_error,
};

const DENSE: &str = "qwen3-bf16-tied-sharded";
const ALL: &str = "lora/qwen3-bf16-tied-sharded/all";

fn for_each_case(dtype: Dtype, mut check: impl FnMut(&str, &mut Driver, &baton_engine::LoraAdapter, &Case)) {
    let mut adapters = 0;
    for name in MODELS {
        for isa in Isa::available() {
            let model = load(name, dtype, isa);
            for folder in adapter_folders(name) {
                let adapter = load_adapter(&model, &folder);
                let mut driver = Driver::new(&model, 16, 2);
                for case in cases(&folder) {
                    let label = format!("{folder} {isa} prompt of {}", case.prompt.len());
                    check(&label, &mut driver, &adapter, &case);
                }
                adapters += 1;
            }
        }
    }
    assert!(adapters >= 7, "the fixtures are there");
}

#[test]
fn f32_logits_and_64_greedy_tokens_are_those_of_peft() {
    for_each_case(Dtype::F32, |label, driver, adapter, case| {
        let (tokens, rows) = driver.greedy_with(&case.prompt, 512, case.greedy.len(), Some(adapter));
        let error = relative_error(&rows[0], &case.f32_logits);
        assert!(error < 1e-5, "{label}: relative error {error}");
        assert_eq!(tokens, case.greedy, "{label}");
    });
}

#[test]
fn the_reference_device_gives_the_logits_of_peft() {
    for name in MODELS {
        let model = load_reference(name);
        for folder in adapter_folders(name) {
            let adapter = load_adapter(&model, &folder);
            let mut driver = Driver::new(&model, 16, 1);
            for case in cases(&folder) {
                let (tokens, rows) = driver.greedy_with(&case.prompt, 77, 4, Some(&adapter));
                let error = relative_error(&rows[0], &case.f32_logits);
                assert!(error < 1e-5, "{folder} prompt of {}: relative error {error}", case.prompt.len());
                assert_eq!(tokens, case.greedy[..4], "{folder} prompt of {}", case.prompt.len());
            }
        }
    }
}

/// The yardstick is that of the models without adapters: see the test of the same name there.
#[test]
fn bf16_logits_are_no_further_from_exact_than_peft_in_bf16() {
    let (mut ours_sum, mut theirs_sum) = (0.0, 0.0);
    for_each_case(Dtype::Bf16, |label, driver, adapter, case| {
        let (sequence, row) = driver.prefill_with(&case.prompt, 512, Some(adapter));
        driver.release(sequence);
        let ours = relative_error(&row, &case.bf16_reference);
        let theirs = relative_error(&case.bf16_logits, &case.bf16_reference);
        // Where experts are chosen, a near tie at an earlier token may go the other way.
        let bound = if label.contains("moe") { 3.0 } else { 2.0 };
        assert!(ours < bound * theirs, "{label}: relative error {ours}, PEFT in bf16 {theirs}");
        (ours_sum, theirs_sum) = (ours_sum + ours, theirs_sum + theirs);
    });
    assert!(ours_sum < theirs_sum, "mean error: ours {ours_sum}, PEFT in bf16 {theirs_sum} (sums)");
}

/// The model's weights are in eight bits then, the adapter's are not.
#[test]
fn an_adapter_works_over_int8_weights() {
    let model = load_int8(DENSE, baton_engine::DeviceKind::Cpu, Isa::detect());
    let adapter = load_adapter(&model, ALL);
    let mut driver = Driver::new(&model, 16, 2);
    for case in cases(ALL) {
        let (sequence, row) = driver.prefill_with(&case.prompt, 512, Some(&adapter));
        driver.release(sequence);
        let error = relative_error(&row, &case.f32_logits);
        assert!(error < 0.12, "prompt of {}: relative error {error}", case.prompt.len());
    }
}

/// A copy of an adapter whose files can be spoiled.
struct Copy(TempDir);

impl Copy {
    fn of(name: &str) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(folder(name).join(file), copy.path().join(file)).unwrap();
        }
        Self(copy)
    }

    fn with_config(name: &str, changes: &Value) -> Self {
        let copy = Self::of(name);
        let path = copy.0.path().join("adapter_config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (field, value) in changes.as_object().unwrap() {
            config[field] = value.clone();
        }
        fs::write(path, config.to_string()).unwrap();
        copy
    }

    /// With its tensors renamed, or left out for an empty name.
    fn with_tensors(name: &str, rename: impl Fn(&str) -> String) -> Self {
        let copy = Self::of(name);
        let path = copy.0.path().join("adapter_model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let renamed: Vec<(String, TensorView<'_>)> = tensors
            .iter()
            .map(|(name, tensor)| (rename(name), tensor))
            .filter(|(name, _)| !name.is_empty())
            .collect();
        fs::write(path, serialize(renamed, None).unwrap()).unwrap();
        copy
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

#[track_caller]
fn check(model: &str, folder: &Path, parts: &[&str]) {
    let model = load(model, Dtype::F32, Isa::Portable);
    let error = model.load_adapter("x", folder, 1).expect_err("a refusal").to_string();
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn missing_and_damaged_files_are_named() {
    check(DENSE, Path::new("/no/such/adapter"), &["/no/such/adapter", "does not exist"]);
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let copy = Copy::of(ALL);
        fs::remove_file(copy.path().join(file)).unwrap();
        check(DENSE, copy.path(), &[file, "missing"]);
        fs::write(copy.path().join(file), "{").unwrap();
        check(DENSE, copy.path(), &[file]);
    }
}

#[test]
fn settings_without_code_are_refused_by_name() {
    let check_config = |changes: Value, parts: &[&str]| {
        check(DENSE, Copy::with_config(ALL, &changes).path(), parts);
    };
    check_config(json!({"use_dora": true}), &["use_dora", "merge"]);
    check_config(json!({"bias": "lora_only"}), &["bias", "none"]);
    check_config(json!({"modules_to_save": ["embed_tokens"]}), &["modules_to_save", "embed_tokens"]);
    // A rank that is not the tensors'.
    check_config(json!({"r": 4}), &["lora_A.weight", "[8, 64]", "[4, 64]"]);
    check_config(json!({"rank_pattern": {"layers.0.mlp.up_proj": 9}}), &["layers.0.mlp.up_proj", "[9, 64]"]);
}

#[test]
fn tensors_without_a_place_are_refused_by_name() {
    let check_renamed = |from: &str, to: &str, parts: &[&str]| {
        let copy = Copy::with_tensors(ALL, |name| name.replace(from, to));
        check(DENSE, copy.path(), parts);
    };
    check_renamed("layers.2", "layers.3", &["layers.3", "the model has 3 layers"]);
    check_renamed("base_model.model.", "", &["does not begin with base_model.model."]);
    check_renamed(
        "layers.1.mlp.up_proj.lora_A.weight",
        "layers.1.mlp.up_proj.lora_magnitude_vector",
        &["missing"],
    );
    check_renamed("layers.1.mlp.up_proj", "embed_tokens", &["embed_tokens", "merge"]);
    check_renamed("mlp.up_proj", "mlp.experts.0.up_proj", &["experts", "cannot have adapters"]);
    check_renamed(
        "self_attn.k_proj",
        "self_attn.qkv_proj",
        &["qkv_proj", "Qwen3ForCausalLM has no adapters"],
    );
    let without = |what: &'static str| {
        Copy::with_tensors(ALL, move |name| if name.contains(what) { String::new() } else { name.to_owned() })
    };
    check(
        DENSE,
        without("layers.1.mlp.up_proj.lora_B").path(),
        &["layers.1.mlp.up_proj.lora_B.weight is missing"],
    );
    check(DENSE, without("up_proj").path(), &["up_proj", "is missing"]);
    check(DENSE, without("lora").path(), &["is missing"]);
}

#[test]
fn adapters_of_other_models_are_refused() {
    // Another number of heads.
    check("mistral-bf16-window", &folder(ALL), &["shape [192, 8]", "make it [96, 8]"]);
    // More layers, and fewer.
    check("qwen3-moe-unnormalised", &folder("lora/qwen3-moe-bf16/attention"), &["shape"]);
    check("qwen2-f16", &folder(ALL), &["shape"]);
}

#[test]
fn a_registry_loads_unloads_and_knows_weights_from_names() {
    let model = load(DENSE, Dtype::Bf16, Isa::detect());
    let adapters = LoraAdapters::new(model, 2, 1);
    let all = adapters.load("one", &folder(ALL)).unwrap();
    assert_eq!((all.name(), all.rank()), ("one", 8));
    assert!(all.bytes() > 10_000, "{}", all.bytes());
    let again = adapters.load("one", &folder(ALL));
    assert!(matches!(again, Err(AdapterError::AlreadyLoaded { .. })), "{again:?}");
    let bad = adapters.load("a,b", &folder(ALL));
    assert!(matches!(bad, Err(AdapterError::BadName { .. })), "{bad:?}");
    let parts = adapters.load("two", &folder("lora/qwen3-bf16-tied-sharded/parts")).unwrap();
    let third = adapters.load("three", &folder(ALL));
    assert!(matches!(third, Err(AdapterError::TooMany { loaded: 2 })), "{third:?}");
    assert_ne!(all.revision(), parts.revision());

    assert!(adapters.unload("one"));
    assert!(!adapters.unload("one"));
    assert!(adapters.get("one").is_none());
    assert_eq!(adapters.load("three", &folder(ALL)).unwrap().revision(), all.revision(), "the same weights");
    let names: Vec<_> = adapters.all().iter().map(|loaded| loaded.adapter.name().to_owned()).collect();
    assert_eq!(names, ["three", "two"]);
}
