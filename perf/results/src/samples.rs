use crate::{Figures, Measured, Outcome, Phases, Record, Sorted, Window};

/// All samples of a run's window, sorted. Times are in milliseconds; only complete requests have any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Time to first token, from the intended send time; one a request, as all that follows unless it says otherwise.
    pub ttft: Sorted,
    /// The same from the actual send time.
    pub ttft_from_sent: Sorted,
    /// Inter-token latency: gap ÷ tokens of the chunk that ended it; one for each gap between two chunks.
    pub itl: Sorted,
    /// The gaps as they are; one for each.
    pub chunk_gap: Sorted,
    /// Time per output token.
    pub tpot: Sorted,
    /// From the intended send time to the end.
    pub e2e: Sorted,
    /// The same from the actual send time.
    pub e2e_from_sent: Sorted,
    /// End-to-end latency ÷ output tokens.
    pub normalised: Sorted,
    /// The longest gap.
    pub stall: Sorted,
    /// From the intended send time to the actual one, of all that were sent.
    pub send_lag: Sorted,
    /// Tokens of the prompt.
    pub input_tokens: Sorted,
    /// Tokens of the answer.
    pub output_tokens: Sorted,
}

/// The server's phases of the window's complete requests, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PhaseSamples {
    /// From arrival to the start of prefill.
    pub queue: Sorted,
    /// Computing the prompt.
    pub prefill: Sorted,
    /// Moving the KV cache.
    pub transfer: Sorted,
    /// From having the KV cache to decode's first step.
    pub decode_wait: Sorted,
    /// From arrival to the first token.
    pub first_token: Sorted,
    /// From the first token to the last.
    pub decode: Sorted,
}

impl Samples {
    /// Those of `measured` in `window`.
    pub fn of(measured: &Measured, window: Window) -> Self {
        let all: Vec<&Record> =
            measured.records.iter().filter(|record| window.has(record.intended_us)).collect();
        let complete: Vec<&Record> =
            all.iter().copied().filter(|record| matches!(record.outcome, Outcome::Complete { .. })).collect();
        let figures: Vec<Figures> =
            complete.iter().map(|record| Figures::of(record, measured.run.streaming)).collect();
        let gaps = || {
            let streamed = complete.iter().filter(|_| measured.run.streaming);
            streamed.flat_map(|record| record.gaps())
        };
        let each = |pick: fn(&Figures) -> Option<f64>| Sorted::new(figures.iter().filter_map(pick).collect());
        let lag = |record: &&Record| Some(record.sent_us?.since(record.intended_us).millis());
        Self {
            ttft: each(|figures| figures.ttft),
            ttft_from_sent: each(|figures| figures.ttft_from_sent),
            itl: Sorted::new(gaps().map(|gap| gap.millis / gap.tokens).collect()),
            chunk_gap: Sorted::new(gaps().map(|gap| gap.millis).collect()),
            tpot: each(|figures| figures.tpot),
            e2e: each(|figures| figures.e2e),
            e2e_from_sent: each(|figures| figures.e2e_from_sent),
            normalised: each(|figures| figures.normalised),
            stall: each(|figures| figures.stall),
            send_lag: Sorted::new(all.iter().filter_map(lag).collect()),
            input_tokens: Sorted::new(
                complete
                    .iter()
                    .filter_map(|record| record.input)
                    .map(|count| f64::from(count.tokens))
                    .collect(),
            ),
            output_tokens: Sorted::new(complete.iter().map(|record| record.output_tokens()).collect()),
        }
    }
}

impl PhaseSamples {
    /// Those of `measured` in `window`.
    pub fn of(measured: &Measured, window: Window) -> Self {
        let records = measured.records.iter().filter(|record| window.has(record.intended_us));
        let complete = records.filter(|record| matches!(record.outcome, Outcome::Complete { .. }));
        let phases: Vec<&Phases> = complete.filter_map(|record| record.phases.as_ref()).collect();
        let each = |pick: fn(&Phases) -> Option<crate::Micros>| {
            Sorted::new(phases.iter().filter_map(|&phases| pick(phases)).map(crate::Micros::millis).collect())
        };
        Self {
            queue: each(|phases| phases.queue_us),
            prefill: each(|phases| phases.prefill_us),
            transfer: each(|phases| phases.transfer_us),
            decode_wait: each(|phases| phases.decode_wait_us),
            first_token: each(|phases| phases.first_token_us),
            decode: each(|phases| phases.decode_us),
        }
    }
}
