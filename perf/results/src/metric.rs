use serde::{Deserialize, Serialize};

use crate::{Stats, Summary};

/// A figure of a run by which runs are compared and drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`name` and `unit` say what each is")]
pub enum Metric {
    TtftMean,
    TtftP50,
    TtftP99,
    TpotMean,
    TpotP50,
    TpotP99,
    ItlP50,
    ItlP99,
    StallP99,
    E2eMean,
    E2eP50,
    E2eP99,
    OutputTokens,
    InputTokens,
    Requests,
    Goodput,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Less is.
    Lower,
    /// More is.
    Higher,
}

impl Metric {
    /// All, in the order of tables.
    pub const ALL: [Self; 16] = [
        Self::TtftMean,
        Self::TtftP50,
        Self::TtftP99,
        Self::TpotMean,
        Self::TpotP50,
        Self::TpotP99,
        Self::ItlP50,
        Self::ItlP99,
        Self::StallP99,
        Self::E2eMean,
        Self::E2eP50,
        Self::E2eP99,
        Self::OutputTokens,
        Self::InputTokens,
        Self::Requests,
        Self::Goodput,
    ];

    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TtftMean => "TTFT mean",
            Self::TtftP50 => "TTFT p50",
            Self::TtftP99 => "TTFT p99",
            Self::TpotMean => "TPOT mean",
            Self::TpotP50 => "TPOT p50",
            Self::TpotP99 => "TPOT p99",
            Self::ItlP50 => "ITL p50",
            Self::ItlP99 => "ITL p99",
            Self::StallP99 => "stall p99",
            Self::E2eMean => "E2E mean",
            Self::E2eP50 => "E2E p50",
            Self::E2eP99 => "E2E p99",
            Self::OutputTokens => "output tokens",
            Self::InputTokens => "input tokens",
            Self::Requests => "requests",
            Self::Goodput => "goodput",
        }
    }

    /// Its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::OutputTokens | Self::InputTokens => "tokens/s",
            Self::Requests | Self::Goodput => "requests/s",
            _ => "ms",
        }
    }

    /// Which way is better.
    pub fn better(self) -> Better {
        if self.unit() == "ms" { Better::Lower } else { Better::Higher }
    }

    /// Its value in a run, if it has one.
    pub fn of(self, summary: &Summary) -> Option<f64> {
        let latency = &summary.latency;
        let pick = |stats: Option<Stats>, of: fn(&Stats) -> f64| stats.as_ref().map(of);
        match self {
            Self::TtftMean => pick(latency.ttft_ms, |stats| stats.mean),
            Self::TtftP50 => pick(latency.ttft_ms, |stats| stats.p50),
            Self::TtftP99 => pick(latency.ttft_ms, |stats| stats.p99),
            Self::TpotMean => pick(latency.tpot_ms, |stats| stats.mean),
            Self::TpotP50 => pick(latency.tpot_ms, |stats| stats.p50),
            Self::TpotP99 => pick(latency.tpot_ms, |stats| stats.p99),
            Self::ItlP50 => pick(latency.itl_ms, |stats| stats.p50),
            Self::ItlP99 => pick(latency.itl_ms, |stats| stats.p99),
            Self::StallP99 => pick(latency.stall_ms, |stats| stats.p99),
            Self::E2eMean => pick(latency.e2e_ms, |stats| stats.mean),
            Self::E2eP50 => pick(latency.e2e_ms, |stats| stats.p50),
            Self::E2eP99 => pick(latency.e2e_ms, |stats| stats.p99),
            Self::OutputTokens => Some(summary.throughput.output_tokens_per_s),
            Self::InputTokens => Some(summary.throughput.input_tokens_per_s),
            Self::Requests => Some(summary.throughput.requests_per_s),
            Self::Goodput => summary.goodput.as_ref().map(|goodput| goodput.requests_per_s),
        }
    }
}
