use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use crate::testing::{Answer, complete, everything, measured};
use crate::{Document, Record, Slo, export};

/// The case of which vLLM says TPOT 3.98 ms and ITL 41.1 ms, and AIPerf with the server's counts 5.15: 8 tokens in a chunk, 5.0 ms
/// a token; the client sends 30 ms late.
fn bundled() -> Document {
    let answer = |index: u32| Answer {
        index,
        intended_us: u64::from(index) * 100_000,
        sent_us: u64::from(index) * 100_000 + 30_000,
        tokens: 40,
        tokens_per_chunk: 8,
        ..Answer::default()
    };
    let records: Vec<Record> = (0..10).map(|index| complete(&answer(index))).collect();
    let mut run = measured(records);
    run.slo = Slo { ttft_ms: Some(25.0), ..Slo::default() };
    Document::new(run)
}

fn vllm(document: Document) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("vllm.json");
    export::vllm(&[document], &path)?;
    Ok(serde_json::from_slice(&fs::read(&path)?)?)
}

fn aiperf(document: &Document) -> Result<(Value, Vec<Value>)> {
    let folder = tempfile::tempdir()?;
    export::aiperf(document, folder.path())?;
    let lines = fs::read_to_string(folder.path().join("profile_export.jsonl"))?;
    let records = lines.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?;
    Ok((serde_json::from_slice(&fs::read(folder.path().join("profile_export_aiperf.json"))?)?, records))
}

fn close(json: &Value, field: &str, expected: f64) {
    let found = json.pointer(field).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {field} in {json}"));
    assert!((found - expected).abs() < 1e-9, "{field}: {found} is not {expected}");
}

#[test]
fn vllm_s_figures_are_by_vllm_s_definitions() -> Result<()> {
    let json = vllm(bundled())?;
    close(&json, "/mean_ttft_ms", 20.0);
    // 160 ms after the first chunk, for 40 tokens of which vLLM takes one off.
    close(&json, "/median_tpot_ms", 160.0 / 39.0);
    close(&json, "/p99_itl_ms", 40.0);
    close(&json, "/std_itl_ms", 0.0);
    close(&json, "/mean_e2el_ms", 180.0);
    // From 30 ms to 930 + 180.
    close(&json, "/duration", 1.08);
    close(&json, "/request_throughput", 10.0 / 1.08);
    close(&json, "/output_throughput", 400.0 / 1.08);
    close(&json, "/total_token_throughput", 1_400.0 / 1.08);
    // From the actual send time all meet 25 ms; from the intended one none does.
    close(&json, "/request_goodput", 10.0 / 1.08);
    // Of the 50 chunks three come after the first second.
    close(&json, "/max_output_tokens_per_s", 47.0);
    assert_eq!(bundled().summary.goodput.expect("an SLO").requests, 0);
    assert_eq!(json["date"], "20261121-045944");
    assert_eq!(json["itls"][3], json!([0.04, 0.04, 0.04, 0.04]));
    close(&json, "/start_times/1", 0.13);
    assert_eq!(json["baton_validity"]["valid"], true);
    Ok(())
}

#[test]
fn vllm_counts_what_did_not_complete_as_failed_and_says_why() -> Result<()> {
    let json = vllm(Document::new(everything()))?;
    assert_eq!(
        (&json["completed"], &json["failed"], &json["num_prompts"]),
        (&json!(2), &json!(4), &json!(6))
    );
    assert_eq!(json["errors"][1], "no room");
    assert_eq!(json["errors"][3], "cancelled by the client, as planned");
    assert_eq!(json["ttfts"][1], 0.0);
    assert_eq!((&json["request_rate"], &json["max_concurrency"]), (&json!("inf"), &json!(4)));
    assert_eq!(json["baton_validity"]["valid"], false);
    Ok(())
}

#[test]
fn several_runs_are_a_line_each() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("vllm.jsonl");
    export::vllm(&[bundled(), bundled()], &path)?;
    assert_eq!(fs::read_to_string(&path)?.lines().count(), 2);
    Ok(())
}

#[test]
fn aiperf_s_figures_are_by_aiperf_s_definitions() -> Result<()> {
    let (json, records) = aiperf(&bundled())?;
    close(&json, "/time_to_first_token/avg", 20.0);
    // The server tells each chunk's tokens, so AIPerf takes off those of the first.
    close(&json, "/inter_token_latency/p99", 5.0);
    close(&json, "/inter_chunk_latency/p1", 40.0);
    close(&json, "/request_latency/max", 180.0);
    close(&json, "/output_token_throughput_per_user/avg", 200.0);
    close(&json, "/output_token_throughput/avg", 400.0 / 1.08);
    close(&json, "/good_request_count/avg", 10.0);
    close(&json, "/goodput/avg", 10.0 / 1.08);
    assert_eq!(json["time_to_first_token"]["count"], 10);
    assert_eq!(json["start_time"], "2026-11-21T04:59:44.250000");
    assert_eq!(records.len(), 10);
    close(&records[2], "/metrics/inter_token_latency/value", 5.0);
    assert_eq!(records[2]["metadata"]["request_start_ns"], 1_795_237_184_480_000_000_u64);
    assert_eq!(records[2]["metadata"]["credit_issued_ns"], 1_795_237_184_450_000_000_u64);
    assert_eq!(records[2]["error"], Value::Null);
    Ok(())
}

#[test]
fn without_the_server_s_counts_aiperf_takes_one_token_off() -> Result<()> {
    let mut run = bundled().measured;
    for record in &mut run.records {
        record.chunk_tokens = crate::CountSource::Tokenizer;
    }
    let (json, _) = aiperf(&Document::new(run))?;
    close(&json, "/inter_token_latency/avg", 160.0 / 39.0);
    Ok(())
}

#[test]
fn aiperf_is_told_of_errors_cancellation_and_validity() -> Result<()> {
    let (json, records) = aiperf(&Document::new(everything()))?;
    close(&json, "/request_count/avg", 2.0);
    close(&json, "/error_request_count/avg", 4.0);
    assert_eq!(json["error_summary"][0]["error_details"]["message"], "no room");
    assert_eq!(records[3]["metadata"]["was_cancelled"], true);
    assert_eq!(records[3]["error"]["type"], "RequestCancellationError");
    assert_eq!(json["is_complete"], false);
    assert!(
        json["incomplete_reason"].as_str().is_some_and(|reason| reason.starts_with("INVALID: tried out")),
        "{json}"
    );
    Ok(())
}
