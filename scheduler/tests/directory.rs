//! Who prefills, as sidecars are told.

mod common;

use std::time::Duration;

use baton_proto::v1::{PrefillWorkers, WatchPrefillWorkersRequest, directory_client::DirectoryClient};
use common::{FakeSidecar, FakeWorker, TestScheduler, decode_info, prefill_info};
use tonic::Streaming;

/// The next list, as names.
async fn next(lists: &mut Streaming<PrefillWorkers>) -> Vec<String> {
    let list = tokio::time::timeout(Duration::from_secs(10), lists.message()).await.expect("there is news");
    list.unwrap().unwrap().workers.into_iter().map(|worker| worker.worker_id).collect()
}

#[tokio::test]
async fn a_watcher_is_told_who_prefills_now_and_whenever_it_changes() {
    let scheduler = TestScheduler::start(&[]).await;
    let mut client = DirectoryClient::connect(format!("http://{}", scheduler.registry)).await.unwrap();
    let mut lists = client.watch_prefill_workers(WatchPrefillWorkersRequest {}).await.unwrap().into_inner();
    assert!(next(&mut lists).await.is_empty());
    let first = FakeWorker::join(&scheduler, prefill_info("prefill-0")).await.unwrap();
    assert_eq!(next(&mut lists).await, ["prefill-0"]);
    // No news: it decodes.
    let sidecar = FakeSidecar::start().await;
    let _decode = FakeWorker::join(&scheduler, decode_info("decode-0", sidecar.address)).await.unwrap();
    let _second = FakeWorker::join(&scheduler, prefill_info("prefill-1")).await.unwrap();
    assert_eq!(next(&mut lists).await, ["prefill-0", "prefill-1"]);
    drop(first);
    assert_eq!(next(&mut lists).await, ["prefill-1"]);

    let mut later = client.watch_prefill_workers(WatchPrefillWorkersRequest {}).await.unwrap().into_inner();
    let list = later.message().await.unwrap().unwrap();
    let info = prefill_info("prefill-1");
    let worker = &list.workers[0];
    assert_eq!((&worker.endpoint, worker.incarnation), (&info.endpoint, info.incarnation));
    assert_eq!(worker.block_tokens, info.kv_cache.unwrap().block_tokens);

    scheduler.shutdown.trigger();
    let ended = tokio::time::timeout(Duration::from_secs(10), lists.message()).await.expect("it ends");
    assert!(matches!(ended, Ok(None) | Err(_)), "{ended:?}");
}
