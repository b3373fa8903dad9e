//! Blocks before there is a sequence for them.

use std::time::{Duration, Instant};

use baton_engine::{BlockId, EngineConfig, FailureKind, FinishReason, GeneratedToken, SubmitError};

use crate::support::*;

fn tight() -> EngineConfig {
    EngineConfig { growth_tokens: 4, ..EngineConfig::default() }
}

#[tokio::test]
async fn a_reservation_covers_the_prompt_and_the_expected_growth() {
    let worker = Worker::start(16, tight());
    for (prompt_tokens, max_tokens, blocks) in
        [(1, 1, 1), (4, 1, 2), (8, 100, 3), (9, 2, 3), (9, 100, 4), (61, 100, 16)]
    {
        let reservation = within(worker.engine.reserve(&reserved(prompt_tokens, &endless(max_tokens), None)))
            .await
            .unwrap();
        assert_eq!(reservation.block_ids().len(), blocks, "for {prompt_tokens} and {max_tokens}");
        assert_eq!(reservation.prompt_block_ids().len(), prompt_tokens.div_ceil(BLOCK_TOKENS));
        assert_eq!(worker.engine.load().blocks.owned, blocks);
    }
    worker.drain().await;
}

#[tokio::test]
async fn waiting_for_room_is_in_order_of_arrival_and_ends_when_blocks_come_back() {
    let worker = Worker::start(8, tight());
    let engine = &worker.engine;
    let first = within(engine.reserve(&reserved(20, &endless(1), None))).await.unwrap();
    let mut whole = Box::pin(engine.reserve(&reserved(31, &endless(1), None)));
    let mut small = Box::pin(engine.reserve(&reserved(1, &endless(1), None)));
    assert!(polled_once(&mut whole).is_none(), "no room");
    assert!(polled_once(&mut small).is_none(), "not its turn");
    let sequence = engine.submit(request(prompt(3, 4), endless(1))).unwrap();
    assert_eq!((engine.load().waiting, engine.load().reservations), (3, 1));
    // Any thread may return blocks.
    std::thread::spawn(move || drop(first)).join().unwrap();
    let whole = within(whole).await.unwrap();
    assert_eq!(whole.block_ids().len(), 8);
    drop(whole);
    drop(within(small).await.unwrap());
    assert_eq!(finish(sequence).await.end, Ok(FinishReason::Length));
    worker.drain().await;
}

#[tokio::test]
async fn giving_up_the_wait_leaves_the_queue_to_others() {
    let worker = Worker::start(8, tight());
    let engine = &worker.engine;
    let first = within(engine.reserve(&reserved(20, &endless(1), None))).await.unwrap();
    {
        let mut whole = Box::pin(engine.reserve(&reserved(31, &endless(1), None)));
        assert!(polled_once(&mut whole).is_none(), "no room");
    }
    let small = within(engine.reserve(&reserved(1, &endless(1), None))).await.unwrap();
    drop((first, small));
    worker.drain().await;
}

#[tokio::test]
async fn a_deadline_ends_the_wait() {
    let worker = Worker::start(8, tight());
    let all = within(worker.engine.reserve(&reserved(31, &endless(1), None))).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(20);
    let error = within(worker.engine.reserve(&reserved(1, &endless(1), Some(deadline)))).await.unwrap_err();
    assert_eq!(error, SubmitError::DeadlinePassed);
    assert_eq!(error.kind(), FailureKind::Deadline);
    assert!(Instant::now() >= deadline);
    drop(all);
    worker.drain().await;
}

#[tokio::test]
async fn waiting_reservations_are_bounded() {
    let worker = Worker::start(8, EngineConfig { max_waiting: 1, ..tight() });
    let all = within(worker.engine.reserve(&reserved(31, &endless(1), None))).await.unwrap();
    let mut waits = Box::pin(worker.engine.reserve(&reserved(1, &endless(1), None)));
    assert!(polled_once(&mut waits).is_none(), "no room");
    let refused = within(worker.engine.reserve(&reserved(1, &endless(1), None))).await.unwrap_err();
    assert_eq!(refused, SubmitError::QueueFull { waiting: 1 });
    drop(all);
    drop(within(waits).await.unwrap());
    worker.drain().await;
}

#[tokio::test]
async fn falling_back_prefills_into_the_reserved_blocks() {
    let worker = Worker::start(8, tight());
    let reservation = within(worker.engine.reserve(&reserved(9, &endless(12), None))).await.unwrap();
    let handle = worker.engine.submit_reserved(reservation, request(prompt(3, 9), endless(12))).unwrap();
    assert_eq!(finish(handle).await, alone(request(prompt(3, 9), endless(12))).await);
    worker.drain().await;
}

#[tokio::test]
async fn a_reservation_is_for_one_prompt_length_of_one_engine() {
    let [worker, other] = [Worker::start(8, tight()), Worker::start(8, tight())];
    let reservation = within(worker.engine.reserve(&reserved(9, &endless(2), None))).await.unwrap();
    let error = worker.engine.submit_reserved(reservation, request(prompt(3, 8), endless(2))).unwrap_err();
    assert_eq!(error, SubmitError::ReservationMismatch { reserved_tokens: 9, prompt_tokens: 8 });
    let reservation = within(worker.engine.reserve(&reserved(9, &endless(2), None))).await.unwrap();
    let error = other.engine.submit_reserved(reservation, request(prompt(3, 9), endless(2))).unwrap_err();
    assert_eq!(error, SubmitError::ForeignReservation);
    worker.drain().await;
    other.drain().await;
}

#[tokio::test]
async fn exchanged_blocks_stay_out_of_the_pool_until_the_old_ones_are_let_go() {
    let worker = Worker::start(8, tight());
    let engine = &worker.engine;
    let reservation = within(engine.reserve(&reserved(9, &endless(2), None))).await.unwrap();
    let (old, fresh) = reservation.replace_blocks(None);
    let fresh = within(fresh).await.unwrap();
    assert_eq!((old.ids().len(), fresh.block_ids().len()), (3, 3));
    assert!(old.ids().iter().all(|id| !fresh.block_ids().contains(id)));
    let load = engine.load();
    assert_eq!((load.blocks.free, load.blocks.owned, load.blocks.held), (2, 3, 3));
    assert!(old.ids().iter().all(|id| engine.block_generation(*id) == Some(0)));
    let ids = old.ids().to_vec();
    drop(old);
    assert!(ids.iter().all(|id| engine.block_generation(*id) == Some(1)), "their generation changed");
    assert_eq!(engine.block_generation(BlockId(8)), None);
    drop(fresh);
    worker.drain().await;
}

#[tokio::test]
async fn an_exchange_in_a_full_pool_waits_for_the_old_blocks_and_keeps_its_place() {
    let worker = Worker::start(8, tight());
    let engine = &worker.engine;
    let reservation = within(engine.reserve(&reserved(30, &endless(2), None))).await.unwrap();
    let queued = engine.submit(request(prompt(3, 30), endless(1))).unwrap();
    let (old, fresh) = reservation.replace_blocks(None);
    let mut fresh = Box::pin(fresh);
    assert!(polled_once(&mut fresh).is_none(), "no room");
    drop(old);
    let fresh = within(fresh).await.unwrap();
    assert_eq!(
        fresh.block_ids().len(),
        8,
        "it came before the request that was queued earlier than the exchange"
    );
    let handle = engine.submit_reserved(fresh, request(prompt(3, 30), endless(2))).unwrap();
    assert_eq!(finish(handle).await, alone(request(prompt(3, 30), endless(2))).await);
    assert_eq!(finish(queued).await.end, Ok(FinishReason::Length));
    worker.drain().await;
}

#[tokio::test]
async fn a_draining_engine_waits_for_reservations() {
    let worker = Worker::start(8, tight());
    let reservation = within(worker.engine.reserve(&reserved(9, &endless(2), None))).await.unwrap();
    let mut shutdown = Box::pin(worker.engine.shutdown(baton_engine::Shutdown::Drain));
    assert!(polled_once(&mut shutdown).is_none(), "a reservation is out");
    let handle = worker.engine.submit_reserved(reservation, request(prompt(3, 9), endless(2))).unwrap();
    within(shutdown).await;
    assert_eq!(finish(handle).await.end, Ok(FinishReason::Length));
    worker.assert_empty();
}

#[tokio::test]
async fn draining_never_overtakes_the_use_of_a_reservation() {
    for _ in 0..300 {
        let worker = Worker::start(8, tight());
        let reservation = within(worker.engine.reserve(&reserved(9, &endless(2), None))).await.unwrap();
        let engine = worker.engine.clone();
        let used = std::thread::spawn(move || {
            engine.submit_reserved(reservation, request(prompt(3, 9), endless(2)))
        });
        worker.drain().await;
        assert_eq!(finish(used.join().unwrap().unwrap()).await.end, Ok(FinishReason::Length));
    }
}

#[tokio::test]
async fn a_first_token_that_ends_the_request_ends_it() {
    let worker = Worker::start(8, tight());
    for (first, max_tokens, end) in [(EOS[0], 5, FinishReason::Stop), (9, 1, FinishReason::Length)] {
        let sampling = baton_engine::SamplingParams::greedy(max_tokens);
        let reservation = within(worker.engine.reserve(&reserved(9, &sampling, None))).await.unwrap();
        let first = GeneratedToken { id: first, logprobs: None };
        let handle = worker.engine.decode(reservation, request(prompt(3, 9), sampling), first).unwrap();
        assert_eq!(finish(handle).await, Outcome { tokens: vec![], end: Ok(end) });
    }
    worker.drain().await;
}
