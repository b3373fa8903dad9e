//! The completions of one request, generated side by side.

use std::sync::Arc;

use baton_parsers::{Formats, OutputOptions, OutputParser, ThinkMark};
use baton_proto::v1::{Account, SamplingParams};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};

use crate::{
    App,
    api_error::ApiError,
    completion::{CompletionText, Piece, TextOptions},
    error::{CallBroken, GenerateError},
    fields::InvalidField,
    generator::{self, Deadline, EventKind, Generation, GenerationEvent, GenerationSpec, Generator},
    id, prompt,
    record::RequestRecord,
    request::{Function, GenerateJob, MaxTokens, PromptSource, choice_seed},
};

/// A prompt, encoded and known to fit.
#[derive(Clone, Debug)]
pub(crate) struct EncodedPrompt {
    pub(crate) ids: Arc<[u32]>,
    pub(crate) max_tokens: u32,
}

/// What one event adds to one completion.
#[derive(Clone, Debug)]
pub(crate) struct ChoiceEvent {
    /// Which completion: prompt by prompt, `n` of each.
    pub(crate) index: u32,
    pub(crate) piece: Piece,
    /// With the first event.
    pub(crate) begun: Option<Begun>,
    /// The workers' own account, when it says more than the last one.
    pub(crate) account: Option<Account>,
}

/// Where a completion is generated.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) decode_worker: String,
    /// Empty, or why it is not served as first intended.
    pub(crate) fallback: String,
}

/// All events of a request, as they come. Dropping it cancels what is still generated.
pub(crate) type Events = SelectAll<BoxStream<'static, Result<ChoiceEvent, GenerateError>>>;

/// Encodes the prompts and checks that each fits with what is to be generated.
pub(crate) async fn encode_prompts(app: &App, job: &GenerateJob) -> Result<Vec<EncodedPrompt>, ApiError> {
    let mut encoded = Vec::with_capacity(job.prompts.len());
    for source in &job.prompts {
        let param = if matches!(source, PromptSource::Chat(_)) { "messages" } else { "prompt" };
        let ids = prompt::encode(app, source.clone()).await?;
        let (context, capacity) = (app.generator.context_tokens(), app.generator.largest_capacity_tokens());
        let max_tokens = prompt::completion_limit(ids.len(), job.max_tokens, context, capacity, param)?;
        check_min_tokens(job, max_tokens)?;
        encoded.push(EncodedPrompt { ids: ids.into(), max_tokens });
    }
    Ok(encoded)
}

/// Starts `n` completions of each prompt.
pub(crate) fn start(
    app: &App,
    job: &GenerateJob,
    prompts: &[EncodedPrompt],
    record: &RequestRecord,
) -> Events {
    let RequestRecord { request_id, arrived, .. } = record;
    let limit = app.config.limits.timeout;
    let deadline = Deadline { at: *arrived + limit, limit };
    let mut options = job.text.clone();
    let output = output_options(app, job, prompts);
    if output.is_none() {
        options.shown_special = Arc::default();
    }
    let options = Arc::new(options);
    let choices = prompts.iter().flat_map(|prompt| (0..job.n).map(move |choice| (prompt, choice)));
    let streams = choices.zip(0..).map(|((prompt, choice), index)| {
        let spec = GenerationSpec {
            request_id: id::unique(request_id, index),
            prompt: prompt.ids.clone(),
            sampling: SamplingParams {
                max_tokens: prompt.max_tokens,
                logprobs: job.logprobs,
                seed: choice_seed(job.sampling.seed, choice),
                ..job.sampling.clone()
            },
            adapter: job.adapter.clone(),
            cache_salt: job.cache_salt.clone(),
            deadline,
            headers: job.headers.clone(),
            trace: record.span.context().clone(),
            owner: job.owner.clone(),
        };
        let text =
            CompletionText::new(app.tokenizer.clone(), &prompt.ids, Arc::<TextOptions>::clone(&options));
        let parser = output.as_ref().map(OutputParser::new);
        choice_events(app.generator.clone(), spec, Text { text, parser }, index).boxed()
    });
    stream::select_all(streams)
}

/// What the answer is taken apart for; `None`: it is shown as it is.
fn output_options(app: &App, job: &GenerateJob, prompts: &[EncodedPrompt]) -> Option<OutputOptions> {
    let is_chat = matches!(job.prompts[..], [PromptSource::Chat(_)]);
    let Formats { tools, reasoning } = app.formats;
    let formats =
        Formats { tools: tools.filter(|_| job.tools.is_on() || app.formats.is_harmony()), reasoning };
    let is_needed = is_chat && formats != Formats::default();
    is_needed.then(|| OutputOptions {
        formats,
        functions: job.tools.functions.iter().map(Function::for_parser).collect(),
        mark: think_mark(app, prompts),
        one_call: !job.tools.is_parallel,
        hide_reasoning: job.hide_reasoning,
    })
}

/// Where a conversation leaves the model.
pub(crate) fn think_mark(app: &App, prompts: &[EncodedPrompt]) -> ThinkMark {
    /// More than the opening or closing of reasoning, in pieces, with white space around it.
    const LAST: usize = 16;
    let [prompt] = prompts else { return ThinkMark::None };
    let last = &prompt.ids[prompt.ids.len().saturating_sub(LAST)..];
    ThinkMark::at_the_end_of(&app.tokenizer.decode(last, false))
}

fn check_min_tokens(job: &GenerateJob, max_tokens: u32) -> Result<(), ApiError> {
    let min_tokens = job.sampling.min_tokens;
    if min_tokens <= max_tokens {
        return Ok(());
    }
    let bound = match job.max_tokens {
        MaxTokens::Asked { param, .. } => param,
        MaxTokens::Default(_) | MaxTokens::Rest => "the room that is left",
    };
    Err(InvalidField::new("min_tokens", format!("{min_tokens} is more than {bound}, {max_tokens}")).into())
}

/// A completion's text, and what takes it apart.
struct Text {
    text: CompletionText,
    parser: Option<OutputParser>,
}

enum State {
    Waiting(Arc<dyn Generator>, Box<GenerationSpec>),
    Running(Running),
}

struct Running {
    decode_worker: String,
    events: generator::Events,
}

impl Running {
    async fn next(&mut self) -> Result<GenerationEvent, GenerateError> {
        let broken = || {
            let reason = "its events ended before the request did".to_owned();
            Err(CallBroken { worker: self.decode_worker.clone(), reason }.into())
        };
        self.events.next().await.unwrap_or_else(broken)
    }
}

fn choice_events(
    generator: Arc<dyn Generator>,
    spec: GenerationSpec,
    text: Text,
    index: u32,
) -> impl futures::Stream<Item = Result<ChoiceEvent, GenerateError>> + Send {
    let waiting = State::Waiting(generator, Box::new(spec));
    stream::unfold(Some((waiting, text)), move |state| async move {
        let (state, text) = state?;
        Some(match step(state, text, index).await {
            Ok((event, next)) => (Ok(event), next),
            Err(error) => (Err(error), None),
        })
    })
}

/// The next event, and the state after it; none when it was the last.
async fn step(
    state: State,
    mut text: Text,
    index: u32,
) -> Result<(ChoiceEvent, Option<(State, Text)>), GenerateError> {
    let (running, event, begun) = match state {
        State::Waiting(generator, spec) => {
            let Generation { decode_worker, fallback, first, rest } = generator.start(&spec).await?;
            let begun = Begun { decode_worker: decode_worker.clone(), fallback };
            (Running { decode_worker, events: rest }, first, Some(begun))
        }
        State::Running(mut running) => {
            let event = running.next().await?;
            (running, event, None)
        }
    };
    let mut piece = match event.kind {
        EventKind::Tokens(tokens) => text.text.push(tokens),
        EventKind::Finished(reason) => text.text.finish(reason),
    };
    if let Some(parser) = &mut text.parser {
        piece.parse(parser);
    }
    let next = piece.end.is_none().then_some((State::Running(running), text));
    Ok((ChoiceEvent { index, piece, begun, account: event.account }, next))
}
