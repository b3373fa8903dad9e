//! Cancelling, deadlines, full queues, shutting down and crashing: every request ends, and nothing is left behind.

use std::time::{Duration, Instant};

use baton_engine::{
    EngineConfig, EngineState, FailureKind, FinishReason, SequenceFailure, SequenceRequest, Shutdown,
    SubmitError,
};

use crate::support::*;

#[tokio::test]
async fn dropping_the_handle_frees_a_running_sequence() {
    let (worker, gate) = Worker::start_gated(16, EngineConfig::default());
    let mut handle = worker.engine.submit(request(prompt(3, 9), endless(50))).unwrap();
    gate.allow(2);
    next_token(&mut handle).await;
    next_token(&mut handle).await;
    drop(handle);
    gate.open();
    worker.drain().await;
    assert!(gate.steps().len() <= 4, "it stops within a step or two, not after {}", gate.steps().len());
}

#[tokio::test]
async fn dropping_the_handle_stops_a_prompt_halfway() {
    let config = EngineConfig { max_step_tokens: 4, ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(16, config);
    let handle = worker.engine.submit(request(prompt(3, 40), endless(5))).unwrap();
    gate.allow(2);
    gate.wait_for_step(3);
    drop(handle);
    gate.open();
    worker.drain().await;
    assert_eq!(gate.steps().len(), 3, "the step under way was the last");
}

#[tokio::test]
async fn dropping_the_handle_leaves_the_queue() {
    let config = EngineConfig { max_running: 1, ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(16, config);
    let running = worker.engine.submit(request(prompt(3, 4), endless(3))).unwrap();
    gate.wait_for_step(1);
    let queued = worker.engine.submit(request(prompt(9, 4), endless(3))).unwrap();
    assert_eq!(worker.engine.load().waiting, 1);
    drop(queued);
    gate.open();
    assert_eq!(finish(running).await.end, Ok(FinishReason::Length));
    worker.drain().await;
    assert!(gate.steps().iter().flatten().all(|(first, ..)| *first != 9), "it was never computed");
}

#[tokio::test]
async fn a_deadline_ends_who_waits_and_who_runs() {
    let late = |deadline: Instant| SequenceRequest {
        deadline: Some(deadline),
        ..request(prompt(3, 4), endless(50))
    };
    let worker = Worker::start(16, EngineConfig::default());
    let outcome = finish(worker.engine.submit(late(Instant::now())).unwrap()).await;
    assert_eq!(outcome.end, Err(SequenceFailure::DeadlinePassed { generated_tokens: 0 }));
    worker.drain().await;

    let deadline = Instant::now() + Duration::from_millis(50);
    let worker = Worker::start_hooked(16, EngineConfig::default(), move |_| {
        while Instant::now() < deadline {
            std::hint::spin_loop();
        }
        Answer::Right
    });
    let outcome = finish(worker.engine.submit(late(deadline)).unwrap()).await;
    assert!(matches!(outcome.end, Err(SequenceFailure::DeadlinePassed { .. })), "{outcome:?}");
    worker.drain().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let config = EngineConfig { max_running: 1, max_waiting: 2, ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(16, config);
    let mut handles = vec![worker.engine.submit(request(prompt(3, 4), endless(3))).unwrap()];
    gate.wait_for_step(1);
    handles.push(worker.engine.submit(request(prompt(4, 4), endless(3))).unwrap());
    handles.push(worker.engine.submit(request(prompt(5, 6), endless(3))).unwrap());
    assert_eq!(worker.engine.load().waiting_prompt_tokens, 10);
    let refused = worker.engine.submit(request(prompt(6, 4), endless(3))).unwrap_err();
    assert_eq!(refused, SubmitError::QueueFull { waiting: 2 });
    assert_eq!(refused.kind(), FailureKind::Overloaded);
    gate.open();
    for handle in handles {
        assert_eq!(finish(handle).await.end, Ok(FinishReason::Length));
    }
    worker.drain().await;
}

#[tokio::test]
async fn draining_finishes_what_there_is_and_takes_nothing_new() {
    let config = EngineConfig { max_running: 1, ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(16, config);
    let running = worker.engine.submit(request(prompt(3, 4), endless(5))).unwrap();
    let waiting = worker.engine.submit(request(prompt(4, 4), endless(5))).unwrap();
    let mut shutdown = Box::pin(worker.engine.shutdown(Shutdown::Drain));
    assert!(polled_once(&mut shutdown).is_none(), "it waits for what runs");
    assert_eq!(worker.engine.state(), EngineState::Draining);
    assert_eq!(worker.engine.submit(request(prompt(5, 4), endless(5))).unwrap_err(), SubmitError::Draining);
    gate.open();
    within(shutdown).await;
    assert_eq!(finish(running).await.end, Ok(FinishReason::Length));
    assert_eq!(finish(waiting).await.end, Ok(FinishReason::Length));
    worker.assert_empty();
    assert_eq!(
        worker.engine.submit(request(prompt(5, 4), endless(5))).unwrap_err().kind(),
        FailureKind::Unavailable
    );
}

#[tokio::test]
async fn aborting_fails_everybody() {
    let config = EngineConfig { max_running: 1, ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(16, config);
    let running = worker.engine.submit(request(prompt(3, 4), endless(50))).unwrap();
    gate.wait_for_step(1);
    let waiting = worker.engine.submit(request(prompt(4, 4), endless(50))).unwrap();
    let mut shutdown = Box::pin(worker.engine.shutdown(Shutdown::Abort));
    assert!(polled_once(&mut shutdown).is_none());
    gate.open();
    within(shutdown).await;
    for handle in [running, waiting] {
        assert_eq!(finish(handle).await.end.unwrap_err().kind(), FailureKind::Unavailable);
    }
    worker.assert_empty();
}

#[tokio::test]
async fn dropping_the_last_engine_handle_aborts() {
    let worker = Worker::start(CONTEXT, EngineConfig::default());
    let other = worker.engine.clone();
    let handle = worker.engine.submit(request(prompt(3, 4), endless(50))).unwrap();
    drop(worker);
    assert_eq!(finish(handle).await.end, Ok(FinishReason::Length), "another handle keeps it alive");
    let (worker, gate) = Worker::start_gated(16, EngineConfig::default());
    let handle = worker.engine.submit(request(prompt(3, 4), endless(50))).unwrap();
    drop((worker, other));
    gate.open();
    assert!(finish(handle).await.end.is_err());
}

#[tokio::test]
async fn a_panic_in_the_model_fails_everybody_and_hangs_nobody() {
    let config = EngineConfig { max_running: 2, growth_tokens: 1, ..EngineConfig::default() };
    let (gate, mut steps_left) = (Gate::default(), 3);
    let held = gate.clone();
    let worker = Worker::start_hooked(8, config, move |batch| {
        held.pass(batch);
        assert!(steps_left > 0, "the model broke");
        steps_left -= 1;
        Answer::Right
    });
    let blocker = within(worker.engine.reserve(&reserved(20, &endless(1), None))).await.unwrap();
    let running = worker.engine.submit(request(prompt(3, 4), endless(20))).unwrap();
    let (waiting, reserve) = (
        worker.engine.submit(request(prompt(4, 12), endless(20))).unwrap(),
        worker.engine.reserve(&reserved(20, &endless(1), None)),
    );
    gate.open();
    let (running, waiting, reserve) =
        within(async { tokio::join!(finish(running), finish(waiting), reserve) }).await;

    for outcome in [running, waiting] {
        let failure = outcome.end.unwrap_err();
        assert_eq!(failure.to_string(), "the engine has stopped: its thread panicked: the model broke");
    }
    assert_eq!(reserve.unwrap_err().kind(), FailureKind::Unavailable);
    assert!(matches!(within(worker.engine.stopped()).await, EngineState::Stopped { failed: true, .. }));
    drop(blocker);
    worker.assert_empty();
}
