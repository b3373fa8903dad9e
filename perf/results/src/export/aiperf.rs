use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::seen::{self, Seen};
use crate::json::{json as write_json, line};
use crate::{CountSource, Document, Micros, Outcome, Record, Slo, Sorted, Validity, WriteError};

/// The version of AIPerf's export format whose fields these are.
const AIPERF_SCHEMA: &str = "1.4";

/// What AIPerf calls the two files.
const SUMMARY: &str = "profile_export_aiperf.json";
const RECORDS: &str = "profile_export.jsonl";

/// Writes `profile_export_aiperf.json` and `profile_export.jsonl` into `folder`, which is made if it is missing.
///
/// # Errors
/// A file can't be written.
pub fn aiperf(document: &Document, folder: &Path) -> Result<(), WriteError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { path, source }
    };
    fs::create_dir_all(folder).map_err(fail(folder))?;
    write_json(&folder.join(SUMMARY), &summary(document))?;
    let path = folder.join(RECORDS);
    let mut out = BufWriter::new(File::create(&path).map_err(fail(&path))?);
    for record in document.measured.records.iter().filter(|record| record.sent_us.is_some()) {
        line(&mut out, &of_record(document, record)).map_err(fail(&path))?;
    }
    out.flush().map_err(fail(&path))
}

#[derive(Serialize)]
struct Summary<'a> {
    schema_version: &'static str,
    #[serde(flatten)]
    metrics: Map<String, Value>,
    run_info: Value,
    was_cancelled: bool,
    is_complete: bool,
    incomplete_reason: Option<String>,
    error_summary: Vec<Value>,
    start_time: String,
    end_time: String,
    baton_validity: &'a Validity,
}

fn summary(document: &Document) -> Summary<'_> {
    let run = &document.measured.run;
    let validity = &document.measured.validity;
    let end = run.started_at
        + std::time::Duration::from_secs_f64(
            document
                .measured
                .records
                .iter()
                .filter_map(|record| record.end_us)
                .max()
                .unwrap_or_default()
                .seconds(),
        );
    Summary {
        schema_version: AIPERF_SCHEMA,
        metrics: metrics(document),
        run_info: json!({ "random_seed": run.seed, "run_label": run.name, "cli_command": run.command.join(" ") }),
        was_cancelled: false,
        is_complete: validity.is_valid(),
        incomplete_reason: (!validity.is_valid()).then(|| validity.to_string()),
        error_summary: errors(document),
        start_time: time(run.started_at),
        end_time: time(end),
        baton_validity: validity,
    }
}

fn metrics(document: &Document) -> Map<String, Value> {
    let complete = seen::all(document);
    let seconds = seen::duration_s(document);
    let mut all = Map::new();
    let each =
        |pick: &dyn Fn(&Seen<'_>) -> Option<f64>| complete.iter().filter_map(pick).collect::<Vec<f64>>();
    let output: f64 = complete.iter().map(|seen| seen.record.output_tokens()).sum();
    let input: f64 = complete.iter().map(|seen| f64::from(seen.input_tokens())).sum();
    for (name, unit, samples) in [
        ("request_latency", "ms", each(&|seen| Some(seen.latency_ms()))),
        ("time_to_first_token", "ms", each(&|seen| Some(seen.ttft_ms()))),
        ("time_to_second_token", "ms", each(&|seen| seen.gaps_ms().next())),
        ("inter_token_latency", "ms", each(&token_ms)),
        ("inter_chunk_latency", "ms", complete.iter().flat_map(Seen::gaps_ms).collect()),
        ("output_token_throughput_per_user", "tokens/sec/user", each(&|seen| Some(1e3 / token_ms(seen)?))),
        ("output_sequence_length", "tokens", each(&|seen| Some(seen.record.output_tokens()))),
        ("input_sequence_length", "tokens", each(&|seen| Some(f64::from(seen.input_tokens())))),
    ] {
        if let Some(metric) = distribution(unit, samples) {
            all.insert(name.into(), metric);
        }
    }
    let mut told =
        |name: &str, unit: &str, value: f64| all.insert(name.into(), json!({ "unit": unit, "avg": value }));
    told("request_throughput", "requests/sec", seen::per_second(complete.len() as f64, seconds));
    told("output_token_throughput", "tokens/sec", seen::per_second(output, seconds));
    told("request_count", "requests", complete.len() as f64);
    told("error_request_count", "requests", (document.measured.records.len() - complete.len()) as f64);
    told("benchmark_duration", "sec", seconds);
    told("total_isl", "tokens", input);
    told("total_osl", "tokens", output);
    if document.measured.slo != Slo::default() {
        let good = complete.iter().filter(|seen| good(seen, &document.measured.slo)).count() as f64;
        told("good_request_count", "requests", good);
        told("goodput", "requests/sec", seen::per_second(good, seconds));
    }
    all
}

/// Its inter-token latency: less the first chunk's tokens where the server told them, else less one.
fn token_ms(seen: &Seen<'_>) -> Option<f64> {
    let told = seen.record.chunk_tokens == CountSource::ContinuousUsage;
    let first = seen.record.first_chunk().filter(|_| told).map_or(1.0, |chunk| f64::from(chunk.tokens));
    seen.per_token_ms(first).or_else(|| seen.per_token_ms(1.0))
}

fn good(seen: &Seen<'_>, slo: &Slo) -> bool {
    let within = |limit: Option<f64>, found: Option<f64>| {
        limit.is_none_or(|limit| found.is_some_and(|found| found <= limit))
    };
    within(slo.ttft_ms, Some(seen.ttft_ms()))
        && within(slo.tpot_ms, token_ms(seen))
        && within(slo.e2e_ms, Some(seen.latency_ms()))
}

fn distribution(unit: &str, samples: Vec<f64>) -> Option<Value> {
    let sorted = Sorted::new(samples);
    let stats = sorted.stats()?;
    let mut metric = json!({ "unit": unit, "avg": stats.mean });
    for percent in [1, 5, 10, 25, 50, 75, 90, 95, 99] {
        metric[format!("p{percent}")] = json!(sorted.percentile(f64::from(percent) / 100.0));
    }
    metric["min"] = json!(stats.min);
    metric["max"] = json!(stats.max);
    metric["std"] = json!(stats.std);
    metric["count"] = json!(stats.count);
    metric["sum"] = json!(sorted.as_slice().iter().sum::<f64>());
    Some(metric)
}

/// Each error and how often it came, in the order in which they first came.
fn errors(document: &Document) -> Vec<Value> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut counted: Vec<(Value, u64)> = Vec::new();
    for error in document.measured.records.iter().filter_map(error) {
        let place = *places.entry(error.to_string()).or_insert(counted.len());
        match counted.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => counted.push((error, 1)),
        }
    }
    counted.into_iter().map(|(error, count)| json!({ "error_details": error, "count": count })).collect()
}

fn error(record: &Record) -> Option<Value> {
    let (status, message) = seen::failure(record)?;
    let kind = match record.outcome {
        Outcome::Cancelled => "RequestCancellationError",
        Outcome::Unfinished => "Unfinished",
        _ => "RequestError",
    };
    Some(json!({ "code": status, "type": kind, "message": message }))
}

fn of_record(document: &Document, record: &Record) -> Value {
    let start = document.measured.run.started_at;
    let sent = record.sent_us.unwrap_or_default();
    let end = record.end_us.or(record.chunks.last().map(|chunk| chunk.at)).unwrap_or(sent);
    let cancelled = record.outcome == Outcome::Cancelled;
    let session = record.session.unwrap_or(record.index);
    json!({
        "metadata": {
            "session_num": session,
            "x_request_id": record.server_id,
            "x_correlation_id": record.session.map(|session| session.to_string()),
            "conversation_id": record.session.map(|session| session.to_string()),
            "turn_index": record.turn,
            "credit_issued_ns": nanos(start, record.intended_us),
            "request_start_ns": nanos(start, sent),
            "request_ack_ns": null,
            "request_end_ns": nanos(start, end),
            "worker_id": "baton",
            "record_processor_id": "baton",
            "benchmark_phase": "profiling",
            "was_cancelled": cancelled,
            "cancellation_time_ns": cancelled.then(|| nanos(start, end)),
        },
        "metrics": record_metrics(record),
        "error": error(record),
    })
}

fn record_metrics(record: &Record) -> Value {
    let input = record.input.map_or(0, |count| count.tokens);
    let Some(seen) = Seen::of(record) else {
        return json!({ "error_isl": { "value": input, "unit": "tokens" } });
    };
    let mut metrics = json!({
        "input_sequence_length": { "value": input, "unit": "tokens" },
        "time_to_first_token": { "value": seen.ttft_ms(), "unit": "ms" },
        "request_latency": { "value": seen.latency_ms(), "unit": "ms" },
        "output_token_count": { "value": record.output_tokens() as u32, "unit": "tokens" },
        "output_sequence_length": { "value": record.output_tokens() as u32, "unit": "tokens" },
    });
    let gaps: Vec<f64> = seen.gaps_ms().collect();
    if let Some(first) = gaps.first() {
        metrics["time_to_second_token"] = json!({ "value": first, "unit": "ms" });
        metrics["inter_chunk_latency"] = json!({ "value": gaps, "unit": "ms" });
    }
    if let Some(token) = token_ms(&seen).filter(|token| *token > 0.0) {
        metrics["inter_token_latency"] = json!({ "value": token, "unit": "ms" });
        metrics["output_token_throughput_per_user"] =
            json!({ "value": 1e3 / token, "unit": "tokens/sec/user" });
    }
    metrics
}

/// Nanoseconds since the epoch.
fn nanos(start: SystemTime, offset: Micros) -> u64 {
    let since = start.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).saturating_add(offset.0.saturating_mul(1_000))
}

/// An instant as AIPerf prints it: without a zone; ours is UTC.
fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string().trim_end_matches('Z').to_owned()
}
