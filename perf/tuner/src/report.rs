//! What is told: one page of text, and a fragment of a Helm chart's values.

use std::fmt::Write as _;

use baton_profile::{Profile, Source};

use crate::{Objective, Options, Recommendation, ShiftKind, Split, recommend::Shift};

impl ShiftKind {
    fn name(self, options: &Options) -> String {
        let percent = options.shift * 100.0;
        match self {
            Self::Burstier => "in bursts".to_owned(),
            Self::LongerPrompts => format!("prompts {percent:.0} % longer"),
            Self::ShorterPrompts => "prompts shorter by the same".to_owned(),
            Self::LongerAnswers => format!("answers {percent:.0} % longer"),
            Self::ShorterAnswers => "answers shorter by the same".to_owned(),
        }
    }
}

/// The page.
#[must_use]
pub fn page(told: &Recommendation, profile: &Profile, objective: &Objective) -> String {
    let mut text = String::new();
    verdict(&mut text, told, objective);
    curve(&mut text, told);
    own_rate(&mut text, told);
    sensitivity(&mut text, told);
    next(&mut text, told);
    error(&mut text, told, profile);
    text
}

fn verdict(text: &mut String, told: &Recommendation, objective: &Objective) {
    let Objective { ttft_ms, tpot_ms, share } = objective;
    let workers = told.split.workers();
    let what = if told.split.is_aggregated() {
        format!("Aggregate: {workers} workers that do both")
    } else {
        format!("Disaggregate: {} prefill and {} decode workers", told.split.prefill, told.split.decode)
    };
    let _ = writeln!(
        text,
        "{what}.\n{:.2} requests/s ({:.3} a worker) while {:.0} % of the requests have their first token within {ttft_ms:.0} ms and \
         {tpot_ms:.0} ms or less a token.",
        told.per_second,
        told.per_second / workers as f64,
        share * 100.0,
    );
    let Some(other) = told.other else { return };
    match told.apart_by_aggregated {
        Some(compared) => {
            let interval = if compared.pairs > 1 {
                format!("95 % interval {:.2} to {:.2}", compared.low, compared.high)
            } else {
                "of one sample: more --samples give an interval".to_owned()
            };
            let apart = if told.split.is_aggregated() { other } else { told.split };
            let _ = writeln!(
                text,
                "{apart} gives {:.2} times what aggregated workers give ({interval}).",
                compared.ratio
            );
        }
        None => {
            let _ = writeln!(text, "{other} never meets the objective.");
        }
    }
    if told.is_for_simplicity {
        let _ = writeln!(text, "That is not better beyond doubt, and aggregated workers are simpler to run.");
    }
}

fn curve(text: &mut String, told: &Recommendation) {
    let _ = writeln!(text, "\n{:<16} {:>12} {:>12} {:>12}", "split", "requests/s", "a worker", "bound");
    for ranked in &told.ranked {
        let goodput = |value: Option<f64>| value.map_or("excluded".to_owned(), |value| format!("{value:.2}"));
        let each = ranked.per_second.map(|value| value / ranked.split.workers() as f64);
        let mark = if ranked.split == told.split { "  <" } else { "" };
        let _ = writeln!(
            text,
            "{:<16} {:>12} {:>12} {:>12.2}{mark}",
            ranked.split,
            goodput(ranked.per_second),
            each.map_or(String::new(), |each| format!("{each:.3}")),
            ranked.bound,
        );
    }
}

fn own_rate(text: &mut String, told: &Recommendation) {
    let summary = &told.at_own_rate;
    let _ = write!(
        text,
        "\nAt the workload's own {:.2} requests/s {:.1} % meet the objective",
        told.own_per_second,
        summary.attained * 100.0
    );
    for (name, times) in summary.times.iter().take(2).filter(|(_, times)| times.count > 0) {
        let _ = write!(text, "; {name} p50 {:.0}, p90 {:.0}, p99 {:.0} ms", times.p50, times.p90, times.p99);
    }
    let _ = writeln!(text, ".");
}

fn sensitivity(text: &mut String, told: &Recommendation) {
    let _ = writeln!(text, "\nIf the traffic is not as it was     requests/s   the best then");
    for Shift { kind, recommended, best, best_per_second } in &told.shifts {
        let then = if *best == told.split {
            "the same".to_owned()
        } else {
            format!("{best} with {best_per_second:.2}")
        };
        let _ = writeln!(text, "  {:<31} {recommended:>12.2}   {then}", kind.name(&told.options));
    }
}

fn next(text: &mut String, told: &Recommendation) {
    let Some(next) = told.next else { return };
    let more = next.per_second / next.now_per_second.max(1e-9) - 1.0;
    let _ = writeln!(
        text,
        "\nOne worker more ({}) gives {:.2} requests/s, {:+.0} %.",
        next.split,
        next.per_second,
        more * 100.0
    );
}

fn error(text: &mut String, told: &Recommendation, profile: &Profile) {
    let source = match profile.source {
        Source::Estimated => {
            "Its times are estimates from data sheets: rates may be off by tens of percent, ratios of splits by less. Measure \
             before you buy."
        }
        Source::Measured => "Its times were measured.",
    };
    let _ = writeln!(
        text,
        "\nError: rates are found to 2 %; {} samples of {} requests; simulated, not run. Profile: {}. {source}",
        told.samples, told.requests, profile.name,
    );
    if let Some((lasts, takes)) = told.too_short() {
        let _ = writeln!(
            text,
            "Too few requests: at this rate they last {lasts:.0} s, and one takes {takes:.0} s, so queues had no time to grow and the rate is \
             too high. Simulate more (--num-requests, --most-requests)."
        );
    }
}

/// Values for a Helm chart.
#[must_use]
pub fn values(split: Split) -> String {
    let (mode, prefill) =
        if split.is_aggregated() { ("aggregated", 0) } else { ("disaggregated", split.prefill) };
    format!(
        "# By `baton tune recommend`.\nmode: {mode}\nprefill:\n  replicas: {prefill}\ndecode:\n  replicas: {}\n",
        split.decode
    )
}
