//! What OpenAI's clients read of limits: `x-ratelimit-…`, and `retry-after`.

use std::time::Duration;

use super::limiter::Rates;

/// The headers of an answer, as far as there are limits.
pub(crate) fn rate_headers(rates: Rates) -> Vec<(&'static str, String)> {
    let names = [
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
        ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
    ];
    let of = |(rate, [limit, remaining, reset]): (Option<super::bucket::Rate>, [&'static str; 3])| {
        let rate = rate?;
        Some([
            (limit, rate.limit.to_string()),
            (remaining, rate.remaining.to_string()),
            (reset, span(rate.reset)),
        ])
    };
    [rates.requests, rates.tokens].into_iter().zip(names).filter_map(of).flatten().collect()
}

/// A duration as OpenAI writes it: `120ms`, `1.5s`, `6m0s`, `1h2m3s`. Rounded up to a millisecond, from a minute on to a second.
fn span(duration: Duration) -> String {
    let ms = match duration.as_nanos().div_ceil(1_000_000) {
        ms @ 60_000.. => ms.div_ceil(1000) * 1000,
        ms => ms,
    };
    let (seconds, rest_ms) = (ms / 1000, ms % 1000);
    let (hours, minutes, rest_s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, rest_ms) {
        (0, 0, _) if seconds == 0 && rest_ms > 0 => format!("{rest_ms}ms"),
        (0, 0, 0) => format!("{rest_s}s"),
        (0, 0, _) => format!("{rest_s}.{rest_ms:03}").trim_end_matches('0').to_owned() + "s",
        (0, ..) => format!("{minutes}m{rest_s}s"),
        _ => format!("{hours}h{minutes}m{rest_s}s"),
    }
}

/// Seconds of a `retry-after`: rounded up, at least 1.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::{super::bucket::Rate, *};

    #[test]
    fn spans_are_written_as_openai_does_and_never_too_short() {
        for (ns, expected) in [
            (0, "0s"),
            (1, "1ms"),
            (120_000_000, "120ms"),
            (1_500_000_000, "1.5s"),
            (20_000_000_000, "20s"),
            (359_000_000_001, "6m0s"),
            (3_723_000_000_000, "1h2m3s"),
        ] {
            assert_eq!(span(Duration::from_nanos(ns)), expected);
        }
        assert_eq!([0, 999, 1000, 1001].map(|ms| whole_seconds(Duration::from_millis(ms))), [1, 1, 1, 2]);
    }

    #[test]
    fn limits_that_there_are_not_have_no_headers() {
        let rate = Rate { limit: 60, remaining: 59, reset: Duration::from_secs(1) };
        let headers = rate_headers(Rates { requests: Some(rate), tokens: None });
        let expected = [
            ("x-ratelimit-limit-requests", "60".to_owned()),
            ("x-ratelimit-remaining-requests", "59".to_owned()),
            ("x-ratelimit-reset-requests", "1s".to_owned()),
        ];
        assert_eq!(headers, expected);
    }
}
