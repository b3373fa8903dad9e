//! `adapter_config.json`, as PEFT writes it.

use regex::Regex;
use serde_json::Value;

use super::AdapterError;

/// Largest rank that makes sense: beyond it an adapter is no smaller than what it changes.
const MOST_RANK: u64 = 0xffff;

/// Settings that must be absent, null, false or empty, and what to do when they are not.
const UNSUPPORTED: [(&str, &str); 11] = [
    ("use_dora", "merge the adapter into the model, or train it without DoRA"),
    ("use_qalora", "merge the adapter into the model, or train it without QA-LoRA"),
    ("lora_bias", "train it with lora_bias = false"),
    ("fan_in_fan_out", "save it with matrices as torch.nn.Linear has them"),
    ("modules_to_save", "merge what was trained in full into the model, and save the adapter without it"),
    ("layer_replication", "save the enlarged model, and the adapter for it"),
    ("alora_invocation_tokens", "activated LoRA is not there yet: train a plain LoRA"),
    ("target_parameters", "matrices of experts cannot have adapters yet: target attention projections"),
    ("trainable_token_indices", "merge the trained embeddings into the model"),
    ("use_bdlora", "train it as a plain LoRA"),
    ("monteclora_config", "train it as a plain LoRA"),
];
/// Ways of starting a training that change the model's own weights, too.
const CHANGES_THE_MODEL: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// What an adapter's configuration says about its matrices.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    rank: usize,
    alpha: f64,
    /// The scale is by the root of the rank.
    is_rank_stabilised: bool,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
    /// Modules that must have matrices; empty when they are named by a pattern.
    pub(super) targets: Vec<String>,
}

impl AdapterConfig {
    pub(super) fn parse(json: &Value) -> Result<Self, AdapterError> {
        refuse_unsupported(json)?;
        let rank = read_rank(&json["r"]).ok_or_else(|| wrong("r", &json["r"], "a whole number from 1"))?;
        let alpha = json["lora_alpha"].as_f64().filter(|alpha| alpha.is_finite());
        Ok(Self {
            rank,
            alpha: alpha.ok_or_else(|| wrong("lora_alpha", &json["lora_alpha"], "a number"))?,
            is_rank_stabilised: json["use_rslora"].as_bool().unwrap_or(false),
            ranks: patterns(json, "rank_pattern", read_rank)?,
            alphas: patterns(json, "alpha_pattern", Value::as_f64)?,
            targets: targets(&json["target_modules"])?,
        })
    }

    /// The rank of a module, `model.layers.0.self_attn.q_proj`.
    pub(super) fn rank_of(&self, module: &str) -> usize {
        first_match(&self.ranks, module).unwrap_or(self.rank)
    }

    /// What a module's product is multiplied by.
    pub(super) fn scale_of(&self, module: &str) -> f32 {
        let (rank, alpha) = (self.rank_of(module) as f64, first_match(&self.alphas, module));
        let by = if self.is_rank_stabilised { rank.sqrt() } else { rank };
        (alpha.unwrap_or(self.alpha) / by) as f32
    }
}

fn read_rank(value: &Value) -> Option<usize> {
    value.as_u64().filter(|rank| (1..=MOST_RANK).contains(rank)).map(|rank| rank as usize)
}

/// As PEFT looks a module up: the first pattern that its whole name, or an end of it after a dot, matches.
fn first_match<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
}

fn patterns<T>(
    json: &Value,
    field: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<(Regex, T)>, AdapterError> {
    let entries = match &json[field] {
        Value::Null => return Ok(Vec::new()),
        Value::Object(entries) => entries,
        other => return Err(wrong(field, other, "an object")),
    };
    let entry = |(key, value): (&String, &Value)| {
        let of_key = format!("{field}.{key}");
        let pattern = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"))
            .map_err(|error| AdapterError::Config { field: of_key.clone(), problem: error.to_string() })?;
        Ok((pattern, read(value).ok_or_else(|| wrong(&of_key, value, "a number in its range"))?))
    };
    entries.iter().map(entry).collect()
}

/// A list of modules; or one text that is "all-linear" or a pattern, and then the file's tensors say which.
fn targets(value: &Value) -> Result<Vec<String>, AdapterError> {
    let expected = "a list of modules, a pattern or all-linear";
    match value {
        Value::Null | Value::String(_) => Ok(Vec::new()),
        Value::Array(modules) => {
            let name = |module: &Value| {
                module.as_str().map(str::to_owned).ok_or_else(|| wrong("target_modules", module, expected))
            };
            modules.iter().map(name).collect()
        }
        other => Err(wrong("target_modules", other, expected)),
    }
}

fn refuse_unsupported(json: &Value) -> Result<(), AdapterError> {
    let kind = &json["peft_type"];
    if kind.as_str() != Some("LORA") {
        return Err(unsupported("peft_type", kind, "only LORA is: merge others into the model"));
    }
    let bias = &json["bias"];
    if !(bias.is_null() || bias.as_str() == Some("none")) {
        return Err(unsupported("bias", bias, "train it with bias = \"none\""));
    }
    for (field, hint) in UNSUPPORTED {
        if is_set(&json[field]) {
            return Err(unsupported(field, &json[field], hint));
        }
    }
    let start = json["init_lora_weights"].as_str().unwrap_or_default();
    if CHANGES_THE_MODEL.iter().any(|way| start.starts_with(way)) {
        let hint = "it changes the model's own weights: save it with PEFT's path_initial_model_for_weight_conversion";
        return Err(unsupported("init_lora_weights", &json["init_lora_weights"], hint));
    }
    Ok(())
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => true,
    }
}

fn wrong(field: &str, found: &Value, expected: &str) -> AdapterError {
    let problem = match found {
        Value::Null => format!("is missing; it must be {expected}"),
        found => format!("is {found}, not {expected}"),
    };
    AdapterError::Config { field: field.to_owned(), problem }
}

fn unsupported(field: &'static str, found: &Value, hint: &'static str) -> AdapterError {
    AdapterError::Unsupported { field, found: found.to_string(), hint }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const Q: &str = "model.layers.1.self_attn.q_proj";

    fn with(change: Value) -> Result<AdapterConfig, String> {
        let mut json = json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none",
            "target_modules": ["q_proj"], "use_dora": false, "modules_to_save": null});
        for (field, value) in change.as_object().unwrap() {
            json[field] = value.clone();
        }
        AdapterConfig::parse(&json).map_err(|error| error.to_string())
    }

    #[test]
    fn scale_is_alpha_by_rank_or_by_its_root_and_patterns_go_first() {
        assert_eq!(with(json!({})).unwrap().scale_of(Q), 2.0);
        assert_eq!(with(json!({"use_rslora": true, "r": 16})).unwrap().scale_of(Q), 4.0);
        let patterns = json!({"rank_pattern": {"layers.1.self_attn.q_proj": 4, "q_proj": 32},
            "alpha_pattern": {"k_proj": 1, ".*q_proj": 8}});
        let config = with(patterns).unwrap();
        assert_eq!((config.rank_of(Q), config.scale_of(Q)), (4, 2.0));
        assert_eq!(config.rank_of("model.layers.0.self_attn.q_proj"), 32);
        assert_eq!(config.scale_of("model.layers.0.self_attn.k_proj"), 0.125);
        // A pattern is for a whole name between dots.
        assert_eq!(config.rank_of("model.layers.0.self_attn.xq_proj"), 8);
    }

    #[test]
    fn refusals_name_the_field_and_what_to_do() {
        for (change, message) in [
            (json!({"peft_type": "IA3"}), "peft_type = \"IA3\" is not supported; only LORA is"),
            (json!({"use_dora": true}), "use_dora = true is not supported; merge"),
            (json!({"bias": "all"}), "bias = \"all\" is not supported; train it with bias = \"none\""),
            (json!({"modules_to_save": ["lm_head"]}), "modules_to_save = [\"lm_head\"] is not supported"),
            (json!({"target_parameters": ["mlp.experts.gate_up_proj"]}), "target_parameters"),
            (json!({"init_lora_weights": "pissa_niter_4"}), "init_lora_weights"),
            (json!({"r": 0}), "r is 0, not a whole number from 1"),
            (json!({"r": null}), "r is missing"),
            (json!({"lora_alpha": "x"}), "lora_alpha is \"x\", not a number"),
            (json!({"rank_pattern": {"q_proj": -1}}), "rank_pattern.q_proj is -1"),
            (json!({"alpha_pattern": {"(": 1}}), "alpha_pattern.("),
            (json!({"target_modules": 3}), "target_modules is 3"),
        ] {
            let error = with(change.clone()).unwrap_err();
            assert!(error.contains(message), "{change}: {error}");
        }
        assert!(with(json!({"init_lora_weights": "gaussian", "modules_to_save": []})).is_ok());
        assert!(with(json!({"target_modules": "all-linear"})).unwrap().targets.is_empty());
    }
}
