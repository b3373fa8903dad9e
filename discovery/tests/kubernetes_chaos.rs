//! Whatever happens in whatever order, the set becomes what the cluster is.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::{collections::BTreeMap, time::Duration};

use baton_discovery::{
    Snapshot, State,
    kubernetes::{Kubernetes, Members, Options, WatchLimits},
};
use common::api::ApiServer;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Debug)]
enum Step {
    Put { pod: u8, is_ready: bool, is_leaving: bool, is_member: bool },
    Delete(u8),
    Ports(u8),
    Pool(bool),
    Cut,
    Forget(bool),
    Away(bool),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_u8, any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.8))
            .prop_map(|(pod, is_ready, is_leaving, is_member)| Step::Put { pod, is_ready, is_leaving, is_member }),
        3 => (0..6_u8).prop_map(Step::Delete),
        1 => (1..3_u8).prop_map(Step::Ports),
        1 => any::<bool>().prop_map(Step::Pool),
        2 => Just(Step::Cut),
        1 => any::<bool>().prop_map(Step::Forget),
        2 => any::<bool>().prop_map(Step::Away),
        2 => Just(Step::Wait),
    ]
}

fn pool(ports: u8) -> Value {
    let ports: Vec<_> = (0..ports).map(|at| json!({"number": 8000 + u16::from(at)})).collect();
    json!({"metadata": {}, "spec": {"selector": {"matchLabels": {"app": "m"}}, "targetPorts": ports}})
}

fn pod(number: u8, is_ready: bool, is_leaving: bool, is_member: bool) -> Value {
    let mut pod = json!({"metadata": {"uid": "u", "labels": {"app": if is_member { "m" } else { "x" }}}, "spec": {},
        "status": {"podIP": format!("10.0.0.{}", number + 1), "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}]}});
    if is_leaving {
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-01T00:01:00Z");
    }
    pod
}

/// What should come out, read from what the server has by other means than the code under test.
fn truth(api: &ApiServer) -> BTreeMap<String, State> {
    let Some(pool) = api.get("inferencepools", "pool") else { return BTreeMap::new() };
    let ports = pool["spec"]["targetPorts"].as_array().unwrap().len();
    let members = api.all("pods").into_iter().filter(|(_, pod)| pod["metadata"]["labels"]["app"] == "m");
    let mut endpoints = BTreeMap::new();
    for (name, pod) in members {
        let state = match (
            pod["metadata"]["deletionTimestamp"].is_string(),
            pod["status"]["conditions"][0]["status"] == "True",
        ) {
            (true, _) => State::Draining,
            (false, true) => State::Ready,
            (false, false) => State::NotReady,
        };
        for rank in 0..ports {
            endpoints.insert(if ports == 1 { name.clone() } else { format!("{name}-rank-{rank}") }, state);
        }
    }
    endpoints
}

fn told(set: &Snapshot) -> BTreeMap<String, State> {
    set.endpoints().iter().map(|endpoint| (endpoint.id.to_string(), endpoint.state)).collect()
}

async fn play(steps: &[Step]) -> Result<(), TestCaseError> {
    let api = ApiServer::start().await;
    api.page_size(2);
    let mut ports = 1;
    api.put("inferencepools", "pool", pool(ports));
    let limits = WatchLimits {
        first_retry: Duration::from_millis(2),
        most_retry: Duration::from_millis(10),
        ..WatchLimits::default()
    };
    let options = Options { limits, ..Options::new("ns", Members::Pool("pool".into())) };
    let (kubernetes, mut source) = Kubernetes::new(api.client(), options, &baton_process::Metrics::new());
    let until = CancellationToken::new();
    let playing = async {
        for step in steps {
            match step {
                Step::Put { pod: number, is_ready, is_leaving, is_member } => {
                    api.put("pods", &format!("p{number}"), pod(*number, *is_ready, *is_leaving, *is_member));
                }
                Step::Delete(number) => api.delete("pods", &format!("p{number}")),
                Step::Ports(count) => {
                    ports = *count;
                    api.put("inferencepools", "pool", pool(ports));
                }
                Step::Pool(true) => {
                    api.put("inferencepools", "pool", pool(ports));
                }
                Step::Pool(false) => api.delete("inferencepools", "pool"),
                Step::Cut => api.cut(),
                Step::Forget(in_stream) => {
                    api.forget(*in_stream);
                    api.cut();
                }
                Step::Away(is_away) => api.away(*is_away),
                Step::Wait => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            tokio::task::yield_now().await;
        }
        api.away(false);
        let truth = truth(&api);
        let converge = async {
            let mut set = source.snapshot();
            while !(set.is_known() && told(&set) == truth) {
                set = source.changed().await.expect("it runs");
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(20), converge).await;
        until.cancel();
        outcome.map_err(|_| {
            TestCaseError::fail(format!(
                "the cluster is {truth:?}, the set stays {:?}",
                told(&source.snapshot())
            ))
        })
    };
    let ((), outcome) = tokio::join!(kubernetes.run(until.clone()), playing);
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_set_becomes_what_the_cluster_is(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(&steps))?;
    }
}
