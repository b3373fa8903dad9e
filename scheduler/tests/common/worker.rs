//! Workers that join and report, and do nothing else.

use std::{net::SocketAddr, time::Duration};

use baton_proto::v1::{
    FabricInfo, KvCacheInfo, ModelInfo, RegistryReply, Role, WorkerInfo, WorkerLoad, WorkerReport,
    registry_client::RegistryClient, registry_reply::Reply, worker_report::Report,
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
    replies: Streaming<RegistryReply>,
    reporting: JoinHandle<()>,
}

impl FakeWorker {
    /// Joins and goes on reporting; `Err` is the registry's refusal.
    pub(crate) async fn join(scheduler: &TestScheduler, info: WorkerInfo) -> Result<Self, String> {
        let mut client = RegistryClient::connect(format!("http://{}", scheduler.registry)).await.unwrap();
        let (reports, receiver) = mpsc::channel(4);
        reports.send(WorkerReport { report: Some(Report::Hello(info)) }).await.unwrap();
        let mut replies = client.join(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        match replies.message().await.unwrap().unwrap().reply.unwrap() {
            Reply::Accepted(_) => {}
            Reply::Rejected(rejected) => return Err(rejected.reason),
        }
        let reporting = tokio::spawn(report_forever(reports.clone()));
        Ok(Self { reports, replies, reporting })
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
        let drained = async { while let Ok(Some(_)) = self.replies.message().await {} };
        tokio::time::timeout(super::http::PATIENCE, drained).await.expect("the registry ends the membership");
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.reporting.abort();
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
