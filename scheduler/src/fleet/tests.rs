//! Membership over time, with tokio's paused clock: nothing here waits for real.

use std::time::Duration;

use baton_process::Metrics;
use baton_proto::v1::{
    FabricInfo, KvCacheInfo, ModelInfo, Pair, RegistryReply, WorkerReport,
    pair::{Connected, State},
    registry_reply::Reply,
    worker_report::Report,
};
use tokio::{sync::mpsc, task::JoinHandle, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::*;

mod adapters;

const TTL: Duration = Duration::from_millis(800);
const GRACE: Duration = Duration::from_millis(600);

fn fleet() -> Arc<Fleet> {
    let served = ServedModel { names: vec!["m".to_owned()], ..ServedModel::default() };
    let limits = FleetLimits { ttl: TTL, grace: GRACE, max_workers: 10 };
    let router = Arc::new(Router::of_defaults("m"));
    Arc::new(Fleet::new(
        served,
        limits,
        router,
        SchedulerMetrics::new(&Metrics::new(), "m", 1),
        CancellationToken::new(),
    ))
}

fn info(incarnation: u64) -> WorkerInfo {
    WorkerInfo {
        worker_id: "w".to_owned(),
        incarnation,
        role: Role::Decode.into(),
        endpoint: "127.0.0.1:1".to_owned(),
        serving_endpoint: "127.0.0.1:2".to_owned(),
        model: Some(ModelInfo { name: "m".to_owned(), max_context_tokens: 10, ..ModelInfo::default() }),
        kv_cache: Some(KvCacheInfo { block_tokens: 1, num_blocks: 1, ..KvCacheInfo::default() }),
        ..WorkerInfo::default()
    }
}

struct Worker {
    reports: mpsc::Sender<Result<WorkerReport, Status>>,
    replies: mpsc::Receiver<Result<RegistryReply, Status>>,
    serving: JoinHandle<()>,
}

impl Worker {
    async fn join(fleet: &Arc<Fleet>, incarnation: u64) -> Self {
        Self::join_as(fleet, info(incarnation)).await
    }

    async fn join_as(fleet: &Arc<Fleet>, info: WorkerInfo) -> Self {
        let (reports, receiver) = mpsc::channel(4);
        let (reply_sender, mut replies) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let serving =
            tokio::spawn(membership::serve(fleet.clone(), ReceiverStream::new(receiver), reply_sender, stop));
        let hello = WorkerReport { report: Some(Report::Hello(info)) };
        reports.send(Ok(hello)).await.unwrap();
        assert!(replies.recv().await.is_some());
        Self { reports, replies, serving }
    }

    async fn say_alive(&self) {
        self.reports.send(Ok(WorkerReport { report: None })).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_reports_stays_and_a_silent_one_leaves_after_its_ttl() {
    let fleet = fleet();
    let mut worker = Worker::join(&fleet, 1).await;
    let member = fleet.members().remove(0);
    for _ in 0..10 {
        time::sleep(TTL - Duration::from_millis(1)).await;
        worker.say_alive().await;
    }
    assert_eq!(fleet.members().len(), 1);

    let silent_since = time::Instant::now();
    assert!(worker.replies.recv().await.is_none(), "its stream is ended");
    assert_eq!(silent_since.elapsed(), TTL);
    assert!(fleet.members().is_empty());
    assert!(!member.lost.is_cancelled(), "its requests have the grace period");
    member.lost.cancelled().await;
    assert_eq!(silent_since.elapsed(), TTL + GRACE);
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_stream_ends_leaves_at_once() {
    let fleet = fleet();
    let Worker { reports, mut replies, serving } = Worker::join(&fleet, 1).await;
    let start = time::Instant::now();
    drop(reports);
    assert!(replies.recv().await.is_none());
    assert!(fleet.members().is_empty());
    assert_eq!(start.elapsed(), Duration::ZERO);
    serving.await.unwrap();
    assert_eq!(start.elapsed(), GRACE);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_back_in_time_keeps_its_requests() {
    let fleet = fleet();
    let Worker { reports, serving, .. } = Worker::join(&fleet, 1).await;
    let member = fleet.members().remove(0);
    drop(reports);
    time::sleep(GRACE / 2).await;
    let back = Worker::join(&fleet, 1).await;
    serving.await.unwrap();
    assert!(!member.lost.is_cancelled());
    assert!(Arc::ptr_eq(&member, &fleet.members()[0]));
    drop(back);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_worker_gives_up_its_former_requests_at_once() {
    let fleet = fleet();
    let former = Worker::join(&fleet, 1).await;
    let member = fleet.members().remove(0);
    let _restarted = Worker::join(&fleet, 2).await;
    assert!(member.lost.is_cancelled());
    former.serving.await.unwrap();
    assert_eq!(fleet.members()[0].info.incarnation, 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_stream_that_was_taken_over_removes_nobody() {
    let fleet = fleet();
    let former = Worker::join(&fleet, 1).await;
    let newer = Worker::join(&fleet, 1).await;
    drop(former.reports);
    former.serving.await.unwrap();
    newer.say_alive().await;
    assert_eq!(fleet.members().len(), 1);
    assert!(!fleet.members()[0].lost.is_cancelled());
}

fn prefill_info() -> WorkerInfo {
    WorkerInfo { worker_id: "p".to_owned(), role: Role::Prefill.into(), ..info(1) }
}

impl Worker {
    /// The decode workers that it is told of next, and their lives.
    async fn told(&mut self) -> Vec<(String, u64)> {
        match self.replies.recv().await.unwrap().unwrap().reply.unwrap() {
            Reply::DecodeWorkers(list) => {
                list.workers.into_iter().map(|decode| (decode.worker_id, decode.incarnation)).collect()
            }
            other => panic!("{other:?} is no list"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn prefill_workers_are_told_who_decodes_and_nobody_else_is() {
    let fleet = fleet();
    let mut prefill = Worker::join_as(&fleet, prefill_info()).await;
    assert_eq!(prefill.told().await, []);
    let node_id = vec![7; 16].into();
    let fabric = FabricInfo { control_endpoint: "tcp:x".to_owned(), node_id, ..FabricInfo::default() };
    let mut decode = Worker::join_as(&fleet, WorkerInfo { fabric: Some(fabric), ..info(1) }).await;
    let reply = prefill.replies.recv().await.unwrap().unwrap().reply.unwrap();
    let Reply::DecodeWorkers(list) = reply else { panic!("{reply:?}") };
    let [told] = &list.workers[..] else { panic!("{list:?}") };
    assert_eq!((told.control_endpoint.as_str(), &told.node_id[..]), ("tcp:x", &[7; 16][..]));

    let _again = Worker::join(&fleet, 2).await;
    assert_eq!(prefill.told().await, [("w".to_owned(), 2)]);
    assert!(decode.replies.recv().await.is_none(), "a decode worker hears nothing but its end");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_slow_to_read_is_told_the_newest_and_its_silence_still_counts() {
    let fleet = fleet();
    let mut prefill = Worker::join_as(&fleet, prefill_info()).await;
    let silent_since = time::Instant::now();
    let mut decode = Vec::new();
    for incarnation in 1..5 {
        decode.push(Worker::join(&fleet, incarnation).await);
        time::sleep(TTL / 8).await;
    }
    let mut told = vec![prefill.told().await, prefill.told().await];
    told.dedup();
    assert_eq!(told.pop().unwrap(), [("w".to_owned(), 4)], "after one that was under way");
    while prefill.replies.recv().await.is_some() {}
    assert_eq!(silent_since.elapsed(), TTL, "news for it are no signs of its life");
}

#[tokio::test(start_paused = true)]
async fn a_pair_is_that_of_one_life_of_a_decode_worker() {
    let fleet = fleet();
    let prefill = Worker::join_as(&fleet, prefill_info()).await;
    let _decode = Worker::join(&fleet, 1).await;
    let state = || fleet.pairs().pop().map(|pair| pair.state.name());
    assert_eq!(state(), Some("trying"));
    let pair = Pair {
        decode_worker_id: "w".to_owned(),
        decode_incarnation: 1,
        state: Some(State::Connected(Connected {})),
    };
    let report = Report::Pairs(PairReport { pairs: vec![pair] });
    prefill.reports.send(Ok(WorkerReport { report: Some(report) })).await.unwrap();
    while state() != Some("connected") {
        tokio::task::yield_now().await;
    }
    assert!(fleet.member("p").unwrap().pairs().has("w", 1));
    let _restarted = Worker::join(&fleet, 2).await;
    assert_eq!(state(), Some("trying"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_say_hello_is_ended() {
    let fleet = fleet();
    let (_reports, receiver) = mpsc::channel(1);
    let (reply_sender, mut replies) = mpsc::channel(1);
    let serving =
        membership::serve(fleet, ReceiverStream::new(receiver), reply_sender, CancellationToken::new());
    let start = time::Instant::now();
    serving.await;
    assert_eq!(start.elapsed(), TTL);
    assert!(replies.recv().await.is_none());
}
