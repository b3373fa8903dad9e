//! What is counted.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    flow::Outcome,
    spread::{Spread, bounds},
    who::Who,
};

/// All of it.
#[derive(Debug)]
pub(super) struct Tallies {
    pub(super) requests: BTreeMap<Who, Requests>,
    pub(super) flows: BTreeMap<(Who, Outcome), Flow>,
    pub(super) decisions: BTreeMap<(Arc<str>, Kind), u64>,
    pub(super) attempts: BTreeMap<Attempt, u64>,
    /// Share of the prompt that is cached where it is computed.
    pub(super) hit_ratio: Spread,
    pub(super) hit_bytes: Spread,
    pub(super) cycle: Spread,
    pub(super) processing: Spread,
}

/// Requests of somebody.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) total: u64,
    pub(super) running: u64,
    /// Those that wait to be let in, and their bytes.
    pub(super) waiting: u64,
    pub(super) waiting_bytes: u64,
    pub(super) errors: BTreeMap<&'static str, u64>,
    pub(super) duration: Spread,
    pub(super) normalized: Spread,
    /// Of answers in one piece, and of streams.
    pub(super) ttft: [Spread; 2],
    pub(super) predicted_ttft: Spread,
    pub(super) tpot: Spread,
    pub(super) request_bytes: Spread,
    pub(super) response_bytes: Spread,
    pub(super) input_tokens: Spread,
    pub(super) output_tokens: Spread,
    pub(super) cached_tokens: Spread,
}

/// How admission went.
#[derive(Debug)]
pub(super) struct Flow {
    /// From being offered to this outcome.
    pub(super) queue: Spread,
    /// The offer alone.
    pub(super) enqueue: Spread,
}

/// Where a prompt is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Where it decodes.
    DecodeOnly,
    /// By a prefill worker.
    PrefillDecode,
}

/// An attempt to find a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attempt {
    pub(super) model: Arc<str>,
    /// The decode worker and its port; `None`: there was nobody.
    pub(super) worker: Option<(String, String)>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement<'a> {
    /// The decode worker's id.
    pub(crate) decode: &'a str,
    /// `ip:port`, where it has one for gateways.
    pub(crate) address: Option<&'a str>,
    /// Whether a prefill worker computes the prompt.
    pub(crate) is_disaggregated: bool,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: u64,
    /// Of them, those that are cached where it is computed.
    pub(crate) cached_tokens: u64,
}

/// A token is about so many bytes of text.
const BYTES_A_TOKEN: u64 = 4;

impl Default for Tallies {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            flows: BTreeMap::new(),
            decisions: BTreeMap::new(),
            attempts: BTreeMap::new(),
            hit_ratio: Spread::new(bounds::SHARE),
            hit_bytes: Spread::new(bounds::HIT_BYTES),
            cycle: Spread::new(bounds::SCHEDULER_SECONDS),
            processing: Spread::new(bounds::PROCESSING_SECONDS),
        }
    }
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            total: 0,
            running: 0,
            waiting: 0,
            waiting_bytes: 0,
            errors: BTreeMap::new(),
            duration: Spread::new(bounds::REQUEST_SECONDS),
            normalized: Spread::new(bounds::NORMALIZED_SECONDS),
            ttft: [(); 2].map(|()| Spread::new(bounds::FIRST_TOKEN_SECONDS)),
            predicted_ttft: Spread::new(bounds::REQUEST_SECONDS),
            tpot: Spread::new(bounds::TOKEN_SECONDS),
            request_bytes: Spread::new(bounds::REQUEST_BYTES),
            response_bytes: Spread::new(bounds::RESPONSE_BYTES),
            input_tokens: Spread::new(bounds::INPUT_TOKENS),
            output_tokens: Spread::new(bounds::OUTPUT_TOKENS),
            cached_tokens: Spread::new(bounds::INPUT_TOKENS),
        }
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self { queue: Spread::new(bounds::QUEUE_SECONDS), enqueue: Spread::new(bounds::SCHEDULER_SECONDS) }
    }
}

impl Tallies {
    pub(super) fn of(&mut self, who: &Who) -> &mut Requests {
        self.requests.entry(who.clone()).or_default()
    }

    pub(super) fn placed(&mut self, who: &Who, placement: &Placement<'_>) {
        let Placement { decode, address, is_disaggregated, prompt_tokens, cached_tokens } = *placement;
        let kind = if is_disaggregated { Kind::PrefillDecode } else { Kind::DecodeOnly };
        *self.decisions.entry((who.model.clone(), kind)).or_default() += 1;
        let port = address.and_then(|address| address.rsplit_once(':')).map_or("", |(_, port)| port);
        let worker = Some((decode.to_owned(), port.to_owned()));
        *self.attempts.entry(Attempt { model: who.model.clone(), worker }).or_default() += 1;
        self.hit_ratio.observe(cached_tokens as f64 / prompt_tokens.max(1) as f64);
        self.hit_bytes.observe((cached_tokens * BYTES_A_TOKEN) as f64);
    }

    pub(super) fn unplaced(&mut self, who: &Who) {
        *self.attempts.entry(Attempt { model: who.model.clone(), worker: None }).or_default() += 1;
    }

    pub(super) fn forget(&mut self, gone: &str) {
        self.attempts.retain(|attempt, _| attempt.worker.as_ref().is_none_or(|(id, _)| id != gone));
    }
}
