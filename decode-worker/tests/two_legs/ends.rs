//! Requests that do not go as planned: clients that leave, workers that die. Every block comes back.

use crate::{
    bed::{Fleet, alone, greedy, prompt},
    workers::eventually,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_the_prompt_is_computed_frees_everything() {
    let fleet = Fleet::start(1, 64).await;
    fleet.prefills[0].gate.close(1);
    let reply = fleet.ask(&prompt(3, 60), greedy(9)).await;
    eventually("the first part is computed", || fleet.prefills[0].worker.node.stats().writes_sent > 0).await;
    assert!(fleet.decode.blocks().owned > 0 && fleet.prefills[0].blocks().owned > 0);
    drop(reply);
    fleet.decode.empties().await;
    fleet.prefills[0].gate.open();
    fleet.empties().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_is_decoded_frees_everything() {
    let fleet = Fleet::start(1, 64).await;
    fleet.decode.gate.close(3);
    let mut reply = fleet.ask(&prompt(3, 30), greedy(40)).await;
    for _ in 0..2 {
        reply.next().await;
    }
    drop(reply);
    eventually("the session is over", || fleet.decode.worker.calls.is_empty()).await;
    fleet.decode.gate.open();
    fleet.empties().await;
    assert!(fleet.decode.worker.engine.load().totals.generation_tokens < 10, "it did not go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_waits_for_blocks_frees_its_place() {
    let fleet = Fleet::start(0, 32).await;
    fleet.decode.gate.close(0);
    let first = fleet.ask_aggregated(&prompt(3, 90), greedy(5)).await;
    eventually("the pool is taken", || fleet.decode.blocks().owned > 20).await;
    let second = fleet.ask_aggregated(&prompt(4, 90), greedy(5)).await;
    eventually("the second one waits", || fleet.decode.worker.engine.load().waiting > 0).await;
    drop(second);
    fleet.decode.gate.open();
    first.answer().await;
    fleet.empties().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefill_worker_that_dies_before_or_during_its_push_is_repaired_by_the_next() {
    for steps_before in [0, 2] {
        let fleet = Fleet::start(2, 64).await;
        let expected = alone(&prompt(3, 60), greedy(9)).await;
        fleet.prefills[0].gate.close(steps_before);
        let reply = fleet.ask(&prompt(3, 60), greedy(9)).await;
        let computing = || fleet.prefills[0].blocks().owned > 0;
        eventually("it computes", computing).await;
        fleet.prefills[0].kill().await;
        let (tokens, finished) = reply.answer().await;
        assert_eq!(tokens, expected);
        assert_eq!(finished.account.prefill_worker, "p2", "{finished:?}");
        assert!(finished.account.fallback.starts_with("p1: "), "{finished:?}");
        fleet.empties().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_prefill_worker_is_left_the_decode_worker_prefills() {
    let fleet = Fleet::start(1, 64).await;
    let expected = alone(&prompt(3, 60), greedy(9)).await;
    fleet.prefills[0].kill().await;
    let (tokens, finished) = fleet.ask(&prompt(3, 60), greedy(9)).await.answer().await;
    assert_eq!((tokens, finished.account.prefill_worker.as_str()), (expected, "d"));
    fleet.empties().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefill_worker_that_gives_up_midway_lets_go_of_the_decode_workers_blocks_at_once() {
    let fleet = Fleet::start(2, 64).await;
    let expected = alone(&prompt(3, 60), greedy(9)).await;
    fleet.prefills[0].gate.close(1);
    let reply = fleet.ask(&prompt(3, 60), greedy(9)).await;
    eventually("it has pushed a part", || fleet.prefills[0].worker.node.stats().writes_sent > 0).await;
    // Its calls end, while its engine is in the middle of a step.
    fleet.prefills[0].worker.stop.cancel();
    assert_eq!(reply.answer().await.0, expected);
    fleet.decode.empties().await;
    fleet.prefills[0].gate.open();
    fleet.empties().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_decode_workers_end_is_told_and_the_prefill_worker_is_freed() {
    let fleet = Fleet::start(1, 64).await;
    fleet.prefills[0].gate.close(1);
    let reply = fleet.ask(&prompt(3, 60), greedy(9)).await;
    eventually("it computes", || fleet.prefills[0].blocks().owned > 0).await;
    fleet.decode.kill().await;
    let (_, end) = reply.rest().await;
    assert_eq!(end.unwrap_err().kind(), baton_proto::v1::FailureKind::Unavailable);
    fleet.prefills[0].gate.open();
    fleet.prefills[0].empties().await;
}
