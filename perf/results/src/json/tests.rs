use std::path::Path;
use std::{fs, iter};

use anyhow::Result;
use serde_json::Value;

use super::*;
use crate::testing::{Answer, client, complete, everything, measured, steady};
use crate::{Comparison, Document, Invalid, Origin};

/// The schema of that name in `docs/schemas/`.
fn schema(name: &str) -> Result<jsonschema::Validator> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas").join(name);
    let schema: Value = serde_json::from_slice(&fs::read(&path)?)?;
    Ok(jsonschema::validator_for(&schema)?)
}

fn complaints(schema: &jsonschema::Validator, document: &Value) -> Vec<String> {
    schema.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn saved(document: &Document) -> Result<(Value, SavedDocument)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run.json");
    document.write(&path)?;
    Ok((serde_json::from_slice(&fs::read(&path)?)?, SavedDocument::read(&path)?))
}

#[test]
fn a_run_is_read_back_as_it_was_and_keeps_to_the_schema() -> Result<()> {
    let schema = schema("bench-run-1.json")?;
    let simulated = {
        let mut run = measured(steady(2));
        run.origin = Origin::Simulated { profile: "p5 (estimate)".into() };
        run
    };
    for measured in [everything(), measured(steady(3)), measured(Vec::new()), simulated] {
        let document = Document::new(measured);
        let (json, read) = saved(&document)?;
        assert_eq!(complaints(&schema, &json), Vec::<String>::new());
        assert_eq!(read, SavedDocument::Run(document));
    }
    Ok(())
}

#[test]
fn the_schema_refuses_what_it_does_not_describe() -> Result<()> {
    let schema = schema("bench-run-1.json")?;
    let (json, _) = saved(&Document::new(everything()))?;
    for (pointer, field) in [
        ("", "unheard"),
        ("/run", "unheard"),
        ("/summary", "unheard"),
        ("/records/0", "unheard"),
        ("/validity", "unheard"),
    ] {
        let mut changed = json.clone();
        changed
            .pointer_mut(pointer)
            .and_then(Value::as_object_mut)
            .expect("an object")
            .insert(field.into(), 1.into());
        assert!(!complaints(&schema, &changed).is_empty(), "{pointer}/{field}");
    }
    for pointer in ["/run/seed", "/summary/window", "/records/0/index", "/schema_version"] {
        let mut changed = json.clone();
        *changed.pointer_mut(pointer).expect("a field") = "seven".into();
        assert!(!complaints(&schema, &changed).is_empty(), "{pointer}");
    }
    Ok(())
}

#[test]
fn a_comparison_is_read_back_as_it_was_and_keeps_to_the_schema() -> Result<()> {
    let pair = (Document::new(everything()), Document::new(everything()));
    let comparison = Comparison::new(&[pair.clone(), pair])?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a-b.json");
    comparison.write(&path)?;
    let json: Value = serde_json::from_slice(&fs::read(&path)?)?;
    assert_eq!(complaints(&schema("bench-comparison-1.json")?, &json), Vec::<String>::new());
    assert_eq!(SavedDocument::read(&path)?, SavedDocument::Comparison(comparison));
    Ok(())
}

#[test]
fn large_runs_have_their_requests_beside_them() -> Result<()> {
    let schema = schema("bench-run-1.json")?;
    let document = Document::new(measured(steady(INLINE_RECORDS as u32 + 1)));
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("large.json");
    document.write(&path)?;
    let json: Value = serde_json::from_slice(&fs::read(&path)?)?;
    assert_eq!(complaints(&schema, &json), Vec::<String>::new());
    assert_eq!(json["records_file"]["name"], "large.records.jsonl");
    assert_eq!(json.get("records"), None);
    assert_eq!(SavedDocument::read(&path)?, SavedDocument::Run(document));

    let beside = folder.path().join("large.records.jsonl");
    let good = fs::read_to_string(&beside)?;
    fs::write(&beside, good.replacen("128", "127", 1))?;
    let error = SavedDocument::read(&path).expect_err("another file").to_string();
    assert!(error.contains("large.records.jsonl does not belong to") && error.contains("SHA-256"), "{error}");
    fs::remove_file(&beside)?;
    let error = SavedDocument::read(&path).expect_err("no file").to_string();
    assert!(error.contains("large.records.jsonl"), "{error}");
    Ok(())
}

#[test]
fn a_hundred_thousand_requests_are_written_and_read() -> Result<()> {
    let answer = |index: u32| Answer {
        index,
        intended_us: u64::from(index) * 1_000,
        sent_us: u64::from(index) * 1_000,
        tokens: 4,
        ..Answer::default()
    };
    let document = Document::new(measured((0..100_000).map(|index| complete(&answer(index))).collect()));
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("huge.json");
    document.write(&path)?;
    // What is not a request's stays small, whoever reads it.
    assert!(fs::metadata(&path)?.len() < 20_000);
    assert_eq!(SavedDocument::read(&path)?, SavedDocument::Run(document));
    Ok(())
}

/// What reading `text` is refused with.
fn refusal(text: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run.json");
    fs::write(&path, text)?;
    Ok(SavedDocument::read(&path).expect_err("not readable").to_string())
}

#[test]
fn other_versions_and_other_files_are_refused_in_a_sentence() -> Result<()> {
    let newer = refusal(r#"{"schema": "baton.bench.run", "schema_version": 2}"#)?;
    assert!(
        newer.ends_with("has schema version 2, and this Baton reads version 1: use a newer Baton"),
        "{newer}"
    );
    let older = refusal(r#"{"schema": "baton.bench.run", "schema_version": 0}"#)?;
    assert!(older.ends_with("run the benchmark again, or use the Baton that wrote it"), "{older}");
    let other = refusal(r#"{"mean_ttft_ms": 3}"#)?;
    assert!(other.contains("not a result of `baton bench`: its field \"schema\" is missing"), "{other}");
    let cut = refusal("{\n\"schema\": \"baton.bench.run\",\n")?;
    assert!(cut.contains("run.json, line 3: "), "{cut}");
    let hollow = refusal(r#"{"schema": "baton.bench.run", "schema_version": 1}"#)?;
    assert!(hollow.contains("missing field `validity`"), "{hollow}");
    Ok(())
}

#[test]
fn a_line_that_is_no_request_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run.json");
    Document::new(measured(steady(INLINE_RECORDS as u32 + 1))).write(&path)?;
    let beside = path.with_extension("records.jsonl");
    let text = fs::read_to_string(&beside)?;
    let damaged: String =
        text.lines().enumerate().flat_map(|(n, line)| [if n == 6 { "{}" } else { line }, "\n"]).collect();
    let sha = write::hex(&<sha2::Sha256 as sha2::Digest>::digest(damaged.as_bytes()));
    fs::write(&beside, damaged)?;
    let mut json: Value = serde_json::from_slice(&fs::read(&path)?)?;
    json["records_file"]["sha256"] = sha.into();
    fs::write(&path, json.to_string())?;
    let error = SavedDocument::read(&path).expect_err("damaged").to_string();
    assert!(error.contains("run.records.jsonl, line 7: missing field"), "{error}");
    Ok(())
}

#[test]
fn validity_goes_the_way_through_a_file() -> Result<()> {
    let mut run = measured(steady(2));
    run.origin = Origin::Measured { client: client(), calibration: None };
    run.validity.reasons.push(Invalid::Other { text: "the server's clock was set".into() });
    let document = Document::new(run);
    let (json, read) = saved(&document)?;
    assert_eq!(json["validity"]["valid"], false);
    let messages: Vec<&str> = iter::successors(Some(0), |n| Some(n + 1))
        .map_while(|n| json["validity"]["reasons"][n]["message"].as_str())
        .collect();
    assert_eq!(messages, ["the server's clock was set", "the client was not calibrated"]);
    let SavedDocument::Run(read) = read else { panic!("a run") };
    // Judged again when read, and each reason once.
    assert_eq!(read.measured.validity, document.measured.validity);
    Ok(())
}
