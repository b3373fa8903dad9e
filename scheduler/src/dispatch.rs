//! From a tokenised request to its events: places it, calls the decode worker's sidecar, watches over the call.

mod call;
mod wishes;

use std::{sync::Arc, time::Instant};

use baton_front::{GenerationEvent, GenerationSpec, RequestHead, shown_request_id};
use baton_process::TraceContext;
use baton_proto::v1::{
    AdapterRef, GenerateEvent, GenerateRequest, PrefillCandidate, Role, generation_client::GenerationClient,
};
use tonic::transport::Channel;

pub(crate) use call::Generation;
pub(crate) use wishes::Wishes;

use crate::{
    config::{Config, Priorities},
    epp::{Asked, Underway},
    error::{CallBroken, DeadlinePassed, GenerateError, NoDecodeWorker, Stopping, WorkerLost},
    fleet::{DecodeShare, Fleet, Member, PrefillShare},
    metrics::SchedulerMetrics,
    router::{Ask, Refused, Route, Router, not_now, traced},
};

/// Has requests routed, and calls the workers that they are routed to.
pub(crate) struct Dispatcher {
    fleet: Arc<Fleet>,
    router: Arc<Router>,
    priorities: Priorities,
    retries: u32,
    is_aggregated: bool,
    metrics: SchedulerMetrics,
}

/// Workers of a route.
struct Assignment {
    route: Route,
    decode: Arc<Member>,
    prefill: Vec<Arc<Member>>,
}

impl Dispatcher {
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        router: Arc<Router>,
        config: &Config,
        metrics: SchedulerMetrics,
    ) -> Self {
        let priorities = config.routing.priorities.clone();
        Self { fleet, router, priorities, retries: config.retries, is_aggregated: config.aggregated, metrics }
    }

    /// What decides.
    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    /// Counts a request from its arrival on.
    pub(crate) fn count(&self, request: &RequestHead<'_>) -> Underway {
        let wishes = Wishes::of(request.headers, &self.priorities, request.owner).unwrap_or_default();
        let asked = match (request.is_understood, request.adapter) {
            (false, _) => Asked::Unknown,
            (true, None) => Asked::Model,
            (true, Some(adapter)) => Asked::Adapter(adapter),
        };
        let epp = &self.router.epp;
        epp.begin(wishes.who(epp, asked), request.bytes)
    }

    /// Starts `spec` and waits for its first event. Until then nothing has been shown to anybody, so a worker that fails
    /// is replaced by another, a bounded number of times.
    ///
    /// # Cancel safety
    /// Dropping the future, or the [`Generation`], cancels the call, and the workers free what they hold.
    pub(crate) async fn start(
        &self,
        spec: &GenerationSpec,
    ) -> Result<(Generation, GenerationEvent), GenerateError> {
        let wishes = Wishes::of(&spec.headers, &self.priorities, spec.owner.as_ref())?;
        let ask = Ask {
            request_id: &shown_request_id(&spec.request_id),
            prompt: &spec.prompt,
            prompt_tokens: spec.prompt.len() as u64,
            max_tokens: u64::from(spec.sampling.max_tokens),
            adapter: spec.adapter.as_deref(),
            cache_salt: spec.cache_salt.as_deref(),
            asked: spec.adapter.as_deref().map_or(Asked::Model, Asked::Adapter),
            bytes: size_of_val(&*spec.prompt) as u64,
            ..wishes.ask()
        };
        let mut tried = Vec::new();
        let mut last_failure: Option<GenerateError> = None;
        let mut route = self.admitted(spec, &ask).await?;
        loop {
            let decode = route.decode.clone();
            let (failure, failed) = match self.attempt(spec, route, last_failure.as_ref()).await {
                Ok(started) => return Ok(started),
                Err(failed) => *failed,
            };
            if !failure.is_retryable() {
                return Err(failure);
            }
            if let Some(member) = self.fleet.member(&decode) {
                self.fleet.note_failure(&member, Instant::now());
            }
            tried.push(decode.clone());
            if tried.len() > usize::try_from(self.retries).unwrap_or(usize::MAX) {
                return Err(failure);
            }
            // The failure says more than that there is nobody else.
            let Ok(next) = self.router.reroute(&ask, failed, &tried) else { return Err(failure) };
            route = next;
            tracing::warn!(request_id = spec.request_id, worker = decode, %failure, "trying another decode worker");
            self.metrics.retries.inc();
            last_failure = Some(failure);
        }
    }

    /// Waits until the request may go.
    async fn admitted(&self, spec: &GenerationSpec, ask: &Ask<'_>) -> Result<Route, GenerateError> {
        tokio::select! {
            routed = traced(&spec.trace, self.router.route(ask)) => routed.map_err(|refused| match refused {
                Refused::Nobody(error) => error,
                Refused::NotNow(refusal) => not_now(&refusal).into(),
            }),
            () = tokio::time::sleep_until(spec.deadline.at.into()) => {
                Err(DeadlinePassed { limit: spec.deadline.limit }.into())
            }
            () = self.fleet.stopping() => Err(Stopping.into()),
        }
    }

    fn assign(&self, spec: &GenerationSpec, route: Route) -> Result<Assignment, Box<(GenerateError, Route)>> {
        let Some(decode) = self.fleet.member(&route.decode) else {
            return Err(Box::new((WorkerLost { worker: route.decode.clone() }.into(), route)));
        };
        // Keys and values of an adapter are of no use with another's weights.
        let has_adapter = |member: &Arc<Member>| {
            let of = |member: &Member, name: &String| member.adapters().get(name).cloned();
            spec.adapter.as_ref().is_none_or(|name| of(member, name) == of(&decode, name))
        };
        let prefill =
            route.prefill.iter().filter_map(|id| self.fleet.member(id)).filter(has_adapter).collect();
        Ok(Assignment { route, decode, prefill })
    }

    /// Empty, or why it is not served as intended.
    fn fallback(&self, spec: &GenerationSpec, assignment: &Assignment) -> String {
        let Assignment { route, decode, prefill } = assignment;
        if self.is_aggregated || !prefill.is_empty() || route.is_local_by_choice {
            return String::new();
        }
        match (route.prefill_workers, &spec.adapter) {
            (0, _) => "no prefill worker is here".to_owned(),
            (_, None) => format!("no prefill worker is connected to {}", decode.id()),
            (_, Some(adapter)) => {
                format!("no prefill worker with its adapter {adapter} is connected to {}", decode.id())
            }
        }
    }

    async fn attempt(
        &self,
        spec: &GenerationSpec,
        route: Route,
        last_failure: Option<&GenerateError>,
    ) -> Result<(Generation, GenerationEvent), Box<(GenerateError, Route)>> {
        let assignment = self.assign(spec, route)?;
        let fallback = last_failure.map_or_else(|| self.fallback(spec, &assignment), ToString::to_string);
        let Assignment { route, decode, prefill } = assignment;
        self.metrics.count_placement(Role::Decode, decode.id());
        if let Some(first) = prefill.first() {
            self.metrics.count_placement(Role::Prefill, first.id());
        }
        let decode_share = DecodeShare::take(decode.clone());
        // The sidecar may pass the first candidate over; for the load count that is close enough.
        let prefill_share =
            prefill.first().map(|member| PrefillShare::take(member.clone(), spec.prompt.len() as u64));
        let stream = match self.open(spec, &decode, &prefill).await {
            Ok(stream) => stream,
            Err(error) => return Err(Box::new((error, route))),
        };
        let mut generation = Generation::new(stream, decode, decode_share, route, spec.deadline, fallback);
        match generation.next().await {
            Ok(first) => {
                drop(prefill_share);
                Ok((generation, first))
            }
            Err(error) => Err(Box::new((error, generation.into_route()))),
        }
    }

    async fn open(
        &self,
        spec: &GenerationSpec,
        decode: &Member,
        prefill: &[Arc<Member>],
    ) -> Result<tonic::Streaming<GenerateEvent>, GenerateError> {
        let Some(channel) = decode.channel.clone() else { return Err(NoDecodeWorker { draining: 0 }.into()) };
        let request = generate_request(spec, decode, prefill);
        let opened = tokio::select! {
            opened = open(channel, request, &spec.trace) => opened,
            () = decode.lost.cancelled() => return Err(WorkerLost { worker: decode.id().to_owned() }.into()),
            () = tokio::time::sleep_until(spec.deadline.at.into()) => {
                return Err(DeadlinePassed { limit: spec.deadline.limit }.into());
            }
        };
        opened.map_err(|status| {
            CallBroken { worker: decode.id().to_owned(), reason: call::describe(&status) }.into()
        })
    }
}

async fn open(
    channel: Channel,
    request: GenerateRequest,
    trace: &TraceContext,
) -> Result<tonic::Streaming<baton_proto::v1::GenerateEvent>, tonic::Status> {
    let mut request = tonic::Request::new(request);
    trace.write(request.metadata_mut().as_mut());
    Ok(GenerationClient::new(channel).generate(request).await?.into_inner())
}

fn generate_request(spec: &GenerationSpec, decode: &Member, prefill: &[Arc<Member>]) -> GenerateRequest {
    let left = spec.deadline.at.saturating_duration_since(Instant::now());
    GenerateRequest {
        request_id: spec.request_id.clone(),
        prompt: spec.prompt.to_vec(),
        sampling: Some(spec.sampling.clone()),
        prefill_candidates: prefill.iter().map(|member| prefill_candidate(member)).collect(),
        // 0 would mean "the sidecar's default".
        deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1),
        adapter: spec.adapter.as_ref().map(|name| AdapterRef {
            name: name.clone(),
            // One that has just gone has none; the worker says so.
            revision: decode.adapters().get(name).cloned().unwrap_or_default(),
        }),
        cache_salt: spec.cache_salt.clone(),
    }
}

/// A prefill worker, as sidecars know it.
pub(crate) fn prefill_candidate(member: &Member) -> PrefillCandidate {
    PrefillCandidate {
        worker_id: member.info.worker_id.clone(),
        incarnation: member.info.incarnation,
        endpoint: member.info.endpoint.clone(),
        block_tokens: member.info.kv_cache.as_ref().map_or(0, |kv| kv.block_tokens),
    }
}
