//! A sidecar that does as it is told.

use std::{net::SocketAddr, pin::Pin};

use baton_proto::v1::{
    Account, Failure, FailureKind, FinishReason, Finished, GenerateEvent, GenerateRequest, Timing, Token,
    Tokens,
    generate_event::Event,
    generation_server::{Generation, GenerationServer},
};
use futures::Stream;
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinHandle,
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, transport::Server};

/// What a call does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Tokens(Vec<Token>),
    Finish(FinishReason),
    Fail(FailureKind, &'static str),
    /// The call breaks with a transport error.
    Break,
}

/// One call: what was asked, and the test's hand on the answer. Dropping it ends the answer's stream.
pub(crate) struct Call {
    pub(crate) request: GenerateRequest,
    answer: UnboundedSender<Result<GenerateEvent, Status>>,
}

impl Call {
    pub(crate) fn act(&self, step: Step) {
        let event = match step {
            Step::Tokens(tokens) => Ok(Event::Tokens(Tokens { tokens })),
            Step::Finish(reason) => Ok(Event::Finished(Finished { reason: reason.into() })),
            Step::Fail(kind, message) => {
                Ok(Event::Failure(Failure { kind: kind.into(), message: message.to_owned() }))
            }
            Step::Break => Err(Status::unavailable("broken on purpose")),
        };
        // The scheduler may have hung up.
        let _ = self
            .answer
            .send(event.map(|event| GenerateEvent { event: Some(event), account: Some(account()) }));
    }

    pub(crate) fn act_all(&self, steps: impl IntoIterator<Item = Step>) {
        steps.into_iter().for_each(|step| self.act(step));
    }

    /// Returns once the scheduler has dropped the call.
    pub(crate) async fn dropped(&self) {
        tokio::time::timeout(super::http::PATIENCE, self.answer.closed())
            .await
            .expect("the scheduler drops the call");
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

/// A sidecar's server; its calls come to the test.
pub(crate) struct FakeSidecar {
    pub(crate) address: SocketAddr,
    calls: UnboundedReceiver<Call>,
    // Its own, as a process has: ending it breaks the connections.
    runtime: Option<Runtime>,
}

impl FakeSidecar {
    pub(crate) async fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, calls) = mpsc::unbounded_channel();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let service = GenerationServer::new(Service { calls: sender });
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self { address, calls, runtime: Some(runtime) }
    }

    pub(crate) async fn call(&mut self) -> Call {
        tokio::time::timeout(super::http::PATIENCE, self.calls.recv())
            .await
            .expect("the scheduler calls the sidecar")
            .expect("the sidecar serves")
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

    /// The process dies: connections break.
    pub(crate) fn kill(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Drop for FakeSidecar {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Service {
    calls: UnboundedSender<Call>,
}

#[tonic::async_trait]
impl Generation for Service {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<GenerateEvent, Status>> + Send>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let (answer, events) = mpsc::unbounded_channel();
        let call = Call { request: request.into_inner(), answer };
        self.calls.send(call).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(events))))
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
