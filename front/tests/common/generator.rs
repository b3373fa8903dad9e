//! A generator that does as it is told.

use baton_front::{
    AdapterRefused, CallBroken, EventKind, GenerateError, Generation, GenerationEvent, GenerationSpec,
    Generator, ServedAdapter,
};
use baton_proto::v1::{Account, FinishReason, Timing, Token};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use serde_json::Value;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinHandle,
    time::timeout,
};

use super::http::PATIENCE;

/// What a call does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Tokens(Vec<Token>),
    Finish(FinishReason),
    Fail(GenerateError),
}

/// One call: what was asked, and the test's hand on the answer. Dropping it ends its events.
pub(crate) struct Call {
    pub(crate) request: GenerationSpec,
    answer: UnboundedSender<Result<GenerationEvent, GenerateError>>,
}

impl Call {
    pub(crate) fn act(&self, step: Step) {
        let kind = match step {
            Step::Tokens(tokens) => Ok(EventKind::Tokens(tokens)),
            Step::Finish(reason) => Ok(EventKind::Finished(reason)),
            Step::Fail(error) => Err(error),
        };
        // The front may have hung up.
        let _ = self.answer.send(kind.map(|kind| GenerationEvent { kind, account: Some(account()) }));
    }

    pub(crate) fn act_all(&self, steps: impl IntoIterator<Item = Step>) {
        steps.into_iter().for_each(|step| self.act(step));
    }

    /// Returns once the front has dropped the call.
    pub(crate) async fn dropped(&self) {
        timeout(PATIENCE, self.answer.closed()).await.expect("the front drops the call");
    }
}

fn account() -> Account {
    Account {
        timing: Some(Timing {
            queue_us: 1_000,
            prefill_us: 2_000,
            transfer_us: 3_000,
            first_token_us: 4_000,
            decode_us: 5_000,
            decode_wait_us: 600,
        }),
        prefill_worker: "prefill-0".to_owned(),
        cached_prompt_tokens: 2,
        ..Account::default()
    }
}

/// What the front asks.
pub(crate) struct FakeGenerator {
    calls: UnboundedSender<Call>,
    pub(crate) capacity_tokens: u64,
}

/// What it was told: its calls come to the test.
pub(crate) struct Told {
    calls: UnboundedReceiver<Call>,
}

impl FakeGenerator {
    pub(crate) fn new() -> (Self, Told) {
        let (sender, calls) = mpsc::unbounded_channel();
        (Self { calls: sender, capacity_tokens: 100_000 }, Told { calls })
    }
}

impl Told {
    pub(crate) async fn call(&mut self) -> Call {
        timeout(PATIENCE, self.calls.recv()).await.expect("the front starts a generation").expect("it lives")
    }

    /// No call has come that the test has not taken.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.calls.try_recv().is_err()
    }

    /// Answers every call with `steps`, from a task of its own.
    pub(crate) fn always(mut self, steps: Vec<Step>) -> JoinHandle<()> {
        tokio::spawn(async move {
            while let Some(call) = self.calls.recv().await {
                call.act_all(steps.clone());
            }
        })
    }
}

impl Generator for FakeGenerator {
    fn start<'a>(&'a self, spec: &'a GenerationSpec) -> BoxFuture<'a, Result<Generation, GenerateError>> {
        async {
            let (answer, mut events) = mpsc::unbounded_channel();
            let decode_worker = "decode-0".to_owned();
            let _ = self.calls.send(Call { request: spec.clone(), answer });
            let over = || CallBroken { worker: decode_worker.clone(), reason: "the test is over".to_owned() };
            let first = events.recv().await.ok_or_else(over)??;
            let rest = stream::poll_fn(move |context| events.poll_recv(context)).boxed();
            Ok(Generation { decode_worker, fallback: String::new(), first, rest })
        }
        .boxed()
    }

    fn context_tokens(&self) -> Option<u32> {
        Some(256)
    }

    fn largest_capacity_tokens(&self) -> Option<u64> {
        Some(self.capacity_tokens)
    }

    fn adapters(&self) -> Vec<ServedAdapter> {
        vec![]
    }

    fn load_adapter<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), AdapterRefused>> {
        async { Err(AdapterRefused::NotReady("nobody".to_owned())) }.boxed()
    }

    fn unload_adapter<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), AdapterRefused>> {
        async move { Err(AdapterRefused::NotFound(name.to_owned())) }.boxed()
    }

    fn check_ready(&self) -> Result<(), Vec<String>> {
        Ok(())
    }

    fn check_pairs(&self) -> Result<Vec<String>, Vec<String>> {
        Ok(vec![])
    }

    fn workers(&self) -> Vec<Value> {
        vec![]
    }
}

/// A step a token of `text`.
pub(crate) fn say(text: &str) -> Vec<Step> {
    tokens(text).into_iter().map(|token| Step::Tokens(vec![token])).collect()
}

pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let ids = super::tokenizer().encode(text, false).unwrap();
    ids.into_iter().map(|id| Token { id, ..Token::default() }).collect()
}
