//! A decode worker with its sidecar, made up: it has room for everything, and gives tokens at fixed times.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use baton_proto::v1::{
    Account, FabricInfo, FinishReason, Finished, GenerateEvent, GenerateRequest, KvCacheInfo, ModelInfo,
    Role, Token, Tokens, WorkerInfo, WorkerLoad, WorkerReport,
    generate_event::Event,
    generation_server::{Generation, GenerationServer},
    registry_client::RegistryClient,
    worker_report::Report,
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    client::ID,
    times::{Pace, Times},
};

/// A million blocks: nobody waits for room.
const BLOCKS: u32 = 1 << 20;

struct Fake {
    times: Arc<Times>,
    pace: Pace,
    /// A token that is text.
    token: u32,
}

#[tonic::async_trait]
impl Generation for Fake {
    type GenerateStream = ReceiverStream<Result<GenerateEvent, Status>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let id = request.into_inner().request_id;
        let number = id.strip_prefix(ID).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let stream: usize = number
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| Status::invalid_argument(format!("{id:?} is none of ours")))?;
        let (events, receiver) = mpsc::channel(4);
        let (times, pace, token) = (self.times.clone(), self.pace, self.token);
        tokio::spawn(async move {
            let mut ticks = interval(pace.each);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for number in 0..pace.tokens {
                ticks.tick().await;
                times.given(stream, number);
                let tokens = Tokens { tokens: vec![Token { id: token, ..Token::default() }] };
                let event = GenerateEvent { event: Some(Event::Tokens(tokens)), account: None };
                if events.send(Ok(event)).await.is_err() {
                    return;
                }
            }
            let reason = FinishReason::Length.into();
            let event = Some(Event::Finished(Finished { reason }));
            let _ = events.send(Ok(GenerateEvent { event, account: Some(Account::default()) })).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Serves, and joins the scheduler, for as long as the process lives.
pub(crate) async fn start(registry: &str, model: &Path, times: Arc<Times>, pace: Pace) -> anyhow::Result<()> {
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(model.join("config.json"))?)?;
    let figure = |name: &str| {
        let figure = config[name].as_u64().and_then(|figure| u32::try_from(figure).ok());
        figure.with_context(|| format!("no {name} in config.json"))
    };
    let tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(model.join("tokenizer.json"))?)?;
    let token = tokenizer["model"]["vocab"]["a"].as_u64().context("no token for `a`")?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let service = GenerationServer::new(Fake { times, pace, token: u32::try_from(token)? });
    let server = Server::builder().tcp_nodelay(true).add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let folder = model.canonicalize()?;
    let name = folder.file_name().context("no name")?.to_string_lossy().into_owned();
    let hello = WorkerInfo {
        worker_id: "made-up".to_owned(),
        incarnation: 1,
        role: Role::Decode.into(),
        endpoint: address.clone(),
        serving_endpoint: address,
        model: Some(ModelInfo {
            name,
            revision: "1".to_owned(),
            dtype: "bf16".to_owned(),
            max_context_tokens: figure("max_position_embeddings")?,
            vocab_size: figure("vocab_size")?,
        }),
        kv_cache: Some(KvCacheInfo {
            block_tokens: 16,
            layers: 1,
            kv_heads: 1,
            head_dim: 64,
            dtype: "bf16".to_owned(),
            num_blocks: BLOCKS,
        }),
        fabric: Some(FabricInfo { name: "shm".to_owned(), ..FabricInfo::default() }),
        ..WorkerInfo::default()
    };
    let mut client = RegistryClient::connect(format!("http://{registry}")).await?;
    let (reports, outgoing) = mpsc::channel(4);
    reports.send(WorkerReport { report: Some(Report::Hello(hello)) }).await?;
    let mut replies = client.join(ReceiverStream::new(outgoing)).await?.into_inner();
    replies.message().await?.context("the registry says nothing")?;
    tokio::spawn(async move {
        let load = WorkerLoad { blocks_free: BLOCKS, blocks_total: BLOCKS, ..WorkerLoad::default() };
        while reports.send(WorkerReport { report: Some(Report::Load(load)) }).await.is_ok() {
            sleep(Duration::from_millis(200)).await;
        }
    });
    tokio::spawn(async move { while let Ok(Some(_)) = replies.message().await {} });
    Ok(())
}
