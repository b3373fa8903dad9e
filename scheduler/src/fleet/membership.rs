//! One worker's membership: as long as its stream talks.

use std::sync::Arc;

use baton_proto::v1::{
    RegistryReply, WorkerReport,
    registry_reply::{Accepted, Rejected, Reply},
    worker_report::Report,
};
use futures::{Stream, StreamExt as _};
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Fleet, Session};

/// Why a stream is no membership any more.
enum Gone {
    Ended,
    Silent,
    Superseded,
    Stopping,
}

/// Serves one stream to its end. The worker leaves the fleet at once when the stream ends or is silent for the TTL, and
/// its requests are given up after the grace period.
pub(super) async fn serve(
    fleet: Arc<Fleet>,
    mut reports: impl Stream<Item = Result<WorkerReport, Status>> + Unpin,
    replies: mpsc::Sender<Result<RegistryReply, Status>>,
    stop: CancellationToken,
) {
    let session = match time::timeout(fleet.limits().ttl, reports.next()).await {
        Ok(Some(Ok(WorkerReport { report: Some(Report::Hello(hello)) }))) => {
            let worker = hello.worker_id.clone();
            match fleet.join(hello) {
                Ok(session) => session,
                Err(reason) => {
                    tracing::warn!(worker, reason, "worker refused");
                    reply(&replies, Reply::Rejected(Rejected { reason })).await;
                    return;
                }
            }
        }
        Ok(Some(Ok(_))) => {
            reply(
                &replies,
                Reply::Rejected(Rejected { reason: "the first message must be `hello`".to_owned() }),
            )
            .await;
            return;
        }
        Ok(Some(Err(_)) | None) | Err(_) => return,
    };
    let info = &session.member.info;
    tracing::info!(worker = info.worker_id, role = ?info.role(), endpoint = info.endpoint, "worker joined");
    let ttl_ms = u32::try_from(fleet.limits().ttl.as_millis()).unwrap_or(u32::MAX);
    reply(&replies, Reply::Accepted(Accepted { ttl_ms })).await;

    let gone = follow(&fleet, &session, &mut reports, &stop).await;
    // The worker sees its stream end, and may join again at once.
    drop(replies);
    let reason = match gone {
        Gone::Ended => "its stream ended",
        Gone::Silent => "it fell silent",
        Gone::Superseded => "it joined again",
        Gone::Stopping => "the scheduler is stopping",
    };
    if !fleet.depart(&session) {
        return;
    }
    tracing::info!(worker = info.worker_id, reason, "worker left");
    tokio::select! {
        () = time::sleep(fleet.limits().grace) => {}
        () = stop.cancelled() => {}
    }
    fleet.give_up(&session);
}

impl Session {
    fn superseded(&self) -> Option<Gone> {
        (self.member.session() != self.number).then_some(Gone::Superseded)
    }
}

async fn follow(
    fleet: &Fleet,
    session: &Session,
    reports: &mut (impl Stream<Item = Result<WorkerReport, Status>> + Unpin),
    stop: &CancellationToken,
) -> Gone {
    loop {
        let report = tokio::select! {
            report = time::timeout(fleet.limits().ttl, reports.next()) => report,
            // Given up with all others, unless another stream took it over.
            () = session.member.lost.cancelled() => return session.superseded().unwrap_or(Gone::Stopping),
            () = stop.cancelled() => return Gone::Stopping,
        };
        if let Some(gone) = session.superseded() {
            return gone;
        }
        match report {
            Ok(Some(Ok(WorkerReport { report: Some(Report::Load(load)) }))) => {
                session.member.report(load, time::Instant::now().into_std());
            }
            // Anything else says at least that it lives.
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_)) | None) => return Gone::Ended,
            Err(_) => return Gone::Silent,
        }
    }
}

async fn reply(replies: &mpsc::Sender<Result<RegistryReply, Status>>, reply: Reply) {
    // A worker that has hung up needs no answer; its stream says so next.
    let _ = replies.send(Ok(RegistryReply { reply: Some(reply) })).await;
}
