//! What a reader should know before using a summary's figures.

use crate::stats::samples_needed;
use crate::{CountSource, Latency, Load, Measured, Record, Requests, Stats, Throughput, Window};

/// An open loop that completes less than this share of what it offers is not in a steady state.
const KEEPS_UP: f64 = 0.95;

/// Counts of tokens that differ by more than this share are told.
const COUNTS_AGREE: f64 = 0.01;

pub(crate) fn of(
    measured: &Measured,
    window: Window,
    requests: &Requests,
    throughput: &Throughput,
    latency: &Latency,
) -> Vec<String> {
    let within: Vec<&Record> =
        measured.records.iter().filter(|record| window.has(record.intended_us)).collect();
    [
        nothing(requests),
        few_samples(latency),
        too_fast(measured, window, throughput),
        assumed_tokens(&within),
        differing_counts(&within),
        unfinished(requests),
        not_streamed(measured),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn nothing(requests: &Requests) -> Option<String> {
    (requests.complete == 0).then(|| match requests.total {
        0 => "no request lies in the window: shorten the warm-up and the cool-down, or run for longer".into(),
        _ => "no request completed: there are no latencies".into(),
    })
}

fn few_samples(latency: &Latency) -> Option<String> {
    let samples = latency.e2e_ms.as_ref().map(|stats: &Stats| stats.count)?;
    let names = [(0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99")];
    let weak: Vec<String> = names
        .into_iter()
        .filter(|&(share, _)| samples < samples_needed(share))
        .map(|(share, name)| format!("{name} (needs {})", samples_needed(share)))
        .collect();
    (!weak.is_empty())
        .then(|| format!("{samples} complete requests are too few for {}: run for longer", weak.join(", ")))
}

fn too_fast(measured: &Measured, window: Window, throughput: &Throughput) -> Option<String> {
    let Load::Open { .. } = measured.run.load else { return None };
    let (offered, done) = (throughput.offered_requests_per_s, throughput.requests_per_s);
    // Without a cool-down the window ends with the last answers, and their time is part of it; that is no sign of overload.
    let trimmed =
        measured.trim.cool_down_us.0 > 0 && measured.trim.warm_up_us.0 > 0 && window.seconds() > 0.0;
    (trimmed && done < KEEPS_UP * offered).then(|| {
        format!(
            "{done:.2} requests/s completed of {offered:.2} offered: the server did not keep up, and latencies grow with \
             the length of the run"
        )
    })
}

fn assumed_tokens(within: &[&Record]) -> Option<String> {
    let assumed = within.iter().filter(|record| record.chunk_tokens == CountSource::Assumed).count();
    (assumed > 0).then(|| {
        format!(
            "in {assumed} requests each chunk was taken for one token, or for an equal part of the total: ITL is a guess there"
        )
    })
}

fn differing_counts(within: &[&Record]) -> Option<String> {
    let differs = |record: &&&Record| {
        record.chunk_tokens != CountSource::Assumed
            && record.output.is_some()
            && (record.tokens_per_counted() - 1.0).abs() > COUNTS_AGREE
    };
    let differing = within.iter().filter(differs).count();
    (differing > 0).then(|| {
        format!("in {differing} requests the chunks' tokens do not add up to the answer's; the answer's count was used")
    })
}

fn unfinished(requests: &Requests) -> Option<String> {
    (requests.unfinished > 0).then(|| {
        format!(
            "{} requests were not over when the run ended: latencies leave out what may be the slowest",
            requests.unfinished
        )
    })
}

fn not_streamed(measured: &Measured) -> Option<String> {
    (!measured.run.streaming)
        .then(|| "answers were not streamed: TTFT, ITL, TPOT and stalls are unknown".into())
}

#[cfg(test)]
mod tests {
    use crate::testing::{measured, steady};
    use crate::{CountSource, Measured, Micros, Outcome, Summary, Trim};

    /// `run` warns of `expected`, a part of a sentence for each warning.
    fn check(run: &Measured, expected: &[&str]) {
        let found = Summary::of(run).warnings;
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found:?} is not about {expected:?}");
        }
    }

    #[test]
    fn percentiles_of_few_samples_are_named() {
        check(
            &measured(steady(20)),
            &["20 complete requests are too few for p90 (needs 29), p95 (needs 59), p99 (needs 299)"],
        );
        check(&measured(steady(299)), &[]);
    }

    #[test]
    fn guessed_and_contradicting_counts_are_told() {
        let mut records = steady(300);
        records[0].chunk_tokens = CountSource::Assumed;
        records[1].chunks[5].tokens = 40;
        check(&measured(records), &["in 1 requests each chunk", "in 1 requests the chunks' tokens"]);
    }

    #[test]
    fn a_server_that_does_not_keep_up_is_told() {
        let mut records = steady(600);
        for record in &mut records {
            // Each takes its time after the one before: five a second of ten offered.
            let late = u64::from(record.index) * 100_000;
            record.end_us = record.end_us.map(|at| Micros(at.0 + late));
            for chunk in &mut record.chunks {
                chunk.at.0 += late;
            }
        }
        let mut run = measured(records);
        run.trim = Trim { warm_up_us: Micros(5_000_000), cool_down_us: Micros(5_000_000) };
        check(&run, &["did not keep up"]);
    }

    #[test]
    fn what_the_run_did_not_see_is_told() {
        let mut records = steady(301);
        records[300].outcome = Outcome::Unfinished;
        let mut run = measured(records);
        run.run.streaming = false;
        check(&run, &["1 requests were not over", "not streamed"]);
        check(&measured(Vec::new()), &["no request lies in the window"]);
    }
}
