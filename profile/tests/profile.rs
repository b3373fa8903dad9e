//! Profiles as files, and estimates of hardware.

use std::path::Path;

use baton_profile::{
    ACCELERATORS, Accelerator, Assumptions, Estimate, MODELS, ModelShape, Profile, StepShape,
};

/// Llama-3.1-8B on one H100.
fn estimated() -> Profile {
    Estimate::of("p5", "llama-3.1-8b").expect("published").profile().expect("8 billion parameters fit")
}

fn parse(text: &str) -> Result<Profile, String> {
    Profile::parse(text, Path::new("p.json")).map_err(|error| error.to_string())
}

#[test]
fn what_is_written_is_read() {
    let profile = estimated();
    assert_eq!(parse(&profile.to_json()), Ok(profile));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let text = estimated().to_json();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in {text}");
        parse(&text.replacen(from, to, 1)).expect_err("it is wrong")
    };
    let version = changed("\"version\": 2", "\"version\": 1");
    assert!(version.starts_with("p.json: this is \"baton-profile\", version 1"), "{version}");
    let unknown = changed("\"startup_s\"", "\"start_up\"");
    assert!(unknown.starts_with("p.json:") && unknown.contains("start_up"), "{unknown}");
    let negative = changed("\"fixed_ms\": ", "\"fixed_ms\": -");
    assert!(negative.contains("piece 1"), "{negative}");
    let block = changed("\"block_tokens\": 16", "\"block_tokens\": 0");
    assert!(block.contains("`kv.block_tokens` is 0"), "{block}");
    assert!(parse("{").expect_err("no JSON").starts_with("p.json:1: "));
}

#[test]
fn pieces_must_say_what_every_step_takes() {
    let text = estimated().to_json();
    let end = text.find("\"up_to_tokens\"").expect("two pieces");
    let line = text[end..].lines().next().expect("a line");
    let endless = parse(&text.replacen(line, "\"up_to_tokens\": null,", 1)).expect_err("two without end");
    assert!(endless.contains("in order of their ends"), "{endless}");
}

#[test]
fn estimates_follow_from_data_sheets() {
    let profile = estimated();
    // 16 GB over 3.35 TB/s at 70 %, and 32 layers of 25 us.
    let step = profile.decode.step_ms(1, 0);
    assert!((step - (16.06e9 / (3.35e12 * 0.7) * 1e3 + 0.8)).abs() < 1e-4, "{step}");
    // 16 GFLOP a token at half of 989 TFLOP/s.
    let prompt = profile.prefill.step_ms(4_096, 0.0);
    assert!((prompt - 0.8 - 4_096.0 * 16.06e9 / 494.5e12 * 1e3).abs() < 1e-2, "{prompt}");
    assert_eq!(profile.kv.bytes_per_token, 131_072.0);
}

#[test]
fn every_machine_and_model_has_an_estimate_or_says_what_it_needs() {
    for accelerator in ACCELERATORS {
        for model in MODELS {
            for accelerators in [1, 2, 4, 8] {
                let estimate =
                    Estimate { accelerator, accelerators, model, assumptions: Assumptions::default() };
                match estimate.profile() {
                    Ok(profile) => {
                        assert_eq!(parse(&profile.to_json()), Ok(profile.clone()));
                        assert!(profile.name.contains("estimated"));
                    }
                    Err(error) => {
                        assert!(
                            model.weight_bytes() > 0.7 * accelerator.memory_bytes * f64::from(accelerators)
                        );
                        assert!(error.to_string().contains("more accelerators"), "{error}");
                    }
                }
            }
        }
    }
    assert!(Accelerator::by_name("P6-B200").is_some() && ModelShape::by_name("qwen3-32b").is_some());
}

#[test]
fn a_prompt_takes_the_sum_of_its_steps() {
    let profile = estimated();
    let chunk = u64::from(profile.limits.step_tokens);
    let (cached, mut done, mut sum) = (96, 0, 0.0);
    let new = 3 * chunk + 777;
    while done < new {
        let tokens = chunk.min(new - done);
        let mut step = StepShape::default();
        step.prompt(tokens, cached + done);
        sum += profile.step_ms(&step);
        done += tokens;
    }
    assert!((profile.prompt_ms(new, cached) / sum - 1.0).abs() < 1e-12);
}
