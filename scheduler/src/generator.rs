//! What the front asks: the fleet generates.

mod adapters;
mod describe;

use std::{sync::Arc, time::Duration};

use baton_front::{
    AdapterRefused, EndedBy, GenerateError, Generation, GenerationSpec, Generator, RecordedTraffic,
    RequestEnd, RequestHead, RequestWatch, ServedAdapter,
};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use serde_json::Value;

use crate::{
    dispatch::{self, Dispatcher},
    epp::{Answered, Underway},
    fleet::{self, Fleet, PairState},
};

/// The fleet, as the front sees it.
pub(crate) struct FleetGenerator {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) is_aggregated: bool,
    /// Requests come from gateways alone, and go where those can send them.
    pub(crate) only_picks: bool,
}

impl FleetGenerator {
    async fn generate(&self, spec: &GenerationSpec) -> Result<Generation, GenerateError> {
        let (call, first) = self.dispatcher.start(spec).await?;
        let decode_worker = call.decode_worker().to_owned();
        let fallback = call.fallback().to_owned();
        let next = |mut call: Box<dispatch::Generation>| async { Some((call.next().await, call)) };
        let rest = stream::unfold(Box::new(call), next).boxed();
        Ok(Generation { decode_worker, fallback, first, rest })
    }
}

impl Generator for FleetGenerator {
    fn start<'a>(&'a self, spec: &'a GenerationSpec) -> BoxFuture<'a, Result<Generation, GenerateError>> {
        self.generate(spec).boxed()
    }

    fn context_tokens(&self) -> Option<u32> {
        self.fleet.context_tokens()
    }

    fn largest_capacity_tokens(&self) -> Option<u64> {
        self.fleet.largest_capacity_tokens()
    }

    fn adapters(&self) -> Vec<ServedAdapter> {
        let served = |fleet::ServedAdapter { name, path }| ServedAdapter { name, path };
        self.fleet.adapters().into_iter().map(served).collect()
    }

    fn load_adapter<'a>(&'a self, name: &'a str, path: &'a str) -> BoxFuture<'a, Result<(), AdapterRefused>> {
        adapters::load(&self.fleet, name, path).boxed()
    }

    fn unload_adapter<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), AdapterRefused>> {
        adapters::unload(&self.fleet, name).boxed()
    }

    fn check_ready(&self) -> Result<(), Vec<String>> {
        match self.only_picks {
            false => self.fleet.check_ready(self.is_aggregated),
            true if self.fleet.has_gateway_endpoint() => Ok(()),
            true => Err(vec!["no server that gateways can send requests to".to_owned()]),
        }
    }

    fn check_pairs(&self) -> Result<Vec<String>, Vec<String>> {
        let pairs = if self.is_aggregated { Vec::new() } else { self.fleet.pairs() };
        let (settled, open): (Vec<_>, Vec<_>) = pairs.iter().partition(|pair| pair.state.is_settled());
        if !open.is_empty() {
            return Err(open.iter().map(ToString::to_string).collect());
        }
        let refused = settled.iter().filter(|pair| matches!(pair.state, PairState::Refused(_)));
        Ok(refused.map(ToString::to_string).collect())
    }

    fn workers(&self) -> Vec<Value> {
        let pairs = self.fleet.pairs();
        let members = self.fleet.members();
        members.iter().map(|member| describe::describe_worker(member, &pairs)).collect()
    }

    fn steps(&self) -> Vec<Value> {
        self.fleet.members().iter().map(|member| describe::describe_steps(member)).collect()
    }

    fn decision(&self, request_id: &str) -> Option<Value> {
        serde_json::to_value(self.dispatcher.router().record(request_id)?).ok()
    }

    fn decisions(&self, most: usize) -> Vec<Value> {
        let records = self.dispatcher.router().records(most);
        records.iter().filter_map(|record| serde_json::to_value(record).ok()).collect()
    }

    fn traffic(&self, span: Duration) -> Option<RecordedTraffic> {
        self.dispatcher.router().traffic(span)
    }

    fn watch(&self, request: &RequestHead<'_>) -> Option<Box<dyn RequestWatch>> {
        Some(Box::new(Counted(self.dispatcher.count(request))))
    }
}

/// A request to the front, as it is counted.
struct Counted(Underway);

impl RequestWatch for Counted {
    fn ended(self: Box<Self>, end: &RequestEnd) {
        match end.way {
            EndedBy::Client => {}
            EndedBy::Error(status) => self.0.failed(status, true),
            EndedBy::Answer => self.0.answered(&Answered {
                is_stream: end.is_stream,
                first_token: end.first_token,
                response_bytes: end.response_bytes,
                prompt_tokens: end.prompt_tokens,
                output_tokens: end.output_tokens,
                cached_tokens: Some(end.cached_tokens),
            }),
        }
    }
}
