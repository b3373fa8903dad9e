//! Workers and a registry that do what a test says, each call handed to the test.

use std::{net::SocketAddr, time::Duration};

use baton_proto::v1::{
    DecodeCommand, DecodeEvent, PrefillEvent, PrefillRequest, RegistryReply, Token, Tokens, WorkerReport,
    decode_command::Command,
    decode_event,
    decode_server::{Decode, DecodeServer},
    prefill_event,
    prefill_server::{Prefill, PrefillServer},
    registry_server::{Registry, RegistryServer},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

/// Only ever spent by a failing test.
const HANG: Duration = Duration::from_secs(20);

/// Fails the test when `future` takes for ever.
#[track_caller]
pub(crate) fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move { tokio::time::timeout(HANG, future).await.unwrap_or_else(|_| panic!("hangs at {caller}")) }
}

/// A server whose calls the test takes.
pub(crate) struct Fake<Call> {
    pub(crate) address: SocketAddr,
    calls: mpsc::Receiver<Call>,
    server: JoinHandle<()>,
}

impl<Call> Fake<Call> {
    async fn serve(routes: Routes, calls: mpsc::Receiver<Call>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_routes(routes);
        let server = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, calls, server }
    }

    /// The next call.
    #[track_caller]
    pub(crate) fn call(&mut self) -> impl Future<Output = Call> {
        let call = self.calls.recv();
        within(async move { call.await.expect("the server lives") })
    }

    /// No call is waiting to be taken.
    pub(crate) fn assert_no_call(&mut self) {
        assert!(self.calls.try_recv().is_err(), "nobody should have called");
    }
}

impl<Call> Drop for Fake<Call> {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A call to a prefill worker. Dropping it ends the stream.
pub(crate) struct PrefillCall {
    pub(crate) request: PrefillRequest,
    pub(crate) events: mpsc::Sender<Result<PrefillEvent, Status>>,
}

struct FakePrefill(mpsc::Sender<PrefillCall>);

#[tonic::async_trait]
impl Prefill for FakePrefill {
    type RunStream = ReceiverStream<Result<PrefillEvent, Status>>;

    async fn run(&self, request: Request<PrefillRequest>) -> Result<Response<Self::RunStream>, Status> {
        let (events, stream) = mpsc::channel(16);
        let call = PrefillCall { request: request.into_inner(), events };
        self.0.send(call).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Fake<PrefillCall> {
    pub(crate) async fn prefill() -> Self {
        let (calls, taken) = mpsc::channel(16);
        Self::serve(Routes::new(PrefillServer::new(FakePrefill(calls))), taken).await
    }
}

impl PrefillCall {
    pub(crate) async fn send(&self, event: prefill_event::Event) {
        within(self.events.send(Ok(PrefillEvent { event: Some(event) }))).await.expect("the sidecar listens");
    }

    pub(crate) async fn first_token(&self, id: u32) {
        let token = Some(token(id));
        self.send(prefill_event::Event::FirstToken(prefill_event::FirstToken {
            token,
            ..Default::default()
        }))
        .await;
    }

    pub(crate) async fn pushed(&self) {
        self.send(prefill_event::Event::Pushed(prefill_event::Pushed::default())).await;
    }

    /// The sidecar drops the call.
    #[track_caller]
    pub(crate) fn dropped(&self) -> impl Future<Output = ()> {
        within(self.events.closed())
    }
}

/// A session on a decode worker. Dropping it ends the stream.
pub(crate) struct Session {
    pub(crate) commands: Streaming<DecodeCommand>,
    pub(crate) events: mpsc::Sender<Result<DecodeEvent, Status>>,
}

struct FakeDecode(mpsc::Sender<Session>);

#[tonic::async_trait]
impl Decode for FakeDecode {
    type SessionStream = ReceiverStream<Result<DecodeEvent, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<DecodeCommand>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (events, stream) = mpsc::channel(16);
        let session = Session { commands: request.into_inner(), events };
        self.0.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Fake<Session> {
    pub(crate) async fn decode() -> Self {
        let (calls, taken) = mpsc::channel(16);
        Self::serve(Routes::new(DecodeServer::new(FakeDecode(calls))), taken).await
    }
}

impl Session {
    #[track_caller]
    pub(crate) fn command(&mut self) -> impl Future<Output = Command> {
        let command = self.commands.message();
        within(async move { command.await.unwrap().expect("the sidecar goes on").command.unwrap() })
    }

    pub(crate) async fn send(&self, event: decode_event::Event) {
        within(self.events.send(Ok(DecodeEvent { event: Some(event) }))).await.expect("the sidecar listens");
    }

    /// Takes `open`, and grants it.
    pub(crate) async fn opened(mut self) -> Self {
        assert!(matches!(self.command().await, Command::Open(_)));
        self.send(decode_event::Event::Reserved(decode_event::Reserved::default())).await;
        self
    }

    /// Takes `expect`, and answers with a ticket that says which try it is.
    pub(crate) async fn ticketed(mut self, prefill_worker: &str, attempt: u32) -> Self {
        let Command::Expect(expect) = self.command().await else { panic!("not an expect") };
        assert_eq!((expect.prefill_worker.as_str(), expect.attempt), (prefill_worker, attempt));
        let ticket = format!("ticket {attempt}").into_bytes().into();
        self.send(decode_event::Event::Ticket(decode_event::Ticket { ticket, attempt })).await;
        self
    }

    /// Takes `start` with that token, and says that the transfer is done.
    pub(crate) async fn started(mut self, id: u32, attempt: u32) -> Self {
        let Command::Start(start) = self.command().await else { panic!("not a start") };
        assert_eq!((start.first_token.unwrap().id, start.attempt), (id, attempt));
        let done = decode_event::TransferDone { attempt, ..Default::default() };
        self.send(decode_event::Event::TransferDone(done)).await;
        self
    }

    /// Takes `prefill_locally`.
    pub(crate) async fn local(mut self) -> Self {
        assert!(matches!(self.command().await, Command::PrefillLocally(_)));
        self
    }

    pub(crate) async fn tokens(&self, ids: &[u32]) {
        let tokens = Tokens { tokens: ids.iter().map(|&id| token(id)).collect() };
        self.send(decode_event::Event::Tokens(tokens)).await;
    }

    pub(crate) async fn done(&self) {
        let reason = baton_proto::v1::FinishReason::Stop.into();
        self.send(decode_event::Event::Done(decode_event::Done { reason, ..Default::default() })).await;
    }

    /// The sidecar drops the session.
    #[track_caller]
    pub(crate) fn dropped(&self) -> impl Future<Output = ()> {
        within(self.events.closed())
    }
}

/// A membership at the fake scheduler.
pub(crate) struct Membership {
    pub(crate) reports: Streaming<WorkerReport>,
    pub(crate) replies: mpsc::Sender<Result<RegistryReply, Status>>,
}

struct FakeRegistry(mpsc::Sender<Membership>);

#[tonic::async_trait]
impl Registry for FakeRegistry {
    type JoinStream = ReceiverStream<Result<RegistryReply, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<WorkerReport>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let (replies, stream) = mpsc::channel(4);
        let membership = Membership { reports: request.into_inner(), replies };
        self.0.send(membership).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Fake<Membership> {
    pub(crate) async fn registry() -> Self {
        let (calls, taken) = mpsc::channel(16);
        Self::serve(Routes::new(RegistryServer::new(FakeRegistry(calls))), taken).await
    }
}

pub(crate) fn token(id: u32) -> Token {
    Token { id, logprob: None, top: Vec::new() }
}
