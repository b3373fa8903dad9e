//! From a tokenised request to its events: places it, calls the decode worker's sidecar, watches over the call.

mod call;

use std::{sync::Arc, time::Instant};

use baton_front::{GenerationEvent, GenerationSpec};
use baton_proto::v1::{
    AdapterRef, GenerateRequest, PrefillCandidate, Role, generation_client::GenerationClient,
};
use tonic::transport::Channel;

pub(crate) use call::Generation;

use crate::{
    error::{CallBroken, DeadlinePassed, GenerateError, NoDecodeWorker, WorkerLost},
    fleet::{DecodeShare, Fleet, Member, PrefillShare},
    metrics::SchedulerMetrics,
    placement::{PlacementPolicy, PlacementRefused, PlacementRequest},
};

/// Chooses workers and calls them.
pub(crate) struct Dispatcher {
    fleet: Arc<Fleet>,
    policy: Box<dyn PlacementPolicy>,
    retries: u32,
    is_aggregated: bool,
    metrics: SchedulerMetrics,
}

struct Assignment {
    decode: Arc<Member>,
    prefill: Vec<Arc<Member>>,
    // Empty, or why this is not what was intended.
    fallback: String,
}

impl Dispatcher {
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        policy: Box<dyn PlacementPolicy>,
        retries: u32,
        is_aggregated: bool,
        metrics: SchedulerMetrics,
    ) -> Self {
        Self { fleet, policy, retries, is_aggregated, metrics }
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
        let mut tried = Vec::new();
        let mut last_failure: Option<GenerateError> = None;
        loop {
            let assignment = match self.place(spec, &tried) {
                Ok(mut assignment) => {
                    if let Some(failure) = &last_failure {
                        assignment.fallback = ToString::to_string(failure);
                    }
                    assignment
                }
                // The failure says more than that there is nobody else.
                Err(refusal) => return Err(last_failure.unwrap_or(refusal)),
            };
            let decode = assignment.decode.clone();
            let failure = match self.attempt(spec, assignment).await {
                Ok(started) => return Ok(started),
                Err(failure) => failure,
            };
            if !failure.is_retryable() {
                return Err(failure);
            }
            self.fleet.note_failure(&decode, Instant::now());
            tried.push(decode.id().to_owned());
            if tried.len() > usize::try_from(self.retries).unwrap_or(usize::MAX) {
                return Err(failure);
            }
            tracing::warn!(request_id = spec.request_id, worker = decode.id(), %failure, "trying another decode worker");
            self.metrics.retries.inc();
            last_failure = Some(failure);
        }
    }

    fn place(&self, spec: &GenerationSpec, tried: &[String]) -> Result<Assignment, GenerateError> {
        let (view, decode, prefill) = self.fleet.view();
        let request = PlacementRequest {
            prompt_tokens: spec.prompt.len() as u64,
            max_tokens: u64::from(spec.sampling.max_tokens),
            tried,
            adapter: spec.adapter.as_deref(),
        };
        let placement =
            self.policy.place(&request, &view, Instant::now()).map_err(|refused| match refused {
                PlacementRefused::NoDecodeWorker(error) => GenerateError::from(error),
                PlacementRefused::NeverFits(error) => error.into(),
                PlacementRefused::NoSuchAdapter(error) => error.into(),
            })?;
        let prefill: Vec<_> = if self.is_aggregated {
            Vec::new()
        } else {
            placement.prefill.iter().map(|&index| prefill[index].clone()).collect()
        };
        let decode = decode[placement.decode].clone();
        self.metrics.count_placement(Role::Decode, decode.id());
        if let Some(first) = prefill.first() {
            self.metrics.count_placement(Role::Prefill, first.id());
        }
        let fallback = match (self.is_aggregated || !prefill.is_empty(), view.prefill.is_empty()) {
            (true, _) => String::new(),
            (false, true) => "no prefill worker is here".to_owned(),
            (false, false) => match &spec.adapter {
                None => format!("no prefill worker is connected to {}", decode.id()),
                Some(adapter) => {
                    format!("no prefill worker with its adapter {adapter} is connected to {}", decode.id())
                }
            },
        };
        Ok(Assignment { decode, prefill, fallback })
    }

    async fn attempt(
        &self,
        spec: &GenerationSpec,
        assignment: Assignment,
    ) -> Result<(Generation, GenerationEvent), GenerateError> {
        let decode = assignment.decode;
        let decode_share = DecodeShare::take(decode.clone());
        // The sidecar may pass the first candidate over; for the load count that is close enough.
        let prefill_share = assignment
            .prefill
            .first()
            .map(|member| PrefillShare::take(member.clone(), spec.prompt.len() as u64));
        let Some(channel) = decode.channel.clone() else { return Err(NoDecodeWorker { draining: 0 }.into()) };
        let request = generate_request(spec, &decode, &assignment.prefill);
        let opened = tokio::select! {
            opened = open(channel, request) => opened,
            () = decode.lost.cancelled() => return Err(WorkerLost { worker: decode.id().to_owned() }.into()),
            () = tokio::time::sleep_until(spec.deadline.at.into()) => {
                return Err(DeadlinePassed { limit: spec.deadline.limit }.into());
            }
        };
        let stream = opened.map_err(|status| CallBroken {
            worker: decode.id().to_owned(),
            reason: call::describe(&status),
        })?;
        let mut generation =
            Generation::new(stream, decode, decode_share, spec.deadline, assignment.fallback);
        let first = generation.next().await?;
        drop(prefill_share);
        Ok((generation, first))
    }
}

async fn open(
    channel: Channel,
    request: GenerateRequest,
) -> Result<tonic::Streaming<baton_proto::v1::GenerateEvent>, tonic::Status> {
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
