//! The decode worker's membership, relayed.

use baton_proto::v1::{
    FailureKind, RegistryReply, Role, WorkerInfo, WorkerLoad, WorkerReport, registry_client::RegistryClient,
    registry_reply, worker_report::Report,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    bed::{Bed, Joining, Running},
    fakes::{Fake, within},
};

#[tokio::test]
async fn load_is_passed_up() {
    let mut bed = Bed::with(0, &[]).await;
    let load = WorkerLoad { waiting: 3, blocks_free: 9, ..Default::default() };
    bed.joining.reports.send(WorkerReport { report: Some(Report::Load(load)) }).await.unwrap();
    let report = within(bed.membership.reports.message()).await.unwrap().unwrap();
    assert_eq!(report.report, Some(Report::Load(load)));
}

#[tokio::test]
async fn a_worker_that_leaves_has_left_the_scheduler_too_and_requests_fail_at_once() {
    let mut bed = Bed::with(0, &[]).await;
    drop(std::mem::replace(&mut bed.joining.reports, tokio::sync::mpsc::channel(1).0));
    let ended = within(bed.membership.reports.message()).await;
    assert!(matches!(ended, Ok(None) | Err(_)), "{ended:?}");
    assert_eq!(bed.ask().await.failed().await.kind(), FailureKind::Unavailable);
}

#[tokio::test]
async fn a_scheduler_that_goes_away_breaks_the_workers_stream_so_that_it_joins_again() {
    let mut bed = Bed::with(0, &[]).await;
    drop(bed.membership);
    let ended = within(bed.joining.replies.message()).await;
    assert!(matches!(ended, Ok(None) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn a_rejection_is_passed_down() {
    let mut registry = Fake::registry().await;
    let sidecar = Running::start(&registry, &[]).await;
    let mut joining = Joining::hello(&sidecar, "127.0.0.1:1").await;
    let membership = registry.call().await;
    let rejected = registry_reply::Rejected { reason: "model.revision does not match".to_owned() };
    let reply = RegistryReply { reply: Some(registry_reply::Reply::Rejected(rejected)) };
    membership.replies.send(Ok(reply.clone())).await.unwrap();
    assert_eq!(within(joining.replies.message()).await.unwrap(), Some(reply));
}

#[tokio::test]
async fn a_worker_that_is_refused_does_not_disturb_the_one_that_serves() {
    let mut bed = Bed::with(0, &[]).await;
    // Another worker is refused here.
    let mut stranger = Joining::hello_as("stranger", &bed.sidecar, "127.0.0.1:1").await;
    let reply = within(stranger.replies.message()).await.unwrap().unwrap().reply;
    assert!(matches!(reply, Some(registry_reply::Reply::Rejected(r)) if r.reason.contains("already")));

    // One under the same name is refused by the scheduler.
    let mut other_model = Joining::hello(&bed.sidecar, "127.0.0.1:1").await;
    let membership = bed.registry.call().await;
    let rejected = registry_reply::Rejected { reason: "model.revision does not match".to_owned() };
    let reply = RegistryReply { reply: Some(registry_reply::Reply::Rejected(rejected)) };
    membership.replies.send(Ok(reply.clone())).await.unwrap();
    assert_eq!(within(other_model.replies.message()).await.unwrap(), Some(reply));

    let _reply = bed.ask().await;
    bed.decode.call().await.opened().await;
}

#[tokio::test]
async fn without_a_registry_the_worker_is_told_and_requests_fail_as_unavailable() {
    let registry = Fake::registry().await;
    let sidecar = Running::start(&registry, &[]).await;
    drop(registry);
    let mut joining = Joining::hello(&sidecar, "127.0.0.1:1").await;
    let ended = within(joining.replies.message()).await;
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn only_a_decode_worker_joins_through_a_sidecar() {
    let registry = Fake::registry().await;
    let sidecar = Running::start(&registry, &[]).await;
    let hello = WorkerInfo { worker_id: "p".to_owned(), role: Role::Prefill.into(), ..Default::default() };
    let (reports, outgoing) = tokio::sync::mpsc::channel(1);
    reports.send(WorkerReport { report: Some(Report::Hello(hello)) }).await.unwrap();
    let mut client = RegistryClient::new(sidecar.channel.clone());
    let refused = within(client.join(ReceiverStream::new(outgoing))).await.unwrap_err();
    assert!(refused.message().contains("no decode worker"), "{refused}");
}

#[tokio::test]
async fn before_a_decode_worker_has_joined_requests_fail_as_unavailable() {
    use baton_proto::v1::{GenerateRequest, generate_event::Event, generation_client::GenerationClient};

    let registry = Fake::registry().await;
    let sidecar = Running::start(&registry, &[]).await;
    let mut client = GenerationClient::new(sidecar.channel.clone());
    let mut events = within(client.generate(GenerateRequest::default())).await.unwrap().into_inner();
    let event = within(events.message()).await.unwrap().unwrap().event;
    assert!(matches!(event, Some(Event::Failure(failure)) if failure.kind() == FailureKind::Unavailable));
}
