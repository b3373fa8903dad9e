use serde::{Deserialize, Serialize};

use crate::{Measured, PhaseSamples, Samples, Slo, Stats, Window, counts, warnings};

/// What a run comes to. `docs/benchmarking.md` defines each figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The part of the run that it is of.
    pub window: Window,
    /// How many requests ended how.
    pub requests: Requests,
    /// How much went through.
    pub throughput: Throughput,
    /// How many met what was asked; absent if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodput: Option<Goodput>,
    /// How long requests took.
    pub latency: Latency,
    /// Where their time went in the server, as far as it told.
    #[serde(default)]
    pub phases: PhaseTimes,
    /// The most frequent errors.
    #[serde(default)]
    pub errors: Vec<ErrorCount>,
    /// What a reader should know before using the figures.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Requests that were intended to be sent in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// All.
    pub total: u64,
    /// With a whole answer.
    pub complete: u64,
    /// With an error.
    pub failed: u64,
    /// Cancelled by the client, as planned.
    pub cancelled: u64,
    /// Not over when the run ended.
    pub unfinished: u64,
    /// Requests of the run outside the window.
    pub left_out: u64,
}

/// What came and went in the window, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Requests intended to be sent.
    pub offered_requests_per_s: f64,
    /// Requests that completed.
    pub requests_per_s: f64,
    /// Tokens of prompts whose first token came.
    pub input_tokens_per_s: f64,
    /// Output tokens that came, of all requests that did not fail.
    pub output_tokens_per_s: f64,
    /// Output tokens that came, of requests that were cancelled: part of the above.
    pub cancelled_output_tokens_per_s: f64,
    /// Cached tokens ÷ input tokens, 0 to 1; absent if the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_share: Option<f64>,
}

/// Requests that met the SLO.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goodput {
    /// What was asked.
    pub slo: Slo,
    /// How many met it.
    pub requests: u64,
    /// The same ÷ the window's length.
    pub requests_per_s: f64,
    /// The same ÷ requests that were not cancelled, 0 to 1: who failed or did not finish missed it.
    pub share: f64,
}

/// How long the window's complete requests took; each absent if there is no sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each is the statistics of the field of `Samples` with this name")]
pub struct Latency {
    pub ttft_ms: Option<Stats>,
    pub ttft_from_sent_ms: Option<Stats>,
    pub itl_ms: Option<Stats>,
    pub chunk_gap_ms: Option<Stats>,
    pub tpot_ms: Option<Stats>,
    pub e2e_ms: Option<Stats>,
    pub e2e_from_sent_ms: Option<Stats>,
    pub normalised_ms: Option<Stats>,
    pub stall_ms: Option<Stats>,
    pub send_lag_ms: Option<Stats>,
    pub input_tokens: Option<Stats>,
    pub output_tokens: Option<Stats>,
}

/// The server's phases; each absent if it told of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each is the statistics of the field of `PhaseSamples` with this name")]
pub struct PhaseTimes {
    pub queue_ms: Option<Stats>,
    pub prefill_ms: Option<Stats>,
    pub transfer_ms: Option<Stats>,
    pub decode_wait_ms: Option<Stats>,
    pub first_token_ms: Option<Stats>,
    pub decode_ms: Option<Stats>,
}

/// An error and how often it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// The HTTP status, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What was said.
    pub message: String,
    /// How often.
    pub count: u64,
}

impl Summary {
    /// Computes all figures.
    pub fn of(measured: &Measured) -> Self {
        let window = Window::of(&measured.records, measured.trim);
        let latency = Latency::of(&Samples::of(measured, window));
        let requests = counts::requests(&measured.records, window);
        let throughput = counts::throughput(&measured.records, window);
        Self {
            window,
            requests,
            throughput,
            goodput: counts::goodput(measured, window),
            phases: PhaseTimes::of(&PhaseSamples::of(measured, window)),
            errors: counts::errors(&measured.records, window),
            warnings: warnings::of(measured, window, &requests, &throughput, &latency),
            latency,
        }
    }
}

impl Latency {
    fn of(samples: &Samples) -> Self {
        Self {
            ttft_ms: samples.ttft.stats(),
            ttft_from_sent_ms: samples.ttft_from_sent.stats(),
            itl_ms: samples.itl.stats(),
            chunk_gap_ms: samples.chunk_gap.stats(),
            tpot_ms: samples.tpot.stats(),
            e2e_ms: samples.e2e.stats(),
            e2e_from_sent_ms: samples.e2e_from_sent.stats(),
            normalised_ms: samples.normalised.stats(),
            stall_ms: samples.stall.stats(),
            send_lag_ms: samples.send_lag.stats(),
            input_tokens: samples.input_tokens.stats(),
            output_tokens: samples.output_tokens.stats(),
        }
    }
}

impl PhaseTimes {
    fn of(samples: &PhaseSamples) -> Self {
        Self {
            queue_ms: samples.queue.stats(),
            prefill_ms: samples.prefill.stats(),
            transfer_ms: samples.transfer.stats(),
            decode_wait_ms: samples.decode_wait.stats(),
            first_token_ms: samples.first_token.stats(),
            decode_ms: samples.decode.stats(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{measured, steady};
    use crate::{Micros, Outcome, Trim};

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn a_steady_run_comes_to_what_it_was_made_of() {
        let summary = Summary::of(&measured(steady(20)));
        // 20 requests in 1.9 s + 655 ms.
        close(summary.window.seconds(), 2.555);
        close(summary.throughput.requests_per_s, 20.0 / 2.555);
        close(summary.throughput.output_tokens_per_s, 20.0 * 128.0 / 2.555);
        close(summary.throughput.input_tokens_per_s, 20.0 * 100.0 / 2.555);
        let ttft = summary.latency.ttft_ms.expect("streamed");
        assert_eq!((ttft.count, ttft.mean, ttft.p99), (20, 20.0, 20.0));
        let itl = summary.latency.itl_ms.expect("streamed");
        assert_eq!((itl.count, itl.mean, itl.max), (20 * 127, 5.0, 5.0));
        assert_eq!(summary.latency.tpot_ms.expect("streamed").p50, 5.0);
        close(summary.latency.normalised_ms.expect("complete").mean, 655.0 / 128.0);
    }

    #[test]
    fn goodput_counts_neither_failures_nor_the_unfinished_nor_the_cancelled() {
        let mut records = steady(10);
        records[1].outcome = Outcome::Failed { status: Some(503), message: "no room".into() };
        records[2].outcome = Outcome::Unfinished;
        records[3].outcome = Outcome::Cancelled;
        for chunk in &mut records[4].chunks {
            chunk.at.0 += 90_000;
        }
        let mut run = measured(records);
        run.slo = Slo { ttft_ms: Some(100.0), ..Slo::default() };
        let summary = Summary::of(&run);
        let goodput = summary.goodput.expect("an SLO was given");
        assert_eq!(goodput.requests, 6);
        close(goodput.share, 6.0 / 9.0);
        close(goodput.requests_per_s, 6.0 / summary.window.seconds());
        let found = summary.requests;
        assert_eq!((found.complete, found.failed, found.cancelled, found.unfinished), (7, 1, 1, 1));
        assert_eq!(summary.errors, [ErrorCount { status: Some(503), message: "no room".into(), count: 1 }]);
        close(summary.throughput.cancelled_output_tokens_per_s, 128.0 / summary.window.seconds());
    }

    #[test]
    fn warm_up_and_cool_down_are_left_out_of_every_figure() {
        let mut records = steady(30);
        for chunk in &mut records[0].chunks {
            chunk.at.0 += 5_000;
        }
        let mut run = measured(records);
        run.trim = Trim { warm_up_us: Micros(1_000_000), cool_down_us: Micros(655_000) };
        let summary = Summary::of(&run);
        // Sent from 1.0 to 2.9 s.
        assert_eq!((summary.requests.total, summary.requests.left_out), (20, 10));
        assert_eq!(summary.latency.ttft_ms.expect("streamed").max, 20.0);
        // In the steady state, ten requests a second of 128 tokens each; the edges of 1.9 s cut chunks.
        let tokens = summary.throughput.output_tokens_per_s;
        assert!((tokens / 1_280.0 - 1.0).abs() < 0.01, "{tokens}");
    }

    #[test]
    fn a_server_that_froze_shows_in_the_tail_from_the_intended_time_alone() {
        // A client that waited for the server: of 100 requests, 20 were sent when a freeze of 2 s was over.
        let mut records = steady(100);
        for record in &mut records[40..60] {
            let late = 6_000_000 - record.intended_us.0;
            record.sent_us = Some(Micros(6_000_000));
            for chunk in &mut record.chunks {
                chunk.at.0 += late;
            }
        }
        let latency = Summary::of(&measured(records)).latency;
        assert!(latency.ttft_ms.expect("streamed").p99 > 1_900.0);
        assert_eq!(latency.ttft_from_sent_ms.expect("streamed").p99, 20.0);
    }

    #[test]
    fn a_run_without_requests_has_no_figures_and_no_nan() {
        let summary = Summary::of(&measured(Vec::new()));
        assert_eq!(summary.latency, Latency::default());
        assert_eq!(summary.throughput, Throughput::default());
    }
}
