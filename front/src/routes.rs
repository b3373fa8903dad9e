//! Paths and their handlers.
//!
//! A request goes through the same stations whatever its path: [`body`] reads it under limits, [`request`]
//! parses it (after that nothing is re-checked), [`run`] encodes its prompts, [`constrain`] compiles its grammar, [`run`]
//! generates, and [`stream`](crate::stream) or [`collect`] writes the answer in the [`wire`](crate::wire) shape of its path.
//! Whatever fails becomes an [`ApiError`], and HTTP there.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Extension, Json, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use baton_parsers::ToolFormat;
use baton_process::TraceContext;
use baton_tenancy::Tenant;
use serde_json::{Value, json};

use crate::{
    App, access, adapters,
    api_error::ApiError,
    body, collect, constrain,
    id::{self, RequestId},
    record::{self, RequestRecord, Unanswered},
    request::{
        self, GenerateJob, ParseLimits, PromptSource, model_not_found, parse_chat, parse_completion,
        take_model,
    },
    run::{self, EncodedPrompt},
    stream::EventStream,
    tools,
    upstream::{Forward, Upstream, Upstreams},
    wire::{Choice, Shape, Writer},
};

/// The whole front.
pub(crate) fn router(app: Arc<App>) -> Router {
    let updates = match app.config.allow_runtime_lora_updating {
        true => adapters::routes(),
        false => Router::new(),
    };
    let paths = updates
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/tokenize", post(tools::tokenize))
        .route("/detokenize", post(tools::detokenize))
        .fallback(async |uri: Uri| ApiError::unknown_path(uri.path()))
        .with_state(app.clone());
    finished(app.operators.paths().merge(paths))
}

/// With what holds on all paths.
pub(crate) fn finished(paths: Router) -> Router {
    paths
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            ApiError::method_not_allowed(method.as_str(), uri.path())
        })
        .layer(middleware::from_fn(with_request_id))
}

async fn with_request_id(mut request: Request, next: Next) -> Response {
    let id = id::request_id(request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Response {
    generate(app, id, Shape::Chat, request).await
}

async fn completions(
    State(app): State<Arc<App>>,
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Response {
    generate(app, id, Shape::Completion, request).await
}

async fn generate(app: Arc<App>, request_id: String, shape: Shape, request: Request) -> Response {
    let endpoint = match shape {
        Shape::Chat => "/v1/chat/completions",
        Shape::Completion => "/v1/completions",
    };
    let caller = TraceContext::of_headers(request.headers());
    let call = match access::begin(&app, &request, endpoint) {
        Ok(call) => call,
        Err(refused) => {
            record::note_refused(&app, &request_id, endpoint, &request, &refused);
            return access::refuse(refused, request).await;
        }
    };
    let tenant = call.tenant().clone();
    let mut record = RequestRecord::new(request_id, endpoint, &caller, call, app.metrics.clone());
    let response = match prepare(&app, shape, request, &mut record).await {
        Ok(Prepared::Elsewhere(forward)) => forward.respond(record).await,
        Ok(Prepared::Here { job, prompts, spare }) => match answer(&app, shape, &job, &prompts, record).await
        {
            Ok(response) => response,
            Err(unanswered) => failed(unanswered, spare).await,
        },
        Err(error) => {
            // Nobody has followed what was not understood.
            let owner = access::owner(&app, &tenant);
            record.watch_by(|head| app.generator.watch(head), false, owner.as_ref(), &HeaderMap::new());
            record.fail(&error, false);
            error.into_response()
        }
    };
    access::with_rates(&app, &tenant, response)
}

/// The client is told what failed, unless somebody else serves it.
async fn failed(unanswered: Unanswered, spare: Option<Forward>) -> Response {
    let (error, mut record) = unanswered.into_parts();
    match spare {
        Some(spare) if error.is_servable_elsewhere() => spare.respond_instead(error, record).await,
        _ => {
            let error = ApiError::from(error);
            record.fail(&error, false);
            error.into_response()
        }
    }
}

/// A request that was checked.
enum Prepared {
    Here {
        job: Box<GenerateJob>,
        prompts: Vec<EncodedPrompt>,
        /// Where it may go if it can't be served.
        spare: Option<Forward>,
    },
    /// Its model is an upstream's alone.
    Elsewhere(Forward),
}

/// Everything before anybody else is asked.
async fn prepare(
    app: &App,
    shape: Shape,
    request: Request,
    record: &mut RequestRecord,
) -> Result<Prepared, ApiError> {
    // One place before the body is read, so that bodies in memory are bounded too.
    admit(app, 1, record)?;
    let (mut parts, body) = request.into_parts();
    let body = body::read_bytes(&parts.headers, body, &app.config.limits).await?;
    record.request_bytes = body.len() as u64;
    let mut fields = body::parse(&body)?;
    let model = take_model(&mut fields, app, &mut record.call)?;
    let upstreams = Some(&app.edge.upstreams).filter(|_| Upstreams::may_have(&parts.headers));
    let deadline = record.arrived + app.config.limits.timeout;
    let forward = |upstream| app.edge.upstreams.forward(upstream, shape, &model, body.clone(), deadline);
    record.adapter = match request::adapter(app, record.call.tenant(), &model) {
        Ok(adapter) => adapter,
        Err(not_found) => {
            let elsewhere = upstreams.and_then(|upstreams| upstreams.with_model(&model));
            return elsewhere.map(|upstream| Prepared::Elsewhere(forward(upstream))).ok_or(not_found);
        }
    };
    let owner = access::owner(app, record.call.tenant());
    record.watch_by(|head| app.generator.watch(head), true, owner.as_ref(), &parts.headers);
    let spare = upstreams.and_then(|upstreams| upstreams.in_place_of(&model)).map(forward);
    let limits =
        ParseLimits { vocab_size: app.tokenizer.vocab_size(), max_choices: app.config.limits.max_choices };
    let mut job = match shape {
        Shape::Chat => parse_chat(fields, &limits)?,
        Shape::Completion => parse_completion(fields, &limits)?,
    };
    job.adapter.clone_from(&record.adapter);
    job.owner = owner;
    access::strip(&mut parts.headers);
    job.headers = Arc::new(parts.headers);
    admit(app, job.choices() - 1, record)?;
    let prompts = run::encode_prompts(app, &job).await?;
    constrain::constrain(app, &mut job, run::think_mark(app, &prompts)).await?;
    job.text.shown_special = app.marks.clone();
    let prompt_tokens = prompts.iter().map(|prompt| prompt.ids.len() as u64).sum();
    record.is_stream = job.stream.is_some();
    record.call.prompt(prompt_tokens)?;
    if record.call.wants_prompt_text() {
        let texts = prompts.iter().map(|prompt| app.tokenizer.decode(&prompt.ids, false));
        record.call.prompt_text(&texts.collect::<Vec<_>>().join("\n"));
    }
    record.begin(prompt_tokens, job.choices(), job.n);
    let max_tokens = prompts.iter().map(|prompt| prompt.max_tokens).max();
    record.describe(&job, max_tokens.unwrap_or_default());
    Ok(Prepared::Here { job: Box::new(job), prompts, spare })
}

fn admit(app: &App, completions: u32, record: &mut RequestRecord) -> Result<(), ApiError> {
    let permit = app.inflight.clone().try_acquire_many_owned(completions);
    record.hold(permit.map_err(|_| ApiError::overloaded(app.config.limits.max_inflight))?);
    Ok(())
}

async fn answer(
    app: &App,
    shape: Shape,
    job: &GenerateJob,
    prompts: &[EncodedPrompt],
    record: RequestRecord,
) -> Result<Response, Unanswered> {
    let choices = usize::try_from(job.choices()).unwrap_or(usize::MAX);
    let writer = Writer {
        shape,
        id: format!("{}-{}", if shape == Shape::Chat { "chatcmpl" } else { "cmpl" }, record.request_id),
        created: unix_seconds(),
        model: job.adapter.clone().unwrap_or_else(|| app.metrics.model_name().to_owned()),
        has_logprobs: job.logprobs.is_some(),
        tokenizer: app.tokenizer.clone(),
        offsets: vec![0; choices],
        calls: vec![0; choices],
        has_short_ids: app.formats.tools == Some(ToolFormat::Mistral),
    };
    let echo = job.echo.then(|| echoed(app, job, prompts));
    let events = run::start(app, job, prompts, &record);
    match job.stream {
        Some(options) => {
            let opened = vec![false; choices];
            let ready = std::collections::VecDeque::new();
            EventStream { events, writer, record, options, echo, n: job.n, opened, ready }.respond().await
        }
        None => {
            let mut whole: Vec<Choice> = (0..choices).map(|_| Choice::default()).collect();
            for (index, choice) in whole.iter_mut().enumerate() {
                let n = usize::try_from(job.n).unwrap_or(1);
                choice.text = echo.as_ref().map_or_else(String::new, |echo| echo[index / n].clone());
            }
            collect::respond(events, whole, writer, record).await
        }
    }
}

fn echoed(app: &App, job: &GenerateJob, prompts: &[EncodedPrompt]) -> Vec<String> {
    let text = |(source, prompt): (&PromptSource, &EncodedPrompt)| match source {
        PromptSource::Text { text, .. } => text.clone(),
        PromptSource::Tokens(_) | PromptSource::Chat(_) => app.tokenizer.decode(&prompt.ids, true),
    };
    job.prompts.iter().zip(prompts).map(text).collect()
}

async fn models(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<Value>, ApiError> {
    let tenant = access::identify(&app, &headers)?;
    let models: Vec<Value> = usable_models(&app, &tenant).collect();
    Ok(Json(json!({ "object": "list", "data": models })))
}

async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let tenant = access::identify(&app, &headers)?;
    let found = usable_models(&app, &tenant).find(|model| model["id"] == name);
    found.map(Json).ok_or_else(|| model_not_found(&app, &tenant, &name))
}

/// The served ones, their adapters, and those that upstreams have, as far as `tenant` may use them.
fn usable_models(app: &App, tenant: &Tenant) -> impl Iterator<Item = Value> {
    let names = app.config.served_model_names.iter().filter(|name| tenant.may_use(name));
    let adapters = app.generator.adapters().into_iter().filter(|adapter| tenant.may_use(&adapter.name));
    let adapters = adapters.map(|adapter| adapters::describe(app, &adapter));
    let here: Vec<Value> = names.map(|name| describe_model(app, name)).chain(adapters).collect();
    let is_here = |name: &str| here.iter().any(|model| model["id"] == name);
    let elsewhere = app.edge.upstreams.models().filter(|(name, _)| tenant.may_use(name) && !is_here(name));
    let elsewhere: Vec<Value> =
        elsewhere.map(|(name, upstream)| describe_elsewhere(app, name, upstream)).collect();
    here.into_iter().chain(elsewhere)
}

fn describe_elsewhere(app: &App, name: &str, upstream: &Upstream) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": app.started_at,
        "owned_by": format!("upstream {}", upstream.name),
    })
}

fn describe_model(app: &App, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": app.started_at,
        "owned_by": "baton",
        "root": app.folder,
        "max_model_len": app.generator.context_tokens(),
    })
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
