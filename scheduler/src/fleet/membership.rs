//! One worker's membership: as long as its stream talks.

use std::sync::Arc;

use baton_proto::v1::{
    RegistryReply, Role, WorkerReport,
    registry_reply::{Accepted, DecodeWorkers, Rejected, Reply},
    worker_report::Report,
};
use futures::{Stream, StreamExt as _};
use tokio::{
    sync::{mpsc, watch},
    time,
};
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

    let mut news = News::of(&fleet, &session, replies.clone());
    let gone = follow(&fleet, &session, &mut reports, &mut news, &stop).await;
    drop(news);
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
    news: &mut News,
    stop: &CancellationToken,
) -> Gone {
    let mut silent_at = time::Instant::now() + fleet.limits().ttl;
    loop {
        let report = tokio::select! {
            report = time::timeout_at(silent_at, reports.next()) => report,
            () = news.pass_on() => continue,
            // Given up with all others, unless another stream took it over.
            () = session.member.lost.cancelled() => return session.superseded().unwrap_or(Gone::Stopping),
            () = stop.cancelled() => return Gone::Stopping,
        };
        if let Some(gone) = session.superseded() {
            return gone;
        }
        silent_at = time::Instant::now() + fleet.limits().ttl;
        match report {
            Ok(Some(Ok(WorkerReport { report: Some(Report::Load(load)) }))) => {
                session.member.report(load, time::Instant::now().into_std());
            }
            Ok(Some(Ok(WorkerReport { report: Some(Report::Pairs(pairs)) }))) => {
                fleet.note_pairs(&session.member, pairs);
            }
            // Anything else says at least that it lives.
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_)) | None) => return Gone::Ended,
            Err(_) => return Gone::Silent,
        }
    }
}

/// What a prefill worker is told of decode workers: now, and whenever it changes.
struct News {
    decode_workers: Option<watch::Receiver<DecodeWorkers>>,
    is_due: bool,
    replies: mpsc::Sender<Result<RegistryReply, Status>>,
}

impl News {
    fn of(fleet: &Fleet, session: &Session, replies: mpsc::Sender<Result<RegistryReply, Status>>) -> Self {
        let is_due = session.member.role() == Role::Prefill;
        Self { decode_workers: is_due.then(|| fleet.decode_workers()), is_due, replies }
    }

    /// Returns when something was passed on; for others than prefill workers, never.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn pass_on(&mut self) {
        let Some(decode_workers) = &mut self.decode_workers else { return std::future::pending().await };
        if !self.is_due && decode_workers.changed().await.is_err() {
            return std::future::pending().await;
        }
        self.is_due = true;
        // A worker that has hung up is seen by its reports.
        let Ok(room) = self.replies.reserve().await else { return std::future::pending().await };
        let reply = Reply::DecodeWorkers(decode_workers.borrow_and_update().clone());
        room.send(Ok(RegistryReply { reply: Some(reply) }));
        self.is_due = false;
    }
}

async fn reply(replies: &mpsc::Sender<Result<RegistryReply, Status>>, reply: Reply) {
    // A worker that has hung up needs no answer; its stream says so next.
    let _ = replies.send(Ok(RegistryReply { reply: Some(reply) })).await;
}
