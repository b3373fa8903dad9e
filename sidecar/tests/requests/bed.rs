//! A sidecar whose decode worker has joined, and its client.

use baton_process::Shutdown;
use baton_proto::v1::{
    Account, Failure, FinishReason, GenerateEvent, GenerateRequest, PrefillCandidate, RegistryReply, Role,
    SamplingParams, WorkerInfo, WorkerReport, generate_event::Event, generation_client::GenerationClient,
    registry_client::RegistryClient, registry_reply, worker_report::Report,
};
use baton_sidecar::{Args, RunError, Sidecar};
use clap::Parser;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::fakes::{Fake, Membership, PrefillCall, Session, within};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// A sidecar process, as far as a process is needed.
pub(crate) struct Running {
    pub(crate) channel: Channel,
    pub(crate) endpoint: String,
    pub(crate) shutdown: Shutdown,
    pub(crate) served: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) async fn start(registry: &Fake<Membership>, options: &[&str]) -> Self {
        let registry = registry.address.to_string();
        let fixed =
            ["sidecar", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--registry", &registry];
        let cli = Cli::try_parse_from(fixed.iter().chain(options)).unwrap();
        let sidecar = Sidecar::bind(cli.args).await.unwrap();
        let endpoint = sidecar.grpc.to_string();
        let shutdown = Shutdown::manual();
        let served = tokio::spawn(sidecar.serve(shutdown.clone()));
        let channel = Channel::from_shared(format!("http://{endpoint}")).unwrap().connect().await.unwrap();
        Self { channel, endpoint, shutdown, served }
    }
}

/// A decode worker's side of a membership.
pub(crate) struct Joining {
    pub(crate) reports: mpsc::Sender<WorkerReport>,
    pub(crate) replies: Streaming<RegistryReply>,
}

impl Joining {
    /// Says hello as the decode worker `d`, which serves at `endpoint`.
    pub(crate) async fn hello(sidecar: &Running, endpoint: &str) -> Self {
        Self::hello_as("d", sidecar, endpoint).await
    }

    pub(crate) async fn hello_as(worker_id: &str, sidecar: &Running, endpoint: &str) -> Self {
        let (reports, outgoing) = mpsc::channel(4);
        let hello = WorkerInfo {
            worker_id: worker_id.to_owned(),
            role: Role::Decode.into(),
            endpoint: endpoint.to_owned(),
            ..Default::default()
        };
        reports.send(WorkerReport { report: Some(Report::Hello(hello)) }).await.unwrap();
        let mut client = RegistryClient::new(sidecar.channel.clone());
        let replies = within(client.join(ReceiverStream::new(outgoing))).await.unwrap().into_inner();
        Self { reports, replies }
    }
}

/// A sidecar, the decode worker that has joined it, and the prefill workers `p1`, `p2`, …
pub(crate) struct Bed {
    pub(crate) sidecar: Running,
    pub(crate) decode: Fake<Session>,
    pub(crate) prefills: Vec<Fake<PrefillCall>>,
    pub(crate) membership: Membership,
    pub(crate) joining: Joining,
    pub(crate) registry: Fake<Membership>,
}

impl Bed {
    pub(crate) async fn with(prefills: usize, options: &[&str]) -> Self {
        let mut registry = Fake::registry().await;
        let sidecar = Running::start(&registry, options).await;
        let decode = Fake::decode().await;
        let mut joining = Joining::hello(&sidecar, &decode.address.to_string()).await;
        let mut membership = registry.call().await;
        let hello = within(membership.reports.message()).await.unwrap().unwrap();
        let Some(Report::Hello(hello)) = hello.report else { panic!("not a hello") };
        assert_eq!(hello.serving_endpoint, sidecar.endpoint, "the sidecar adds where it serves");
        membership.accept().await;
        within(joining.replies.message()).await.unwrap().unwrap();
        let mut started = Vec::new();
        for _ in 0..prefills {
            started.push(Fake::prefill().await);
        }
        Self { sidecar, decode, prefills: started, membership, joining, registry }
    }

    /// Every prefill worker, best first.
    pub(crate) fn candidates(&self) -> Vec<PrefillCandidate> {
        let candidate = |(index, fake): (usize, &Fake<PrefillCall>)| PrefillCandidate {
            worker_id: format!("p{}", index + 1),
            incarnation: 1,
            endpoint: fake.address.to_string(),
            block_tokens: 16,
        };
        self.prefills.iter().enumerate().map(candidate).collect()
    }

    /// Asks for completion of a prompt.
    pub(crate) async fn ask(&self) -> Reply {
        self.ask_with(self.candidates(), 0).await
    }

    pub(crate) async fn ask_with(
        &self,
        prefill_candidates: Vec<PrefillCandidate>,
        deadline_ms: u64,
    ) -> Reply {
        let request = GenerateRequest {
            request_id: "r".to_owned(),
            prompt: vec![1, 2, 3],
            sampling: Some(SamplingParams::default()),
            prefill_candidates,
            deadline_ms,
            adapter: None,
            cache_salt: None,
        };
        let mut client = GenerationClient::new(self.sidecar.channel.clone());
        Reply(within(client.generate(request)).await.unwrap().into_inner())
    }
}

impl Membership {
    pub(crate) async fn accept(&self) {
        let reply = registry_reply::Reply::Accepted(registry_reply::Accepted { ttl_ms: 1000 });
        self.replies.send(Ok(RegistryReply { reply: Some(reply) })).await.unwrap();
    }
}

/// How a request ended that was served.
pub(crate) struct Finish {
    pub(crate) reason: FinishReason,
    pub(crate) account: Account,
}

/// What the client gets. Dropping it is leaving.
pub(crate) struct Reply(Streaming<GenerateEvent>);

impl Reply {
    #[track_caller]
    pub(crate) fn tokens(&mut self) -> impl Future<Output = Vec<u32>> {
        let event = self.next();
        async move {
            match event.await {
                Some(Event::Tokens(tokens)) => tokens.tokens.iter().map(|token| token.id).collect(),
                other => panic!("not tokens: {other:?}"),
            }
        }
    }

    /// The end, which nothing follows.
    pub(crate) async fn finished(mut self) -> Finish {
        let event = within(self.0.message()).await.unwrap();
        let Some(GenerateEvent { event: Some(Event::Finished(finished)), account: Some(account) }) = event
        else {
            panic!("not finished: {event:?}")
        };
        assert_eq!(self.next().await, None);
        Finish { reason: finished.reason(), account }
    }

    /// The end, which nothing follows.
    pub(crate) async fn failed(mut self) -> Failure {
        let event = self.next().await;
        let Some(Event::Failure(failure)) = event else { panic!("not failed: {event:?}") };
        assert_eq!(self.next().await, None);
        failure
    }

    #[track_caller]
    fn next(&mut self) -> impl Future<Output = Option<Event>> {
        let event = self.0.message();
        within(async move { event.await.unwrap().map(|event| event.event.unwrap()) })
    }
}
