//! What the front asks: this sidecar generates, on its own decode worker.

use std::{sync::Arc, time::Instant};

use baton_front::{
    AdapterRefused, CallBroken, FrontConfig, GenerateError, Generation, GenerationEvent, GenerationSpec,
    Generator, ModelText, NoDecodeWorker, ServedAdapter, WorkerFailed,
};
use baton_proto::v1::{AdapterRef, Failure, FailureKind, GenerateRequest, PrefillCandidate, WorkerInfo};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use serde_json::{Value, json};

use super::{
    Directory,
    targets::{Targets, targets},
};
use crate::{
    generation::{Events, Requests},
    link::DecodeWorker,
};

/// This sidecar, as its HTTP front sees it.
pub(crate) struct SidecarGenerator {
    requests: Arc<Requests>,
    directory: Directory,
    /// Names that the decode worker may know the model by.
    names: Vec<String>,
    vocab_size: Option<u32>,
    /// Context that the model was made for.
    context_tokens: Option<u32>,
}

/// A request under way.
struct Call {
    worker: String,
    events: Events,
}

impl SidecarGenerator {
    pub(super) fn new(
        requests: Arc<Requests>,
        directory: Directory,
        config: &FrontConfig,
        text: &ModelText,
    ) -> Self {
        let mut names = config.served_model_names.clone();
        names.push(baton_tokenizer::served_name(&text.folder));
        let facts = text.tokenizer.facts();
        let (vocab_size, context_tokens) = (facts.vocab_size, facts.context_tokens);
        Self { requests, directory, names, vocab_size, context_tokens }
    }

    async fn generate(&self, spec: &GenerationSpec) -> Result<Generation, GenerateError> {
        let worker = self.requests.link.worker().ok_or(NoDecodeWorker { draining: 0 })?;
        let decode_worker = worker.worker_id.clone();
        self.check_model(&worker.facts.info).map_err(|message| {
            WorkerFailed::new(&decode_worker, Failure { kind: FailureKind::Internal.into(), message })
        })?;
        let Targets { candidates, fallback } = targets(&spec.headers, &self.directory);
        let request = generate_request(spec, &worker, candidates);
        let mut call =
            Call { worker: decode_worker.clone(), events: self.requests.start(request, &spec.trace) };
        let first = call.next().await?;
        let next = |mut call: Call| async { Some((call.next().await, call)) };
        let rest = stream::unfold(call, next).boxed();
        Ok(Generation { decode_worker, fallback, first, rest })
    }

    /// The tokens that are made here must mean the same there.
    fn check_model(&self, info: &WorkerInfo) -> Result<(), String> {
        let model = info.model.clone().unwrap_or_default();
        let size = self.vocab_size.unwrap_or(model.vocab_size);
        if self.names.contains(&model.name) && model.vocab_size == size {
            return Ok(());
        }
        Err(format!(
            "--model is {:?} with {size} token ids, and the decode worker serves {:?} with {}",
            self.names[0], model.name, model.vocab_size
        ))
    }
}

fn generate_request(
    spec: &GenerationSpec,
    worker: &DecodeWorker,
    prefill_candidates: Vec<PrefillCandidate>,
) -> GenerateRequest {
    let left = spec.deadline.at.saturating_duration_since(Instant::now());
    GenerateRequest {
        request_id: spec.request_id.clone(),
        prompt: spec.prompt.to_vec(),
        sampling: Some(spec.sampling.clone()),
        prefill_candidates,
        // 0 would mean "the sidecar's default".
        deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1),
        adapter: spec.adapter.as_ref().map(|name| AdapterRef {
            name: name.clone(),
            // One that has just gone has none; the worker says so.
            revision: worker.facts.adapters().remove(name).map_or_else(String::new, |loaded| loaded.revision),
        }),
        cache_salt: spec.cache_salt.clone(),
    }
}

impl Call {
    /// The next event. After `Finished` or an error there is none: don't ask.
    async fn next(&mut self) -> Result<GenerationEvent, GenerateError> {
        let broken = |reason: String| CallBroken { worker: self.worker.clone(), reason };
        loop {
            let message = match self.events.recv().await {
                Some(Ok(message)) => message,
                Some(Err(status)) => return Err(broken(status.message().to_owned()).into()),
                None => return Err(broken("it ended before the request did".to_owned()).into()),
            };
            match GenerationEvent::from_wire(message) {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(failure) => return Err(WorkerFailed::new(&self.worker, failure).into()),
            }
        }
    }
}

impl Generator for SidecarGenerator {
    fn start<'a>(&'a self, spec: &'a GenerationSpec) -> BoxFuture<'a, Result<Generation, GenerateError>> {
        self.generate(spec).boxed()
    }

    fn context_tokens(&self) -> Option<u32> {
        let here = self
            .requests
            .link
            .worker()
            .and_then(|worker| Some(worker.facts.info.model.as_ref()?.max_context_tokens));
        here.or(self.context_tokens)
    }

    fn largest_capacity_tokens(&self) -> Option<u64> {
        self.requests.link.worker()?.facts.capacity_tokens()
    }

    fn adapters(&self) -> Vec<ServedAdapter> {
        let Some(worker) = self.requests.link.worker() else { return Vec::new() };
        let adapters = worker.facts.adapters().into_values();
        adapters.map(|loaded| ServedAdapter { name: loaded.name, path: loaded.path }).collect()
    }

    // The front has no paths for these: one worker is not all that serve.
    fn load_adapter<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), AdapterRefused>> {
        std::future::ready(Err(not_here())).boxed()
    }

    fn unload_adapter<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), AdapterRefused>> {
        std::future::ready(Err(not_here())).boxed()
    }

    fn check_ready(&self) -> Result<(), Vec<String>> {
        let worker =
            self.requests.link.worker().ok_or_else(|| vec!["no decode worker has joined".to_owned()])?;
        self.check_model(&worker.facts.info).map_err(|problem| vec![problem])
    }

    /// Who prefills is the gateway's choice, request by request.
    fn check_pairs(&self) -> Result<Vec<String>, Vec<String>> {
        Ok(Vec::new())
    }

    fn workers(&self) -> Vec<Value> {
        let decode = self.requests.link.worker().map(|worker| {
            let info = &worker.facts.info;
            json!({
                "worker_id": info.worker_id,
                "role": "decode",
                "incarnation": info.incarnation,
                "endpoint": info.endpoint,
                "admin_endpoint": info.admin_endpoint,
                "pid": info.pid,
                "capacity_tokens": worker.facts.capacity_tokens(),
            })
        });
        let prefill = self.directory.all().into_iter().map(|worker| {
            json!({
                "worker_id": worker.worker_id,
                "role": "prefill",
                "incarnation": worker.incarnation,
                "endpoint": worker.endpoint,
            })
        });
        decode.into_iter().chain(prefill).collect()
    }
}

fn not_here() -> AdapterRefused {
    AdapterRefused::NotReady("adapters are loaded through the scheduler".to_owned())
}
