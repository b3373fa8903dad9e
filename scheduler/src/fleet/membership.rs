//! One worker's membership: as long as its stream talks.

use std::sync::Arc;

use baton_proto::v1::{
    RegistryReply, Role, WorkerReport,
    registry_reply::{Accepted, AdapterOrders, DecodeWorkers, Rejected, Reply},
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
                fleet.note_load(&session.member, load, time::Instant::now().into_std());
            }
            Ok(Some(Ok(WorkerReport { report: Some(Report::Cache(report)) }))) => {
                fleet.note_cache(&session.member, report).await;
            }
            Ok(Some(Ok(WorkerReport { report: Some(Report::Pairs(pairs)) }))) => {
                fleet.note_pairs(&session.member, pairs);
            }
            Ok(Some(Ok(WorkerReport { report: Some(Report::Adapters(report)) }))) => {
                fleet.note_adapters(&session.member, report);
            }
            Ok(Some(Ok(WorkerReport { report: Some(Report::Work(report)) }))) => {
                fleet.note_work(&session.member, &report);
            }
            // Anything else says at least that it lives.
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_)) | None) => return Gone::Ended,
            Err(_) => return Gone::Silent,
        }
    }
}

/// What a worker is told, now and whenever it changes: orders about adapters, and of a prefill worker who the decode workers are.
struct News {
    decode_workers: Option<watch::Receiver<DecodeWorkers>>,
    orders: watch::Receiver<AdapterOrders>,
    workers_due: bool,
    orders_due: bool,
    replies: mpsc::Sender<Result<RegistryReply, Status>>,
}

impl News {
    fn of(fleet: &Fleet, session: &Session, replies: mpsc::Sender<Result<RegistryReply, Status>>) -> Self {
        let workers_due = session.member.role() == Role::Prefill;
        let decode_workers = workers_due.then(|| fleet.decode_workers());
        let orders = fleet.orders.subscribe();
        let orders_due = !orders.borrow().orders.is_empty();
        Self { decode_workers, orders, workers_due, orders_due, replies }
    }

    /// Returns when something was passed on.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn pass_on(&mut self) {
        if !(self.workers_due || self.orders_due) {
            tokio::select! {
                () = changed(self.decode_workers.as_mut()) => self.workers_due = true,
                () = changed(Some(&mut self.orders)) => self.orders_due = true,
            }
        }
        // A worker that has hung up is seen by its reports.
        let Ok(room) = self.replies.reserve().await else { return std::future::pending().await };
        let reply = match &mut self.decode_workers {
            Some(decode_workers) if self.workers_due => {
                self.workers_due = false;
                Reply::DecodeWorkers(decode_workers.borrow_and_update().clone())
            }
            _ => {
                self.orders_due = false;
                Reply::AdapterOrders(self.orders.borrow_and_update().clone())
            }
        };
        room.send(Ok(RegistryReply { reply: Some(reply) }));
    }
}

/// Returns when there is something new; never, when there never will be.
async fn changed<T>(news: Option<&mut watch::Receiver<T>>) {
    let is_news = match news {
        Some(news) => news.changed().await.is_ok(),
        None => false,
    };
    if !is_news {
        std::future::pending().await
    }
}

async fn reply(replies: &mpsc::Sender<Result<RegistryReply, Status>>, reply: Reply) {
    // A worker that has hung up needs no answer; its stream says so next.
    let _ = replies.send(Ok(RegistryReply { reply: Some(reply) })).await;
}
