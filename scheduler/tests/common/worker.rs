//! Workers that join and report, and do nothing else.

use std::{net::SocketAddr, time::Duration};

use baton_proto::v1::{
    FabricInfo, KvCacheInfo, ModelInfo, Pair, PairReport, RegistryReply, Role, WorkerInfo, WorkerLoad,
    WorkerReport, pair, registry_client::RegistryClient, registry_reply::Reply, worker_report::Report,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::TestScheduler;

pub(crate) fn decode_info(worker_id: &str, sidecar: SocketAddr) -> WorkerInfo {
    WorkerInfo {
        worker_id: worker_id.to_owned(),
        incarnation: 1,
        role: Role::Decode.into(),
        endpoint: "127.0.0.1:1".to_owned(),
        serving_endpoint: sidecar.to_string(),
        model: Some(ModelInfo {
            name: "tiny".to_owned(),
            revision: "r1".to_owned(),
            dtype: "f32".to_owned(),
            max_context_tokens: 256,
            vocab_size: super::tokenizer().facts().vocab_size.unwrap(),
        }),
        kv_cache: Some(KvCacheInfo {
            block_tokens: 16,
            layers: 2,
            kv_heads: 1,
            head_dim: 8,
            dtype: "f32".to_owned(),
            num_blocks: 100,
        }),
        fabric: Some(FabricInfo { name: "shm".to_owned(), ..FabricInfo::default() }),
        ..WorkerInfo::default()
    }
}

pub(crate) fn prefill_info(worker_id: &str) -> WorkerInfo {
    let decode = decode_info(worker_id, SocketAddr::from(([127, 0, 0, 1], 1)));
    WorkerInfo { role: Role::Prefill.into(), serving_endpoint: String::new(), ..decode }
}

/// A membership; dropping it breaks the stream.
pub(crate) struct FakeWorker {
    reports: mpsc::Sender<WorkerReport>,
    /// Ends with the membership.
    listening: Option<JoinHandle<()>>,
    reporting: JoinHandle<()>,
}

/// What a prefill worker says of its pair with a decode worker of that id.
pub(crate) type Pairing = fn(&str) -> Option<pair::State>;

/// As a real one does that reaches everybody.
pub(crate) fn connected(_: &str) -> Option<pair::State> {
    Some(pair::State::Connected(pair::Connected {}))
}

impl FakeWorker {
    /// Joins and goes on reporting; `Err` is the registry's refusal. A prefill worker is connected to every decode worker that
    /// it is told of.
    pub(crate) async fn join(scheduler: &TestScheduler, info: WorkerInfo) -> Result<Self, String> {
        Self::join_with(scheduler, info, connected).await
    }

    /// A prefill worker whose pairs are as `pairing` says.
    pub(crate) async fn join_with(
        scheduler: &TestScheduler,
        info: WorkerInfo,
        pairing: Pairing,
    ) -> Result<Self, String> {
        let mut client = RegistryClient::connect(format!("http://{}", scheduler.registry)).await.unwrap();
        let (reports, receiver) = mpsc::channel(4);
        reports.send(WorkerReport { report: Some(Report::Hello(info)) }).await.unwrap();
        let mut replies = client.join(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        match replies.message().await.unwrap().unwrap().reply.unwrap() {
            Reply::Accepted(_) => {}
            Reply::Rejected(rejected) => return Err(rejected.reason),
            Reply::DecodeWorkers(_) | Reply::AdapterOrders(_) => panic!("accepted comes first"),
        }
        let reporting = tokio::spawn(report_forever(reports.clone()));
        let listening = Some(tokio::spawn(listen(replies, reports.clone(), pairing)));
        Ok(Self { reports, listening, reporting })
    }

    pub(crate) async fn report(&self, load: WorkerLoad) {
        self.reports.send(WorkerReport { report: Some(Report::Load(load)) }).await.unwrap();
    }

    /// Stops reporting, with the stream left open.
    pub(crate) fn fall_silent(&self) {
        self.reporting.abort();
    }

    /// Returns when the registry ends the membership.
    pub(crate) async fn ended(&mut self) {
        let listening = self.listening.take().expect("it ends once");
        let ended = tokio::time::timeout(super::http::PATIENCE, listening).await;
        ended.expect("the registry ends the membership").unwrap();
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.reporting.abort();
        self.listening.iter().for_each(JoinHandle::abort);
    }
}

async fn listen(
    mut replies: Streaming<RegistryReply>,
    reports: mpsc::Sender<WorkerReport>,
    pairing: Pairing,
) {
    while let Ok(Some(reply)) = replies.message().await {
        let Some(Reply::DecodeWorkers(list)) = reply.reply else { continue };
        let pair = |decode: baton_proto::v1::registry_reply::DecodeWorker| Pair {
            state: pairing(&decode.worker_id),
            decode_worker_id: decode.worker_id,
            decode_incarnation: decode.incarnation,
        };
        let pairs = PairReport { pairs: list.workers.into_iter().map(pair).collect() };
        // The registry may have hung up.
        let _ = reports.send(WorkerReport { report: Some(Report::Pairs(pairs)) }).await;
    }
}

/// As real workers do: five times a second.
async fn report_forever(reports: mpsc::Sender<WorkerReport>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        let alive = WorkerReport { report: None };
        if reports.send(alive).await.is_err() {
            return;
        }
    }
}
