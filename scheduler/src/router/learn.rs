//! What came of a request, and what that teaches.

use baton_policy::{
    placer::{Account, Ended, Moved, Served},
    record::Outcome,
    view::Prompted,
};
use baton_proto::v1::{Account as Told, Step};

use super::{Known, Route, Router};

impl Router {
    /// A worker says what its steps took. Those that only computed prompts teach what prompts take.
    pub(crate) fn stepped(&self, id: &str, steps: &[Step]) {
        let mut prompted = Prompted::default();
        for step in steps.iter().filter(|step| step.prompt_tokens > 0 && step.sequences == 0) {
            prompted.steps += 1.0;
            prompted.tokens += f64::from(step.prompt_tokens);
            prompted.pairs += step.pairs;
            prompted.ms += step.us as f64 / 1e3;
        }
        let mut known = self.lock();
        if let Some(slot) = known.slots.of(id) {
            known.placer.prompted(slot, &prompted);
        }
    }
}

impl Known {
    /// A route has ended. Its time to first token, if that came.
    pub(super) fn settle(&mut self, route: &Route, now: f64) -> Option<f64> {
        let account = route.account.as_ref();
        let ttft_ms =
            route.first_token_at.map(|at| at.saturating_duration_since(route.began).as_secs_f64() * 1e3);
        let ended = Ended {
            tenant: &route.tenant,
            ttft_ms,
            // Of an answer that nobody has looked at it is not known.
            output_tokens: (route.is_complete && route.output_tokens > 0).then_some(route.output_tokens),
            served: match account {
                Some(told) => self.told(told).map_or(Served::Unknown, Served::Told),
                // All that is known of a server that gives no account is when its tokens came. A prompt that did not wait took that long.
                None if route.is_complete && route.waited_ms <= 0.0 => {
                    Served::Seen { cached_tokens: route.cached_tokens, step_ms: route.step_ms() }
                }
                None => Served::Unknown,
            },
        };
        self.placer.ended(&route.placed, &ended, now);
        self.records.settle(&route.request_id, outcome(route, ttft_ms));
        if let (Some(log), Some(record)) = (&self.log, self.records.get(&route.request_id)) {
            log.write(record);
        }
        ttft_ms
    }

    fn told(&self, told: &Told) -> Option<Account> {
        let timing = told.timing.filter(|timing| timing.prefill_us > 0)?;
        let (bytes, per_second) = (told.transfer_bytes as f64, told.link_bytes_per_second as f64);
        Some(Account {
            prefill: self.slots.of(&told.prefill_worker)?,
            prefill_ms: timing.prefill_us as f64 / 1e3,
            cached_tokens: told.cached_prompt_tokens.into(),
            moved: (bytes > 0.0 && per_second > 0.0)
                .then(|| Moved { bytes, link_ms: bytes / per_second * 1e3 }),
        })
    }
}

fn outcome(route: &Route, ttft_ms: Option<f64>) -> Outcome {
    let account = route.account.as_ref();
    let timing = account.and_then(|account| account.timing).unwrap_or_default();
    let ms = |us: u64| us as f64 / 1e3;
    let planned = route.prefill.first().unwrap_or(&route.decode);
    Outcome {
        queue_ms: ms(timing.queue_us),
        prefill_ms: ms(timing.prefill_us),
        transfer_ms: ms(timing.transfer_us),
        moved_bytes: account.map_or(0, |account| account.transfer_bytes),
        link_bytes_per_second: account.map_or(0, |account| account.link_bytes_per_second),
        decode_wait_ms: ms(timing.decode_wait_us),
        ttft_ms: ttft_ms.unwrap_or(0.0),
        decode_ms: ms(timing.decode_us),
        output_tokens: route.output_tokens,
        cached_tokens: account.map_or(0, |account| u64::from(account.cached_prompt_tokens)),
        failed: route.first_token_at.is_none()
            || account.is_some_and(|account| account.prefill_worker != *planned),
    }
}
