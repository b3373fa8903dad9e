//! One fleet, one workload: a table of times.

use std::fmt::Write as _;

use baton_policy::view::Role;
use baton_results::{Sorted, Stats};
use baton_simulator::{Ending, Served, Simulated};
use serde::Serialize;

use crate::Objective;

/// Name of the time from sent to the last token.
pub(crate) const WHOLE_REQUEST: &str = "whole request";

/// Percentiles of a time, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// How many there were.
    pub count: usize,
}

/// How a fleet served.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Requests.
    pub requests: usize,
    /// Of these, completed.
    pub complete: usize,
    /// Given up by their clients.
    pub cancelled: usize,
    /// Refused, late, or too large.
    pub failed: usize,
    /// Share that met the objective, 0 to 1.
    pub attained: f64,
    /// From the first request to the last token, s.
    pub seconds: f64,
    /// Completed requests a second.
    pub per_second: f64,
    /// Tokens generated a second.
    pub output_tokens_per_second: f64,
    /// Share of the prompts' tokens that was cached.
    pub cached_share: f64,
    /// Share of the requests whose prompt was computed by a prefill worker.
    pub apart_share: f64,
    /// By name, in the order of a request's life.
    pub times: Vec<(&'static str, Times)>,
    /// Share of the time that workers computed, by what they do: prefill, decode.
    pub busy: (f64, f64),
    /// Preemptions.
    pub preemptions: u64,
}

impl Times {
    fn new(values: Vec<f64>) -> Self {
        let Some(Stats { count, mean, p50, p90, p99, .. }) = Sorted::new(values).stats() else {
            return Self::default();
        };
        Self { mean, p50, p90, p99, count: count as usize }
    }
}

/// Sums `simulated` up.
#[must_use]
pub fn summary(simulated: &Simulated, objective: &Objective) -> Summary {
    let served: Vec<Served> = simulated.served().collect();
    let count = |ending: Ending| served.iter().filter(|served| served.ending == ending).count();
    let times =
        |value: &dyn Fn(&Served) -> Option<f64>| Times::new(served.iter().filter_map(value).collect());
    let first = served.iter().map(|served| served.sent_ms).fold(f64::INFINITY, f64::min);
    let seconds = ((simulated.end_ms() - first) / 1e3).max(1e-9);
    let (complete, cancelled) = (count(Ending::Complete), count(Ending::Cancelled));
    let workers = simulated.workers();
    let sum =
        |value: &dyn Fn(&baton_simulator::WorkerUse) -> u64| workers.iter().map(value).sum::<u64>() as f64;
    let prompts = sum(&|worker| worker.prompt_tokens + worker.cached_tokens);
    let busy = |is_prefill: bool| {
        let these = workers.iter().filter(|worker| (worker.role == Role::Prefill) == is_prefill);
        let (busy, number) =
            these.fold((0.0, 0.0), |(busy, number), worker| (busy + worker.busy_ms(), number + 1.0));
        busy / (f64::max(number, 1.0) * seconds * 1e3)
    };
    let placed = served.iter().filter(|served| served.decode_worker.is_some()).count().max(1);
    Summary {
        requests: served.len(),
        complete,
        cancelled,
        failed: served.len() - complete - cancelled,
        attained: served.iter().filter(|served| objective.is_met(served)).count() as f64
            / served.len().max(1) as f64,
        seconds,
        per_second: complete as f64 / seconds,
        output_tokens_per_second: sum(&|worker| worker.output_tokens) / seconds,
        cached_share: sum(&|worker| worker.cached_tokens) / prompts.max(1.0),
        apart_share: served.iter().filter(|served| served.prefill_worker.is_some()).count() as f64
            / placed as f64,
        times: vec![
            ("time to first token", times(&|served| served.ttft_ms)),
            ("time per output token", times(&|served| served.tpot_ms)),
            ("longest gap", times(&|served| served.tpot_ms.map(|_| served.longest_gap_ms))),
            (WHOLE_REQUEST, times(&|served| (served.ending == Ending::Complete).then_some(served.total_ms))),
            ("  queue", times(&|served| served.queue_ms)),
            ("  prefill", times(&|served| served.prefill_ms)),
            ("  transfer", times(&|served| served.transfer_ms)),
            ("  decode wait", times(&|served| served.decode_wait_ms)),
        ],
        busy: (busy(true), busy(false)),
        preemptions: workers.iter().map(|worker| worker.preemptions).sum(),
    }
}

/// As a page of text.
#[must_use]
pub fn table(summary: &Summary, objective: &Objective) -> String {
    let mut text = String::new();
    let percent = |share: f64| share * 100.0;
    let _ = writeln!(text, "{:<22} {:>10} {:>10} {:>10} {:>10}", "ms", "mean", "p50", "p90", "p99");
    for (name, times) in summary.times.iter().filter(|(_, times)| times.count > 0) {
        let Times { mean, p50, p90, p99, .. } = times;
        let _ = writeln!(text, "{name:<22} {mean:>10.1} {p50:>10.1} {p90:>10.1} {p99:>10.1}");
    }
    let _ = writeln!(
        text,
        "\n{} requests in {:.0} s: {} complete, {} cancelled, {} refused or late; {:.2} requests/s, {:.0} tokens/s",
        summary.requests,
        summary.seconds,
        summary.complete,
        summary.cancelled,
        summary.failed,
        summary.per_second,
        summary.output_tokens_per_second,
    );
    let _ = writeln!(
        text,
        "{:.1} % met the objective: first token within {:.0} ms, {:.0} ms a token",
        percent(summary.attained),
        objective.ttft_ms,
        objective.tpot_ms,
    );
    let _ = writeln!(
        text,
        "prompts: {:.1} % of their tokens cached, {:.1} % computed by prefill workers; busy: prefill {:.0} %, decode {:.0} %; {} \
         preemptions",
        percent(summary.cached_share),
        percent(summary.apart_share),
        percent(summary.busy.0),
        percent(summary.busy.1),
        summary.preemptions,
    );
    text
}
