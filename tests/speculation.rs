//! Speculative decoding over real processes: the plain answers, in fewer steps.

use serde_json::{Value, json};

use crate::harness::{
    Answer, Ask, Deployment, Event, ModelFolder, Process, Role, Shape, Up, all_at_once, prompt_of,
};

const NGRAM: &str =
    r#"{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "prompt_lookup_max": 4}"#;

/// The draft model in a folder, always asked for three tokens.
fn draft_model(folder: &ModelFolder) -> String {
    let config = json!({
        "method": "draft_model", "model": folder.arg(), "num_speculative_tokens": 3, "adaptive": false,
    });
    config.to_string()
}

/// Requests of all kinds; the prompts say things twice.
fn requests() -> Vec<Ask> {
    let prompt = |length, seed| {
        let once = prompt_of(length, seed);
        [once.as_slice(), &once[..length / 2]].concat()
    };
    let mut asks: Vec<Ask> = [1, 15, 17, 64, 200, 500]
        .into_iter()
        .zip(0..)
        .map(|(n, seed)| Ask::new(&prompt(n, seed), 40))
        .collect();
    for (length, seed) in [(10, 7), (100, 8), (300, 9)] {
        let sampled = Ask::new(&prompt(length, seed), 40).with("temperature", 0.9).with("seed", seed);
        asks.push(sampled.clone().with("top_p", 0.9).with("frequency_penalty", 0.5));
        asks.push(sampled.with("min_tokens", 5).with("ignore_eos", false));
    }
    // What the model was trained on, and has to say again; a list of values; a text that ends at a string.
    let chat = |content: &str| Ask::new(&[10], 40).with("prompt", content);
    asks.push(chat("Parcel 7 goes to Lisbon by train. Parcel 8 goes to Oslo by boat. Parcel 7 goes to"));
    asks.push(chat("Parcel 7 goes to Lisbon by train.").with("stop", json!(["o", "by"])));
    asks.push(chat("Parcels:").with("response_format", json!({"type": "json_schema", "json_schema": {
        "name": "parcels", "strict": true, "schema": {"type": "array", "items": {"type": "integer"}, "maxItems": 9}
    }})).with("ignore_eos", false));
    asks
}

fn answers(up: &Up) -> Vec<Answer> {
    let deployment = Deployment::up(up);
    let answers = all_at_once(&requests(), deployment.client());
    deployment.stop();
    answers
}

/// Counts of a worker's drafts: drafts, tokens in them, and how many of these were right.
fn counts(deployment: &Deployment) -> [f64; 3] {
    let metrics = deployment.worker(Role::Decode).metrics();
    ["drafts", "draft_tokens", "accepted_tokens"]
        .map(|what| metrics.get(&format!("vllm:spec_decode_num_{what}_total"), &[]))
}

#[test]
fn a_pair_that_speculates_gives_the_plain_answers() {
    let (bundled, made_up) = (ModelFolder::bundled(), ModelFolder::made_up(Shape::TINY));
    let other = ModelFolder::made_up(Shape { seed: 9, layers: 2, ..Shape::TINY });
    for (model, config) in
        [(&bundled, NGRAM.to_owned()), (&bundled, draft_model(&bundled)), (&made_up, draft_model(&other))]
    {
        let expected = answers(&Up::new(model, 0, 1));
        let deployment = Deployment::up(&Up::new(model, 1, 1).with("--speculative-config", &config));
        for (index, (answer, expected)) in
            all_at_once(&requests(), deployment.client()).iter().zip(&expected).enumerate()
        {
            assert_eq!(answer, expected, "{config}: request {index}");
        }
        let [drafts, tokens, accepted] = counts(&deployment);
        assert!(
            drafts > 0.0 && tokens >= drafts && accepted <= tokens,
            "{config}: {drafts} {tokens} {accepted}"
        );
        let metrics = deployment.worker(Role::Decode).metrics();
        let at = |position: &str| {
            let name = "vllm:spec_decode_num_accepted_tokens_per_pos_total";
            metrics.get(name, &[("position", position)])
        };
        assert!(at("0") >= at("1") && at("1") >= at("2"));
        if config == draft_model(&bundled) {
            assert!(accepted > 0.5 * tokens, "it drafts for itself: {accepted} of {tokens}");
        }
        assert_eq!(deployment.fallbacks(), 0.0);
        assert!(!deployment.worker(Role::Prefill).metrics().has("vllm:spec_decode_num_drafts"));
        deployment.stop();
    }
}

#[test]
fn a_stream_brings_every_token_once_and_bills_them() {
    let model = ModelFolder::bundled();
    let up = Up::new(&model, 0, 1).with("--speculative-config", draft_model(&model));
    let deployment = Deployment::up(&up);
    let client = deployment.client();
    let ask = Ask::new(&prompt_of(30, 3), 30);
    let whole = ask.answer(client);
    let events: Vec<Value> = ask
        .stream(client)
        .filter_map(|event| if let Event::Data(data) = event { Some(data) } else { None })
        .collect();
    assert_eq!(Answer::from_events(&events), whole);
    assert_eq!((whole.usage.1, whole.tokens.len()), (30, 30));
    // Fewer steps than tokens, and each token has its time.
    let metrics = deployment.worker(Role::Decode).metrics();
    let (steps, tokens) =
        (metrics.get("baton_engine_steps_total", &[]), metrics.get("vllm:generation_tokens_total", &[]));
    assert!(steps < 0.7 * tokens, "{steps} steps, {tokens} tokens");
    assert_eq!(metrics.get("vllm:inter_token_latency_seconds_count", &[]), 2.0 * 29.0);
    deployment.stop();
}

#[test]
fn what_cannot_be_used_is_refused_with_the_reason() {
    let model = ModelFolder::made_up(Shape::TINY);
    let up = |config: &str| {
        let finished = Process::run(&[
            "up",
            "--model",
            &model.arg(),
            "--port",
            "0",
            "--no-restart",
            "--speculative-config",
            config,
        ]);
        assert!(!finished.status.success());
        finished.stderr
    };
    let stderr = up(r#"{"method": "ngram", "num_speculative_tokens": 4, "ngram_size": 3}"#);
    assert!(stderr.contains("ngram_size") && stderr.contains("prompt_lookup_max"), "{stderr}");
    let stderr = up(r#"{"method": "draft_model", "model": "/nowhere/draft", "num_speculative_tokens": 4}"#);
    assert!(stderr.contains("/nowhere/draft"), "{stderr}");
    let stderr = up(&draft_model(&ModelFolder::bundled()));
    assert!(stderr.contains("cannot use the draft model") && stderr.contains("320"), "{stderr}");
}
