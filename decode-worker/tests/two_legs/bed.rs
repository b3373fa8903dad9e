//! A small fleet: prefill workers, one decode worker with its sidecar, and a scheduler that takes everybody.

use baton_process::{Readiness, Shutdown};
use baton_proto::v1::{
    Account, Failure, FinishReason, GenerateEvent, GenerateRequest, PrefillCandidate, RegistryReply, Role,
    SamplingParams, WorkerInfo, WorkerReport,
    generate_event::Event,
    generation_client::GenerationClient,
    registry_reply,
    registry_server::{Registry, RegistryServer},
};
use baton_sidecar::{Args, Sidecar};
use baton_worker::{Memberships, Registration, Source};
use clap::Parser;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server, server::TcpIncoming},
};

use crate::workers::{BLOCK_TOKENS, Served, within};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// Accepts everybody, and keeps the stream open.
struct AcceptAll;

#[tonic::async_trait]
impl Registry for AcceptAll {
    type JoinStream = ReceiverStream<Result<RegistryReply, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<WorkerReport>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let (replies, stream) = mpsc::channel(1);
        let accepted = registry_reply::Reply::Accepted(registry_reply::Accepted { ttl_ms: 1000 });
        replies.send(Ok(RegistryReply { reply: Some(accepted) })).await.unwrap();
        let mut reports = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(_)) = reports.message().await {}
            drop(replies);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

pub(crate) struct Fleet {
    pub(crate) prefills: Vec<Served>,
    pub(crate) decode: Served,
    client: GenerationClient<Channel>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Fleet {
    pub(crate) async fn start(prefills: usize, decode_blocks: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = listener.local_addr().unwrap().to_string();
        let scheduler = Server::builder().add_service(RegistryServer::new(AcceptAll));
        let scheduler = tokio::spawn(async move {
            scheduler.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });

        let any = "127.0.0.1:0";
        let options = ["sidecar", "--listen", any, "--admin-listen", any, "--registry", &registry];
        let sidecar = Sidecar::bind(Cli::parse_from(options).args).await.unwrap();
        let sidecar_address = sidecar.grpc.to_string();
        let sidecar = tokio::spawn(async move { sidecar.serve(Shutdown::manual()).await.unwrap() });

        let decode = Served::decode(decode_blocks).await;
        let hello = WorkerInfo {
            worker_id: "d".to_owned(),
            role: Role::Decode.into(),
            endpoint: decode.address.to_string(),
            ..Default::default()
        };
        let readiness = Readiness::not_yet("starting");
        let registration = Registration::new(hello, decode.worker.clone(), readiness.clone());
        let source = Source::sidecar(&sidecar_address).unwrap();
        let memberships = Memberships::new(registration, source);
        let registration =
            tokio::spawn(async move { memberships.run(CancellationToken::new()).await.unwrap() });
        within(readiness.wait_ready()).await;

        let mut started = Vec::new();
        for _ in 0..prefills {
            started.push(Served::prefill().await);
        }
        let channel =
            Channel::from_shared(format!("http://{sidecar_address}")).unwrap().connect().await.unwrap();
        let tasks = [scheduler, sidecar, registration].map(AbortOnDropHandle::new);
        Self { prefills: started, decode, client: GenerationClient::new(channel), _tasks: tasks.into() }
    }

    /// Prefill workers `p1`, `p2`, …, best first.
    pub(crate) fn candidates(&self) -> Vec<PrefillCandidate> {
        let candidate = |(index, served): (usize, &Served)| PrefillCandidate {
            worker_id: format!("p{}", index + 1),
            incarnation: 1,
            endpoint: served.address.to_string(),
            block_tokens: BLOCK_TOKENS as u32,
        };
        self.prefills.iter().enumerate().map(candidate).collect()
    }

    /// Prefilled on a prefill worker.
    pub(crate) async fn ask(&self, prompt: &[u32], sampling: SamplingParams) -> Reply {
        self.generate(prompt, sampling, self.candidates()).await
    }

    /// Prefilled where it is decoded.
    pub(crate) async fn ask_aggregated(&self, prompt: &[u32], sampling: SamplingParams) -> Reply {
        self.generate(prompt, sampling, Vec::new()).await
    }

    async fn generate(
        &self,
        prompt: &[u32],
        sampling: SamplingParams,
        prefill_candidates: Vec<PrefillCandidate>,
    ) -> Reply {
        let request = GenerateRequest {
            request_id: format!("of {} tokens", prompt.len()),
            prompt: prompt.to_vec(),
            sampling: Some(sampling),
            prefill_candidates,
            deadline_ms: 20_000,
            adapter: None,
            cache_salt: None,
        };
        Reply(within(self.client.clone().generate(request)).await.unwrap().into_inner())
    }

    /// Nothing is held anywhere any more.
    pub(crate) async fn empties(&self) {
        self.decode.empties().await;
        for prefill in &self.prefills {
            prefill.empties().await;
        }
    }
}

/// How a request ended that was served.
#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) reason: FinishReason,
    pub(crate) account: Account,
}

/// What the client gets. Dropping it is leaving.
pub(crate) struct Reply(Streaming<GenerateEvent>);

impl Reply {
    pub(crate) async fn next(&mut self) -> Event {
        self.next_with_account().await.0
    }

    async fn next_with_account(&mut self) -> (Event, Option<Account>) {
        let message = within(self.0.message()).await.unwrap().expect("there is a terminal event");
        (message.event.unwrap(), message.account)
    }

    /// All tokens from here on, and the end.
    pub(crate) async fn rest(mut self) -> (Vec<u32>, Result<Finish, Failure>) {
        let mut ids = Vec::new();
        loop {
            let (event, account) = self.next_with_account().await;
            let end = match event {
                Event::Tokens(tokens) => {
                    ids.extend(tokens.tokens.iter().map(|token| token.id));
                    continue;
                }
                Event::Finished(finished) => {
                    Ok(Finish { reason: finished.reason(), account: account.expect("with the last event") })
                }
                Event::Failure(failure) => Err(failure),
            };
            assert!(within(self.0.message()).await.unwrap().is_none(), "nothing follows the end");
            return (ids, end);
        }
    }

    /// The whole answer.
    pub(crate) async fn answer(self) -> (Vec<u32>, Finish) {
        let (ids, end) = self.rest().await;
        (ids, end.unwrap_or_else(|failure| panic!("failed: {failure:?}")))
    }
}

/// The tokens of a request that is prefilled where it is decoded, by a fleet that does nothing else and has nothing cached.
pub(crate) async fn alone(prompt: &[u32], sampling: SamplingParams) -> Vec<u32> {
    Fleet::start(0, 64).await.ask_aggregated(prompt, sampling).await.answer().await.0
}

pub(crate) fn greedy(max_tokens: u32) -> SamplingParams {
    SamplingParams { top_p: 1.0, repetition_penalty: 1.0, max_tokens, ..Default::default() }
}

pub(crate) fn prompt(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (seed.wrapping_mul(7919) + i * 31 + i * i) % 50).collect()
}
