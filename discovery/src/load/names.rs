//! Which series mean what.
//!
//! vLLM: `vllm/v1/metrics/loggers.py` (`gpu_…` are the names until 0.9; 0.9 has both). SGLang: `sglang/srt/observability/metrics_collector.py`
//! (before: `srt/metrics/collector.py`); the shape of the cache was labels of `cache_config_info`, then gauges. Baton's workers use vLLM's
//! names. The picker's contract (llm-d's model-server protocol) needs waiting, running and KV usage; the rest is a gift.

use std::sync::LazyLock;

/// What a series adds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Waiting,
    Running,
    KvUsage,
    /// The same under an older name: counts only without the newer.
    KvUsageOld,
    KvTokens,
    BlockTokens,
    Blocks,
    ModelTokens,
    Queried,
    Hit,
    QueriedOld,
    HitOld,
    /// Figures are labels.
    CacheConfig,
    /// Names are labels, and the value is the time.
    Adapters,
}

impl Figure {
    pub(super) const COUNT: usize = 14;

    /// Counters: all series add up, whatever their labels. Gauges have one value for each rank.
    pub(super) fn is_counter(self) -> bool {
        matches!(self, Self::Queried | Self::Hit | Self::QueriedOld | Self::HitOld)
    }
}

const SERIES: [(&str, Figure); 25] = [
    ("vllm:num_requests_waiting", Figure::Waiting),
    ("vllm:num_requests_running", Figure::Running),
    ("vllm:kv_cache_usage_perc", Figure::KvUsage),
    ("vllm:gpu_cache_usage_perc", Figure::KvUsageOld),
    ("vllm:cache_config_info", Figure::CacheConfig),
    ("vllm:lora_requests_info", Figure::Adapters),
    ("vllm:prefix_cache_queries_total", Figure::Queried),
    ("vllm:prefix_cache_hits_total", Figure::Hit),
    ("vllm:gpu_prefix_cache_queries_total", Figure::QueriedOld),
    ("vllm:gpu_prefix_cache_hits_total", Figure::HitOld),
    ("sglang:num_queue_reqs", Figure::Waiting),
    // Queues that a request is in before or after that one, when a grammar is compiled or prefill and decode are apart.
    ("sglang:num_grammar_queue_reqs", Figure::Waiting),
    ("sglang:num_prefill_bootstrap_queue_reqs", Figure::Waiting),
    ("sglang:num_prefill_prealloc_queue_reqs", Figure::Waiting),
    ("sglang:num_decode_prealloc_queue_reqs", Figure::Waiting),
    ("sglang:num_decode_transfer_queue_reqs", Figure::Waiting),
    ("sglang:num_running_reqs", Figure::Running),
    ("sglang:token_usage", Figure::KvUsage),
    ("sglang:max_total_num_tokens", Figure::KvTokens),
    ("sglang:page_size", Figure::BlockTokens),
    ("sglang:num_pages", Figure::Blocks),
    ("sglang:context_len", Figure::ModelTokens),
    ("sglang:cache_config_info", Figure::CacheConfig),
    ("sglang:prompt_tokens_total", Figure::Queried),
    ("sglang:cached_tokens_total", Figure::Hit),
];

/// What a line that begins with `name` tells, with the series' place in the table: gauges of two series do not mix. `None`: nothing.
#[inline]
pub(super) fn figure(name: &[u8]) -> Option<(Figure, usize)> {
    SERIES
        .iter()
        .enumerate()
        .find(|(_, series)| series.0.as_bytes() == name)
        .map(|(at, series)| (series.1, at))
}

/// A query that makes Python's Prometheus client send these series only: a page of some kilobytes instead of hundreds. Servers that
/// do not know it send everything.
#[must_use]
pub fn narrow_query() -> &'static str {
    static QUERY: LazyLock<String> = LazyLock::new(|| {
        let names = SERIES.iter().map(|series| format!("name%5B%5D={}", series.0));
        names.collect::<Vec<_>>().join("&")
    });
    &QUERY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_found_and_its_histograms_and_neighbours_are_not() {
        for (at, (name, figure_of)) in SERIES.iter().enumerate() {
            assert_eq!(figure(name.as_bytes()), Some((*figure_of, at)));
            assert_eq!(figure(format!("{name}_bucket").as_bytes()), None);
            assert_eq!(figure(&name.as_bytes()[..name.len() - 1]), None);
        }
        assert_eq!(figure(b"vllm:num_requests_waiting_by_reason"), None);
        assert_eq!(figure(b""), None);
    }
}
