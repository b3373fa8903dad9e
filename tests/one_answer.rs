//! One answer: the tokens of a request depend on the request and the model, not on the route, the fabric or the neighbours.

use crate::harness::{Answer, Ask, Deployment, ModelFolder, Role, Shape, Up, all_at_once, prompt_of};

/// Prompt lengths of the 32 requests: around block and chunk borders, and up to 1,500.
const LENGTHS: [usize; 32] = [
    1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 100, 127, 128, 129, 200, 255, 256, 257, 300, 400,
    511, 512, 513, 700, 1000, 1024, 1500,
];

/// Greedy for every length; for some also sampled with a seed, and with every penalty.
fn requests() -> Vec<Ask> {
    let greedy = |(seed, &length): (u64, &usize)| Ask::new(&prompt_of(length, seed), 24);
    let mut asks: Vec<Ask> = (0..).zip(&LENGTHS).map(greedy).collect();
    for length in [1, 64, 300, 1000] {
        let sampled = Ask::new(&prompt_of(length, 99), 24).with("temperature", 0.8).with("seed", 5 + length);
        asks.push(sampled.clone().with("top_p", 0.9).with("top_k", 40));
        asks.push(
            sampled
                .with("frequency_penalty", 0.5)
                .with("presence_penalty", 0.5)
                .with("repetition_penalty", 1.1),
        );
    }
    asks
}

#[test]
fn every_route_gives_the_same_tokens() {
    let model = ModelFolder::bundled();
    let expected = answers(&Up::new(&model, 0, 1), &requests());
    for (index, answer) in expected.iter().enumerate() {
        assert_eq!(answer.tokens.len(), 24, "{answer:?}");
        assert!(
            !expected[..index].contains(answer),
            "different prompts give different answers, or nothing is compared"
        );
    }
    for (route, up) in [
        ("over shared memory", Up::new(&model, 1, 1)),
        ("over libfabric tcp", Up::new(&model, 1, 1).over_libfabric("tcp")),
        ("2P:1D", Up::new(&model, 2, 1)),
        ("1P:2D", Up::new(&model, 1, 2)),
    ] {
        check_same(route, &answers(&up, &requests()), &expected);
    }
}

#[test]
fn libfabrics_shm_provider_and_more_workers_give_the_same_tokens() {
    let model = ModelFolder::made_up(Shape::TINY);
    let expected = answers(&Up::new(&model, 0, 1), &requests());
    check_same(
        "2P:2D over libfabric shm",
        &answers(&Up::new(&model, 2, 2).over_libfabric("shm"), &requests()),
        &expected,
    );
}

#[test]
fn nixl_gives_the_same_tokens() {
    let model = ModelFolder::made_up(Shape::TINY);
    let expected = answers(&Up::new(&model, 0, 1), &requests());
    check_same("1P:1D over NIXL", &answers(&Up::new(&model, 1, 1).over_nixl(), &requests()), &expected);
}

fn check_same(route: &str, answers: &[Answer], expected: &[Answer]) {
    for (index, (answer, expected)) in answers.iter().zip(expected).enumerate() {
        assert_eq!(answer, expected, "{route}: request {index} of {:?} prompt tokens", expected.usage.0);
    }
}

/// All requests at once, so that they share batches; then checks who did the work.
fn answers(up: &Up, asks: &[Ask]) -> Vec<Answer> {
    let deployment = Deployment::up(up);
    let answers = all_at_once(asks, deployment.client());
    if !deployment.workers(Role::Prefill).is_empty() {
        let of_all = |role, count: fn(&crate::harness::Worker) -> f64| -> f64 {
            deployment.workers(role).into_iter().map(count).sum()
        };
        let requests = asks.len() as f64;
        assert_eq!(
            of_all(Role::Decode, |worker| worker.transfers_completed()),
            requests,
            "each prompt was handed over"
        );
        assert_eq!(of_all(Role::Decode, |worker| worker.transfers_failed()), 0.0);
        assert_eq!(deployment.fallbacks(), 0.0);
        let moved = of_all(Role::Decode, |worker| worker.bytes_received());
        assert!(moved > 0.0);
        assert_eq!(of_all(Role::Prefill, |worker| worker.bytes_sent()), moved);
        for worker in deployment.workers(Role::Prefill) {
            assert!(worker.bytes_sent() > 0.0, "{} had nothing to do", worker.id);
        }
    }
    deployment.stop();
    answers
}
