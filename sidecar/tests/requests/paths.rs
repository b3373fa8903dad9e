//! The ways a request can take.

use baton_proto::v1::{
    Failure, FailureKind, FinishReason, PrefillCandidate, decode_event,
    prefill_event::{Event, FirstToken},
};
use tonic::Status;

use crate::{
    bed::Bed,
    fakes::{Session, token},
};

/// Asks, and goes on until `p1` is called.
macro_rules! prefilling {
    ($bed:ident, $reply:ident, $session:ident, $call:ident) => {
        let mut $reply = $bed.ask().await;
        let $session = $bed.decode.call().await.opened().await.ticketed("p1", 1).await;
        let $call = $bed.prefills[0].call().await;
    };
}

async fn fail_transfer(session: &Session, attempt: u32) {
    let failed = decode_event::TransferFailed { reason: "peer lost".to_owned(), attempt };
    session.send(decode_event::Event::TransferFailed(failed)).await;
}

#[tokio::test]
async fn the_first_token_is_relayed_before_the_transfer_is_done() {
    let mut bed = Bed::with(1, &[]).await;
    prefilling!(bed, reply, session, call);
    assert_eq!(
        (call.request.ticket.as_ref(), call.request.prompt.as_slice()),
        (&b"ticket 1"[..], &[1, 2, 3][..])
    );
    call.first_token(7).await;
    assert_eq!(reply.tokens().await, [7]);
    let session = session.started(7, 1).await;
    call.pushed().await;
    drop(call);
    session.tokens(&[8, 9]).await;
    session.done().await;
    assert_eq!(reply.tokens().await, [8, 9]);
    let finished = reply.finished().await;
    assert_eq!(finished.account.prefill_worker, "p1");
    assert_eq!((finished.reason, finished.account.fallback.as_str()), (FinishReason::Stop, ""));
    session.dropped().await;
}

#[tokio::test]
async fn a_prefill_worker_that_fails_before_its_first_token_is_passed_over() {
    let mut bed = Bed::with(2, &[]).await;
    prefilling!(bed, reply, session, call);
    let failure = Failure { kind: FailureKind::Overloaded.into(), message: "queue full".to_owned() };
    call.send(Event::Failure(failure)).await;
    let session = session.ticketed("p2", 2).await;
    let second = bed.prefills[1].call().await;
    assert_eq!(second.request.ticket.as_ref(), b"ticket 2");
    second.first_token(7).await;
    assert_eq!(reply.tokens().await, [7]);
    let session = session.started(7, 2).await;
    session.done().await;
    let finished = reply.finished().await;
    assert_eq!(
        (finished.account.prefill_worker.as_str(), finished.account.fallback.as_str()),
        ("p2", "p1: queue full")
    );
}

#[tokio::test]
async fn a_prefill_worker_that_dies_after_its_first_token_is_repaired_unseen() {
    let mut bed = Bed::with(2, &[]).await;
    prefilling!(bed, reply, session, call);
    call.first_token(7).await;
    assert_eq!(reply.tokens().await, [7]);
    let mut session = session;
    session.command().await;
    call.events.send(Err(Status::unavailable("killed"))).await.unwrap();
    let session = session.ticketed("p2", 2).await;
    let second = bed.prefills[1].call().await;
    second.first_token(7).await;
    let session = session.started(7, 2).await;
    session.tokens(&[8]).await;
    session.done().await;
    assert_eq!(reply.tokens().await, [8], "the first token is not sent again");
    assert_eq!(reply.finished().await.account.prefill_worker, "p2");
}

#[tokio::test]
async fn a_silent_prefill_worker_is_given_up_and_its_call_dropped() {
    let mut bed = Bed::with(1, &["--prefill-silence", "50ms"]).await;
    prefilling!(bed, reply, session, call);
    call.dropped().await;
    let session = session.local().await;
    session.tokens(&[7, 8]).await;
    session.done().await;
    assert_eq!(reply.tokens().await, [7, 8]);
    let finished = reply.finished().await;
    assert_eq!(finished.account.prefill_worker, "d");
    assert!(finished.account.fallback.contains("no sign of life for 50 ms"), "{}", finished.account.fallback);
}

#[tokio::test]
async fn a_prefill_worker_that_cannot_be_connected_to_is_passed_over_at_once() {
    let mut bed = Bed::with(1, &[]).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = PrefillCandidate {
        worker_id: "gone".to_owned(),
        incarnation: 1,
        endpoint: closed.to_string(),
        block_tokens: 16,
    };
    let candidates = [vec![gone], bed.candidates()].concat();
    let mut reply = bed.ask_with(candidates, 0).await;
    let session = bed.decode.call().await.opened().await.ticketed("gone", 1).await.ticketed("p1", 2).await;
    bed.prefills[0].call().await.first_token(7).await;
    assert_eq!(reply.tokens().await, [7]);
    session.started(7, 2).await.done().await;
    assert_eq!(reply.finished().await.account.prefill_worker, "p1");
}

#[tokio::test]
async fn a_failed_transfer_leads_to_the_second_candidate_and_then_to_the_decode_worker() {
    let mut bed = Bed::with(3, &[]).await;
    prefilling!(bed, reply, session, call);
    fail_transfer(&session, 1).await;
    call.dropped().await;
    let session = session.ticketed("p2", 2).await;
    let second = bed.prefills[1].call().await;
    second.first_token(7).await;
    assert_eq!(reply.tokens().await, [7]);
    let mut session = session;
    session.command().await;
    fail_transfer(&session, 2).await;
    let session = session.local().await;
    session.tokens(&[7, 8]).await;
    session.done().await;
    assert_eq!(reply.tokens().await, [8]);
    assert_eq!(reply.finished().await.account.prefill_worker, "d");
    bed.prefills[2].assert_no_call();
}

#[tokio::test]
async fn the_deadline_ends_the_request_and_frees_both_legs() {
    let mut bed = Bed::with(1, &["--prefill-silence", "1h"]).await;
    let candidates = bed.candidates();
    let reply = bed.ask_with(candidates, 300).await;
    let session = bed.decode.call().await.opened().await.ticketed("p1", 1).await;
    let call = bed.prefills[0].call().await;
    let failure = reply.failed().await;
    assert_eq!(failure.kind(), FailureKind::Deadline);
    assert!(failure.message.contains("during prefill on p1"), "{}", failure.message);
    call.dropped().await;
    session.dropped().await;
}

#[tokio::test]
async fn the_decode_workers_death_is_told_at_once() {
    let mut bed = Bed::with(1, &[]).await;
    prefilling!(bed, reply, session, call);
    call.first_token(7).await;
    assert_eq!(reply.tokens().await, [7]);
    drop(session);
    let failure = reply.failed().await;
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    assert!(failure.message.contains("decode worker d was lost"), "{}", failure.message);
    call.dropped().await;
}

#[tokio::test]
async fn a_client_that_leaves_drops_both_legs() {
    let mut bed = Bed::with(1, &["--prefill-silence", "1h"]).await;
    prefilling!(bed, reply, session, call);
    call.first_token(7).await;
    assert_eq!(reply.tokens().await, [7]);
    drop(reply);
    call.dropped().await;
    session.dropped().await;
}

#[tokio::test]
async fn a_first_token_that_ends_the_request_frees_the_decode_worker() {
    let mut bed = Bed::with(1, &[]).await;
    prefilling!(bed, reply, session, call);
    let finish = FinishReason::Length.into();
    call.send(Event::FirstToken(FirstToken { token: Some(token(7)), finish, ..Default::default() })).await;
    assert_eq!(reply.tokens().await, [7]);
    assert_eq!(reply.finished().await.reason, FinishReason::Length);
    session.dropped().await;
}

#[tokio::test]
async fn without_candidates_the_decode_worker_prefills() {
    let mut bed = Bed::with(1, &[]).await;
    let mut reply = bed.ask_with(Vec::new(), 0).await;
    let session = bed.decode.call().await.opened().await.local().await;
    session.tokens(&[7]).await;
    session.done().await;
    assert_eq!(reply.tokens().await, [7]);
    assert_eq!(reply.finished().await.account.fallback, "");
    bed.prefills[0].assert_no_call();
}

#[tokio::test]
async fn what_the_decode_worker_refuses_is_passed_on() {
    let mut bed = Bed::with(1, &[]).await;
    let reply = bed.ask().await;
    let session = bed.decode.call().await;
    let failure =
        Failure { kind: FailureKind::Invalid.into(), message: "the prompt has 9 tokens".to_owned() };
    session.send(decode_event::Event::Failure(failure.clone())).await;
    assert_eq!(reply.failed().await, failure);
}

#[tokio::test]
async fn more_requests_than_the_limit_are_refused_as_overload() {
    let mut bed = Bed::with(0, &["--max-requests", "1"]).await;
    let first = bed.ask().await;
    let session = bed.decode.call().await.opened().await;
    assert_eq!(bed.ask().await.failed().await.kind(), FailureKind::Overloaded);
    drop(first);
    session.dropped().await;
}
