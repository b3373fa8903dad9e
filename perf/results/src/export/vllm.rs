use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::seen::{self, Seen};
use crate::json::line;
use crate::{Document, Load, Slo, Sorted, Validity, WriteError};

/// Percentiles beside the median.
const PERCENTILES: [u32; 3] = [90, 95, 99];

/// The fields of `vllm bench serve --save-result --save-detailed`, without the answers' texts.
#[derive(Serialize)]
struct Result<'a> {
    date: String,
    endpoint_type: &'static str,
    backend: &'static str,
    label: &'a str,
    model_id: &'a str,
    tokenizer_id: &'a str,
    num_prompts: usize,
    request_rate: Value,
    burstiness: f64,
    max_concurrency: Option<u32>,
    duration: f64,
    completed: usize,
    failed: usize,
    total_input_tokens: u64,
    total_output_tokens: u64,
    request_throughput: f64,
    request_goodput: Option<f64>,
    output_throughput: f64,
    total_token_throughput: f64,
    input_lens: Vec<u32>,
    output_lens: Vec<u32>,
    ttfts: Vec<f64>,
    itls: Vec<Vec<f64>>,
    start_times: Vec<f64>,
    errors: Vec<&'a str>,
    max_output_tokens_per_s: f64,
    max_concurrent_requests: u32,
    #[serde(flatten)]
    latencies: Map<String, Value>,
    baton_validity: &'a Validity,
}

/// Writes `documents` to `path` as `vllm bench serve` saves results: one JSON object, or one a line if there are several (as its
/// `--append-result` does).
///
/// # Errors
/// The file can't be written.
pub fn vllm(documents: &[Document], path: &Path) -> std::result::Result<(), WriteError> {
    let fail = |source| WriteError { path: path.to_owned(), source };
    let mut out = BufWriter::new(File::create(path).map_err(fail)?);
    for document in documents {
        line(&mut out, &result(document)).map_err(fail)?;
    }
    out.flush().map_err(fail)
}

fn result(document: &Document) -> Result<'_> {
    let (run, records) = (&document.measured.run, &document.measured.records);
    let complete = seen::all(document);
    let duration = seen::duration_s(document);
    let input: u64 = complete.iter().map(|seen| u64::from(seen.input_tokens())).sum();
    let output: u64 = complete.iter().map(|seen| seen.record.output_tokens() as u64).sum();
    let per_second = |total: f64| seen::per_second(total, duration);
    let slo = document.measured.slo;
    let (busiest, most) = peaks(&complete);
    // Arrays have an entry for each request of the plan; that of one that did not complete is empty.
    let each: Vec<Option<Seen<'_>>> = records.iter().map(Seen::of).collect();
    Result {
        date: date(document),
        endpoint_type: backend(&run.endpoint),
        backend: backend(&run.endpoint),
        label: &run.name,
        model_id: &run.model,
        tokenizer_id: &run.model,
        num_prompts: records.len(),
        request_rate: match run.load {
            Load::Open { requests_per_second, .. } => requests_per_second.into(),
            Load::Closed { .. } => "inf".into(),
        },
        burstiness: 1.0,
        max_concurrency: match run.load {
            Load::Closed { concurrency } => Some(concurrency),
            Load::Open { .. } => None,
        },
        duration,
        completed: complete.len(),
        failed: records.len() - complete.len(),
        total_input_tokens: input,
        total_output_tokens: output,
        request_throughput: per_second(complete.len() as f64),
        request_goodput: (slo != Slo::default())
            .then(|| per_second(complete.iter().filter(|seen| good(seen, &slo)).count() as f64)),
        output_throughput: per_second(output as f64),
        total_token_throughput: per_second((input + output) as f64),
        input_lens: records.iter().map(|record| record.input.map_or(0, |count| count.tokens)).collect(),
        output_lens: each
            .iter()
            .map(|seen| seen.as_ref().map_or(0, |seen| seen.record.output_tokens() as u32))
            .collect(),
        ttfts: each.iter().map(|seen| seen.as_ref().map_or(0.0, |seen| seen.ttft_ms() / 1e3)).collect(),
        itls: each
            .iter()
            .map(|seen| seen.iter().flat_map(Seen::gaps_ms).map(|gap| gap / 1e3).collect())
            .collect(),
        start_times: records.iter().map(|record| record.sent_us.unwrap_or_default().seconds()).collect(),
        errors: records
            .iter()
            .map(|record| seen::failure(record).map_or("", |(_, message)| message))
            .collect(),
        max_output_tokens_per_s: busiest,
        max_concurrent_requests: most,
        latencies: latencies(&complete),
        baton_validity: &document.measured.validity,
    }
}

fn latencies(complete: &[Seen<'_>]) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut told = |name: &str, samples: Vec<f64>| {
        let sorted = Sorted::new(samples);
        // Without samples vLLM says 0.
        let stats = sorted.stats();
        let mut field = |which: &str, value: Option<f64>| {
            fields.insert(format!("{which}_{name}_ms"), value.unwrap_or(0.0).into());
        };
        field("mean", stats.map(|stats| stats.mean));
        field("median", stats.map(|stats| stats.p50));
        field("std", stats.map(|stats| stats.std));
        for percent in PERCENTILES {
            field(&format!("p{percent}"), sorted.percentile(f64::from(percent) / 100.0));
        }
    };
    told("ttft", complete.iter().map(Seen::ttft_ms).collect());
    told("tpot", complete.iter().filter_map(|seen| seen.per_token_ms(1.0)).collect());
    told("itl", complete.iter().flat_map(Seen::gaps_ms).collect());
    told("e2el", complete.iter().map(Seen::latency_ms).collect());
    fields
}

fn good(seen: &Seen<'_>, slo: &Slo) -> bool {
    let within = |limit: Option<f64>, found: f64| limit.is_none_or(|limit| found <= limit);
    within(slo.ttft_ms, seen.ttft_ms())
        && within(slo.tpot_ms, seen.per_token_ms(1.0).unwrap_or(0.0))
        && within(slo.e2e_ms, seen.latency_ms())
}

/// The most chunks in a second, which vLLM calls tokens, and the most requests that a second saw; seconds count from the first
/// send.
fn peaks(complete: &[Seen<'_>]) -> (f64, u32) {
    let Some(start) = complete.iter().map(|seen| seen.sent).min() else { return (0.0, 0) };
    let second = |at: crate::Micros| (at.since(start).0 / 1_000_000) as usize;
    let length = complete.iter().map(|seen| second(seen.last)).max().unwrap_or(0) + 2;
    let (mut tokens, mut begins) = (vec![0_u32; length], vec![0_i32; length]);
    for seen in complete {
        for chunk in seen.record.token_chunks() {
            tokens[second(chunk.at)] += 1;
        }
        begins[second(seen.sent)] += 1;
        begins[second(seen.last) + 1] -= 1;
    }
    let mut at_once = 0;
    let most = begins.iter().map(|change| {
        at_once += change;
        at_once
    });
    let most = most.max().unwrap_or(0);
    (f64::from(tokens.into_iter().max().unwrap_or(0)), most.unsigned_abs())
}

/// `20261121-045944`, UTC.
fn date(document: &Document) -> String {
    let time = humantime::format_rfc3339_seconds(document.measured.run.started_at).to_string();
    time.replace(['-', ':', 'Z'], "").replace('T', "-")
}

fn backend(endpoint: &str) -> &'static str {
    if endpoint.contains("chat") { "openai-chat" } else { "openai" }
}
