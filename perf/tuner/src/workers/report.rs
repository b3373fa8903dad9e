//! What was measured, as text.

use std::{fmt::Write as _, path::Path};

use baton_profile::StepShape;

use super::{Both, MeasuredProfile, Verified, regret};
use crate::fit::Residuals;

/// What a profile says, and what it leaves unexplained.
pub(super) fn profile(measured: &MeasuredProfile, path: &Path) -> String {
    let MeasuredProfile { profile, prefill, decode, mixed, transfer } = measured;
    let mut text = format!("{} → {}\n\n", profile.name, path.display());
    let mut line = |what: &str, says: String, residuals: Option<&Residuals>| {
        let left = residuals.map_or_else(String::new, |residuals| {
            let Residuals { records, mean, p90, .. } = residuals;
            format!(
                " ({records} records; off by {:.0} % on average, {:.0} % at p90)",
                mean * 100.0,
                p90 * 100.0
            )
        });
        let _ = writeln!(text, "{what:<22} {says}{left}");
    };
    let step = profile.limits.step_tokens.into();
    let prompt = profile.prompt_ms(step, 0);
    line("prompts", format!("{:.0} tokens/s in steps of {step}", step as f64 / prompt * 1e3), Some(prefill));
    let batch = profile.limits.running;
    let generation = |sequences: u32| profile.decode.step_ms(sequences, u64::from(sequences) * 256);
    let says =
        format!("{:.2} ms a step of one sequence, {:.2} ms of {batch}", generation(1), generation(batch));
    line("generation", says, Some(decode));
    let mut both = StepShape { sequences: 8, context_tokens: 8 * 256, ..StepShape::default() };
    both.prompt(64, 0);
    line(
        "both in a step",
        format!("{:.2} ms of 8 sequences and 64 tokens", profile.step_ms(&both)),
        mixed.as_ref(),
    );
    let link = profile.transfer;
    let says = format!("{:.2} GB/s, then {:.2} ms", link.bytes_per_second / 1e9, link.latency_ms);
    line("hand-over", says, transfer.as_ref());
    let overhead = profile.overhead;
    line(
        "calls",
        format!("{:.2} ms; {:.2} ms to prefill workers", overhead.request_ms, overhead.call_ms),
        None,
    );
    line("start", format!("{:.1} s", profile.startup_s), None);
    text
}

/// Simulated and live, split by split.
pub(super) fn verification(verified: &[Verified]) -> String {
    let mut text = String::from(
        "                        TTFT p50, ms            TTFT p99, ms            TPOT, ms                goodput, requests/s\n\
         split       requests/s  simulated  live  error  simulated  live  error  simulated  live  error  simulated  live  error\n",
    );
    let both = |both: &Both| {
        let Both { simulated, live } = both;
        if live.is_nan() {
            return format!("{:>9}  {:>4}  {:>5}", "–", "–", "–");
        }
        let digits = if *live < 100.0 { 1 } else { 0 };
        format!("{simulated:>9.digits$}  {live:>4.digits$}  {:>+4.0}%", both.error() * 100.0)
    };
    for split in verified {
        let _ = writeln!(
            text,
            "{:<12}{:>10.2}  {}  {}  {}  {}",
            split.split,
            split.per_second,
            both(&split.ttft_p50_ms),
            both(&split.ttft_p99_ms),
            both(&split.tpot_ms),
            both(&split.goodput),
        );
        let _ = writeln!(
            text,
            "            goodput that lasts, simulated: {:.2}; steps took {:.2} of what the profile says (p90 {:.2})",
            split.lasting, split.steps_p50, split.steps_p90
        );
        if let Some(unlike) = &split.unlike {
            let _ = writeln!(text, "            {unlike}: simulate workers as they are");
        }
        if split.failed > 0 {
            let _ = writeln!(
                text,
                "            {} of {} requests did not complete",
                split.failed, split.requests
            );
        }
    }
    if let Some(regret) = regret(verified) {
        let _ = writeln!(
            text,
            "\nThe split with the best simulated goodput gives {:.1} % less than the best one.",
            regret * 100.0
        );
    }
    text
}
