//! Stopping a sidecar.

use baton_proto::v1::{FailureKind, worker_report::Report};

use crate::{bed::Bed, fakes::within};

#[tokio::test]
async fn a_request_in_flight_ends_and_a_new_one_is_refused() {
    let mut bed = Bed::with(0, &[]).await;
    let mut reply = bed.ask().await;
    let session = bed.decode.call().await.opened().await.local().await;
    session.tokens(&[7]).await;
    assert_eq!(reply.tokens().await, [7]);

    bed.sidecar.shutdown.trigger();
    let report = within(bed.membership.reports.message()).await.unwrap().unwrap().report;
    assert!(matches!(report, Some(Report::Load(load)) if load.draining), "{report:?}");
    assert_eq!(bed.ask().await.failed().await.kind(), FailureKind::Unavailable);

    session.tokens(&[8]).await;
    session.done().await;
    assert_eq!(reply.tokens().await, [8]);
    reply.finished().await;
    within(bed.sidecar.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_does_not_end_by_the_drain_deadline_is_given_up_with_an_error() {
    let mut bed = Bed::with(0, &["--drain-timeout", "0"]).await;
    let reply = bed.ask().await;
    let session = bed.decode.call().await.opened().await;
    bed.sidecar.shutdown.trigger();
    assert_eq!(reply.failed().await.kind(), FailureKind::Unavailable);
    session.dropped().await;
    within(bed.sidecar.served).await.unwrap().unwrap();
}
