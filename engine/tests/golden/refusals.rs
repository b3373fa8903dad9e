//! Each way in which a folder can be bad, and what the user is told; and folders that only look unusual.

use std::{fs, path::Path};

use baton_engine::{BindError, Dtype, Isa, KvMemory, LoadOptions, Model};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{Driver, MODELS, cases, folder, load};

/// A copy of a fixture whose files can be spoiled.
fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with("golden") {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

fn with_config(name: &str, edit: impl FnOnce(&mut Value)) -> TempDir {
    let copy = copy(name);
    edit_json(&copy.path().join("config.json"), edit);
    copy
}

/// The error and its causes in one line.
fn refusal(folder: &Path) -> String {
    let error = Model::load(folder, &LoadOptions::default()).err().expect("a refusal");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[track_caller]
fn check(folder: &Path, parts: &[&str]) {
    let text = refusal(folder);
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[test]
fn missing_folders_and_files_are_named() {
    check(Path::new("/no/such/model"), &["/no/such/model", "does not exist"]);
    let copy = copy("llama3-f32");
    fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    check(copy.path(), &["model.safetensors", "missing"]);
    fs::remove_file(copy.path().join("config.json")).unwrap();
    check(copy.path(), &["config.json", "missing"]);
    let copy = self::copy("qwen3-bf16-tied-sharded");
    fs::remove_file(copy.path().join("model-00002-of-00003.safetensors")).unwrap();
    check(copy.path(), &["model-00002-of-00003.safetensors", "missing"]);
}

#[test]
fn damaged_files_are_named() {
    let copy = copy("llama3-f32");
    let weights = copy.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let full = bytes.len().to_string();
    fs::write(&weights, &bytes[..100_000]).unwrap();
    check(copy.path(), &["model.safetensors is truncated", &full, "100000", "download it again"]);
    fs::write(&weights, &bytes[..64]).unwrap();
    check(copy.path(), &["model.safetensors is truncated"]);
    fs::write(&weights, b"").unwrap();
    check(copy.path(), &["model.safetensors"]);
    fs::write(&weights, b"<html>Not found, sorry about that</html>").unwrap();
    check(copy.path(), &["model.safetensors has a damaged header"]);
    fs::write(copy.path().join("config.json"), "{").unwrap();
    check(copy.path(), &["config.json is not valid JSON", "line 1"]);
}

#[test]
fn unsupported_models_are_told_what_is_supported() {
    let cases: [(&str, Value, &[&str]); 8] = [
        (
            "architectures",
            json!(["MambaForCausalLM"]),
            &["MambaForCausalLM", "LlamaForCausalLM, Qwen2ForCausalLM"],
        ),
        ("architectures", Value::Null, &["architectures is missing"]),
        (
            "rope_parameters",
            json!({"rope_type": "longrope", "rope_theta": 1e4}),
            &["rope_type = longrope", "llama3"],
        ),
        ("rope_parameters", json!({"rope_type": "llama3", "factor": 8.0}), &["low_freq_factor is missing"]),
        ("hidden_act", json!("gelu"), &["hidden_act = gelu", "silu"]),
        ("quantization_config", json!({"quant_method": "gptq"}), &["quantization_config = gptq"]),
        ("num_hidden_layers", json!(-1), &["num_hidden_layers is -1"]),
        ("num_key_value_heads", json!(3), &["num_key_value_heads 3 does not divide 4"]),
    ];
    for (field, value, parts) in cases {
        let copy = with_config("llama3-f32", |config| config[field] = value);
        check(copy.path(), parts);
    }
}

#[test]
fn each_family_refuses_what_it_has_no_code_for() {
    let (mistral, moe, gpt) = ("mistral-bf16-window", "qwen3-moe-bf16", "gpt-oss-mxfp4");
    let part = json!({"rope_type": "default", "partial_rotary_factor": 0.5});
    let mscale = json!({"rope_type": "yarn", "factor": 8.0, "mscale": 1.0});
    let cases: [(&str, &str, Value, &[&str]); 13] = [
        ("llama3-f32", "rope_parameters", part, &["partial_rotary_factor = 0.5"]),
        ("llama3-f32", "rope_parameters", mscale, &["mscale = 1.0"]),
        ("llama3-f32", "attention_bias", json!(true), &["attention_bias = true", "false"]),
        ("qwen2-f16", "use_sliding_window", json!(true), &["use_sliding_window = true"]),
        ("qwen2-f16", "quantization_config", json!({"quant_method": "mxfp4"}), &["= mxfp4", "unquantized"]),
        (mistral, "sliding_window", json!(0), &["sliding_window is 0"]),
        (mistral, "layer_types", json!(["sliding_attention"]), &["layer_types", "sliding_attention"]),
        (moe, "num_experts_per_tok", json!(7), &["num_experts_per_tok 7 is more than 5 experts"]),
        (moe, "moe_intermediate_size", json!(33), &["moe_intermediate_size 33 is odd"]),
        (gpt, "quantization_config", Value::Null, &["quantization_config = none", "mxfp4"]),
        (gpt, "layer_types", json!(["chunked_attention"]), &["layer_types = chunked_attention"]),
        (gpt, "layer_types", json!(["full_attention"]), &["layer_types = missing"]),
        (gpt, "intermediate_size", json!(72), &["intermediate_size 72 is not a multiple of 32"]),
    ];
    for (name, field, value, parts) in cases {
        let copy = with_config(name, |config| config[field] = value);
        check(copy.path(), parts);
    }
}

/// Without the setting a Mistral has transformers' default window, with null it has none.
#[test]
fn the_window_of_mistral_can_be_left_out_and_switched_off() {
    let name = "mistral-bf16-window";
    let case = &cases(name)[7];
    let run = |folder: &Path| {
        let options = LoadOptions { dtype: Dtype::F32, ..LoadOptions::default() };
        Driver::new(&Model::load(folder, &options).unwrap(), 16, 1).prefill(&case.prompt, 512).1
    };
    let off = run(with_config(name, |config| config["sliding_window"] = Value::Null).path());
    let absent = |config: &mut Value| _ = config.as_object_mut().unwrap().remove("sliding_window");
    let long = run(with_config(name, absent).path());
    assert!(off == long, "300 tokens fit into the default window");
    assert!(off != run(&folder(name)), "and not into the fixture's");
}

#[test]
fn wrong_tensors_are_named() {
    let copy = with_config("llama3-f32", |config| config["num_hidden_layers"] = json!(3));
    check(copy.path(), &["tensor model.layers.2.input_layernorm.weight is missing"]);
    let copy = with_config("llama3-f32", |config| config["intermediate_size"] = json!(128));
    check(copy.path(), &["tensor model.layers.0.mlp.gate_proj.weight has shape [112, 64]", "[128, 64]"]);
    let copy = with_config("qwen3-bf16-tied-sharded", |config| config["tie_word_embeddings"] = json!(false));
    check(copy.path(), &["tensor lm_head.weight is missing"]);
    let weights = copy.path().join("model-00001-of-00003.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let text = String::from_utf8_lossy(&bytes[8..]).find("BF16").unwrap();
    // I16 has the size of BF16; the header stays as long as it was.
    fs::write(&weights, [&bytes[..8 + text - 1], b"\"I16\" ", &bytes[8 + text + 5..]].concat()).unwrap();
    check(copy.path(), &["stored as I16", "supported: BF16, F16, F32"]);
    let copy = with_config("gpt-oss-mxfp4", |config| config["num_local_experts"] = json!(3));
    check(copy.path(), &["tensor model.layers.0.mlp.router.weight has shape [4, 64]", "[3, 64]"]);
    let copy = with_config("qwen3-moe-bf16", |config| config["mlp_only_layers"] = json!([]));
    check(copy.path(), &["tensor model.layers.3.mlp.gate.weight is missing"]);
}

#[test]
fn a_pool_that_does_not_fit_is_refused() {
    let model = load("llama3-f32", Dtype::Bf16, Isa::detect());
    let layout = model.kv_layout(16);
    let other = model.kv_layout(16);
    let memory = KvMemory::allocate(&layout, 3);
    let error = model.bind(memory.clone(), &other, 4, 1).err().unwrap();
    assert!(matches!(error, BindError::TooSmall { blocks: 4, .. }), "{error}");
    let other = baton_engine::KvLayout { kv_heads: 1, ..layout };
    assert!(matches!(model.bind(memory, &other, 1, 1).err().unwrap(), BindError::Layout { .. }));
}

#[test]
fn both_spellings_of_rope_settings_give_the_same_model() {
    let older = with_config("llama3-f32", |config| {
        let mut rope = config["rope_parameters"].take();
        config.as_object_mut().unwrap().remove("rope_parameters");
        config["rope_theta"] = rope["rope_theta"].take();
        rope.as_object_mut().unwrap().remove("rope_theta");
        config["rope_scaling"] = rope;
    });
    let prompt = &cases("llama3-f32")[6].prompt;
    let run = |model: &Model| Driver::new(model, 16, 1).prefill(prompt, 512).1;
    let older =
        Model::load(older.path(), &LoadOptions { dtype: Dtype::F32, ..LoadOptions::default() }).unwrap();
    assert!(run(&older) == run(&load("llama3-f32", Dtype::F32, Isa::detect())));
    // And the setting matters: without scaling the logits are others.
    let plain =
        with_config("llama3-f32", |config| config["rope_parameters"] = json!({"rope_theta": 500_000.0}));
    let plain =
        Model::load(plain.path(), &LoadOptions { dtype: Dtype::F32, ..LoadOptions::default() }).unwrap();
    assert!(run(&older) != run(&plain));
}

#[test]
fn end_of_sequence_ids_come_from_either_file_as_number_or_list() {
    let eos = |folder: &Path| Model::load(folder, &LoadOptions::default()).unwrap().eos_token_ids().to_vec();
    let found = ["qwen3-bf16-tied-sharded", "llama3-f32", "qwen2-f16"].map(|name| eos(&folder(name)));
    assert_eq!(found, [vec![7], vec![3, 5], vec![9]]);
    let copy = with_config("llama3-f32", |config| config["eos_token_id"] = json!(11));
    assert_eq!(eos(copy.path()), [3, 5], "generation_config.json comes first");
    fs::remove_file(copy.path().join("generation_config.json")).unwrap();
    assert_eq!(eos(copy.path()), [11]);
}

#[test]
fn progress_reaches_the_whole() {
    let seen = std::sync::Mutex::new(Vec::new());
    let progress = |p| seen.lock().unwrap().push(p);
    for name in MODELS {
        seen.lock().unwrap().clear();
        Model::load(&folder(name), &LoadOptions { progress: Some(&progress), ..LoadOptions::default() })
            .unwrap();
        let seen = seen.lock().unwrap();
        assert!(seen.windows(2).all(|w| w[0].done < w[1].done && w[0].total == w[1].total));
        assert_eq!(seen.last().unwrap().done, seen.last().unwrap().total);
    }
}
