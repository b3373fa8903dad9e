//! Endpoints from Kubernetes, against an API server that is made up here. No real one was at hand.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::time::{Duration, Instant};

use baton_discovery::{
    Endpoint, Engine, Role, Snapshot, Source, State,
    kubernetes::{Kubernetes, Members, Options, Shape, WatchLimits},
};
use baton_process::Metrics;
use common::api::ApiServer;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    api: ApiServer,
    source: Source,
    metrics: Metrics,
    until: CancellationToken,
    tasks: JoinSet<()>,
}

fn limits() -> WatchLimits {
    WatchLimits {
        watch: Duration::from_secs(30),
        grace: Duration::from_secs(5),
        answer: Duration::from_secs(5),
        first_retry: Duration::from_millis(5),
        most_retry: Duration::from_millis(40),
    }
}

fn pool_options() -> Options {
    Options { limits: limits(), ..Options::new("ns", Members::Pool("pool".into())) }
}

impl Bed {
    fn start(api: ApiServer, options: Options) -> Self {
        let metrics = Metrics::new();
        let (kubernetes, source) = Kubernetes::new(api.client(), options, &metrics);
        let until = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(kubernetes.run(until.clone()));
        Self { api, source, metrics, until, tasks }
    }

    async fn wait(&mut self, what: &str, is_so: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let mut source = self.source.clone();
        let wait = async {
            let mut set = source.snapshot();
            while !(set.is_known() && is_so(&set)) {
                set = source.changed().await.expect("it runs");
            }
            set
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(set) => set,
            Err(_) => panic!("{what}: not in {PATIENCE:?}; there is {:#?}", self.source.snapshot()),
        }
    }

    fn counted(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    async fn stop(mut self) {
        self.until.cancel();
        tokio::time::timeout(PATIENCE, self.tasks.join_next())
            .await
            .expect("it ends when cancelled")
            .unwrap()
            .unwrap();
    }
}

fn pool(labels: Value, ports: &[u16]) -> Value {
    let ports: Vec<_> = ports.iter().map(|port| json!({"number": port})).collect();
    json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {},
        "spec": {"selector": {"matchLabels": labels}, "targetPorts": ports, "endpointPickerRef": {"name": "epp", "port": {"number": 9002}}}})
}

/// A pod that is ready, with more than what is read of it.
fn pod(number: u8, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"uid": format!("uid-{number}"), "labels": labels, "creationTimestamp": "2026-11-01T00:00:00Z", "managedFields": [{"manager": "kubelet", "operation": "Update"}]},
        "spec": {"nodeName": format!("node-{}", number % 3), "containers": [{"name": "server", "image": "x"}]},
        "status": {"phase": "Running", "podIP": format!("10.0.0.{number}"),
            "conditions": [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-01T00:00:00Z"}],
            "containerStatuses": [{"name": "server", "restartCount": 0, "ready": true}]}})
}

fn app() -> Value {
    json!({"app": "m"})
}

fn unready(mut pod: Value) -> Value {
    pod["status"]["conditions"][1]["status"] = json!("False");
    pod
}

fn leaving(mut pod: Value) -> Value {
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-01T00:01:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    pod
}

fn ids(set: &Snapshot) -> Vec<&str> {
    set.endpoints().iter().map(|endpoint| &*endpoint.id).collect()
}

async fn pool_bed(pods: u8) -> Bed {
    let api = ApiServer::start().await;
    api.put("inferencepools", "pool", pool(app(), &[8000]));
    for number in 1..=pods {
        api.put("pods", &format!("p{number}"), pod(number, app()));
    }
    Bed::start(api, pool_options())
}

#[tokio::test]
async fn pods_of_the_pool_are_endpoints_as_their_labels_say() {
    let api = ApiServer::start().await;
    api.put("inferencepools", "pool", pool(app(), &[8000]));
    api.put("inferencepools", "another", pool(json!({"app": "x"}), &[1]));
    let labels = json!({"app": "m", "llm-d.ai/role": "prefill", "llm-d.ai/engine-type": "sglang", "topology.kubernetes.io/zone": "z1", "rack": "r1"});
    let mut restarted = pod(1, labels);
    api.put("pods", "p1", restarted.clone());
    api.put("pods", "d1", pod(2, json!({"app": "m", "llm-d.ai/role": "decode"})));
    api.put("pods", "b1", pod(3, json!({"app": "m", "llm-d.ai/role": "prefill-decode"})));
    api.put("pods", "b2", pod(4, app()));
    api.put("pods", "encoder", pod(5, json!({"app": "m", "llm-d.ai/role": "encode"})));
    api.put("pods", "stranger", pod(6, json!({"app": "other"})));
    let shape = Shape {
        kv_events_port: Some(5557),
        kv_replay_port: Some(5558),
        rack_label: Some("rack".into()),
        ..Shape::default()
    };
    let mut bed = Bed::start(api, Options { shape, ..pool_options() });
    let set = bed.wait("all four", |set| set.endpoints().len() == 4).await;
    assert_eq!(ids(&set), ["b1", "b2", "d1", "p1"]);
    let roles: Vec<_> = set.endpoints().iter().map(|endpoint| endpoint.role).collect();
    assert_eq!(roles, [Role::Both, Role::Both, Role::Decode, Role::Prefill]);
    let p1: Endpoint = set.get("p1").unwrap().clone();
    assert_eq!(
        (p1.address.to_string().as_str(), p1.engine, p1.state),
        ("10.0.0.1:8000", Engine::Sglang, State::Ready)
    );
    assert_eq!(
        (p1.place.zone.as_deref(), p1.place.rack.as_deref(), p1.place.node.as_deref()),
        (Some("z1"), Some("r1"), Some("node-1"))
    );
    assert_eq!((p1.metrics.address, &*p1.metrics.path), (p1.address, "/metrics"));
    let events = p1.kv_events.unwrap();
    assert_eq!(
        (&*events.events, events.replay.as_deref()),
        ("tcp://10.0.0.1:5557", Some("tcp://10.0.0.1:5558"))
    );

    restarted["status"]["containerStatuses"][0]["restartCount"] = json!(1);
    bed.api.put("pods", "p1", restarted);
    bed.wait("another life", |set| {
        set.get("p1").is_some_and(|endpoint| endpoint.incarnation != p1.incarnation)
    })
    .await;
    bed.stop().await;
}

#[tokio::test]
async fn a_pod_that_is_deleted_drains_at_once_though_it_is_ready_and_then_is_gone() {
    let mut bed = pool_bed(2).await;
    bed.wait("both", |set| set.endpoints().len() == 2 && set.endpoints().iter().all(Endpoint::is_eligible))
        .await;
    bed.api.put("pods", "p1", leaving(pod(1, app())));
    let set = bed.wait("draining", |set| set.get("p1").unwrap().state == State::Draining).await;
    assert!(!set.get("p1").unwrap().is_eligible() && set.get("p2").unwrap().is_eligible());
    bed.api.delete("pods", "p1");
    bed.wait("gone", |set| ids(set) == ["p2"]).await;
    bed.api.put("pods", "p2", unready(pod(2, app())));
    bed.wait("not ready", |set| set.get("p2").unwrap().state == State::NotReady).await;
    bed.stop().await;
}

#[tokio::test]
async fn pods_without_address_or_at_their_end_are_none() {
    let mut bed = pool_bed(1).await;
    let mut pending = pod(2, app());
    pending["status"] = json!({"phase": "Pending"});
    let mut failed = pod(3, app());
    failed["status"]["phase"] = json!("Failed");
    bed.api.put("pods", "p2", pending);
    bed.api.put("pods", "p3", failed);
    bed.api.put("pods", "p4", pod(4, app()));
    bed.wait("the fourth", |set| ids(set) == ["p1", "p4"]).await;
    bed.stop().await;
}

#[tokio::test]
async fn several_ports_are_ranks_and_inactive_ones_are_left_out() {
    let api = ApiServer::start().await;
    api.put("inferencepools", "pool", pool(app(), &[8000, 8001, 8002]));
    let mut partly = pod(1, app());
    partly["metadata"]["annotations"] = json!({"llm-d.ai/active-ports": "8000, 8002"});
    api.put("pods", "p1", partly);
    let shape = Shape { kv_events_port: Some(5557), metrics_port: Some(9000), ..Shape::default() };
    let mut bed = Bed::start(api, Options { shape, ..pool_options() });
    let set = bed.wait("two ranks", |set| set.endpoints().len() == 2).await;
    assert_eq!(ids(&set), ["p1-rank-0", "p1-rank-2"]);
    let last = set.get("p1-rank-2").unwrap();
    assert_eq!((last.address.port(), last.metrics.address.port()), (8002, 9002));
    assert_eq!(&*last.kv_events.as_ref().unwrap().events, "tcp://10.0.0.1:5559");
    bed.api.put("inferencepools", "pool", pool(app(), &[8001]));
    bed.wait("its only port is not active", |set| set.endpoints().is_empty()).await;
    bed.stop().await;
}

#[tokio::test]
async fn another_selector_lists_the_pods_again_and_a_deleted_pool_has_none() {
    let mut bed = pool_bed(2).await;
    bed.api.put("pods", "q", pod(9, json!({"app": "n"})));
    bed.wait("two", |set| ids(set) == ["p1", "p2"]).await;
    bed.api.put("inferencepools", "pool", pool(json!({"app": "n"}), &[8000]));
    bed.wait("those of the other", |set| ids(set) == ["q"]).await;
    bed.api.delete("inferencepools", "pool");
    bed.wait("none", |set| set.endpoints().is_empty()).await;
    bed.api.put("inferencepools", "pool", pool(app(), &[8000]));
    bed.wait("two again", |set| ids(set) == ["p1", "p2"]).await;
    bed.api.put("inferencepools", "pool", pool(json!({}), &[8000]));
    bed.wait("an empty selector selects nothing", |set| set.endpoints().is_empty()).await;
    bed.stop().await;
}

#[tokio::test]
async fn pods_of_the_selector_before_never_get_the_ports_of_the_next() {
    let mut bed = pool_bed(2).await;
    bed.api.put("pods", "q", pod(9, json!({"app": "n"})));
    bed.wait("two", |set| ids(set) == ["p1", "p2"]).await;
    bed.api.put("inferencepools", "pool", pool(json!({"app": "n"}), &[9000]));
    let mut source = bed.source.clone();
    let set = bed
        .wait("another set", |set| set.endpoints().iter().any(|endpoint| endpoint.address.port() == 9000))
        .await;
    assert_eq!(ids(&set), ["q"]);
    assert_eq!(ids(&source.changed().await.unwrap()), ["q"]);
    bed.stop().await;
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let api = ApiServer::start().await;
    api.page_size(7);
    api.put("inferencepools", "pool", pool(app(), &[8000]));
    for number in 1..=100 {
        api.put("pods", &format!("p{number}"), pod(number, app()));
    }
    let mut bed = Bed::start(api, pool_options());
    let mut sizes = Vec::new();
    let mut source = bed.source.clone();
    while sizes.last() != Some(&100) {
        sizes.push(source.changed().await.unwrap().endpoints().len());
    }
    assert_eq!(sizes, [100], "half a list is never published");
    assert!(bed.api.begun().0 >= 15, "fifteen pages and a pool");
    bed.wait("all", |set| set.endpoints().len() == 100).await;
    bed.stop().await;
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_from_where_it_was() {
    let mut bed = pool_bed(3).await;
    bed.wait("three", |set| set.endpoints().len() == 3).await;
    let (lists, watches) = bed.api.begun();
    for round in 0..5_u8 {
        bed.api.cut();
        let number = 10 + round;
        bed.api.put("pods", &format!("p{number}"), pod(number, app()));
        bed.api.delete("pods", &format!("p{}", 1 + round));
        bed.wait("the new one", |set| {
            set.get(&format!("p{number}")).is_some() && set.get(&format!("p{}", 1 + round)).is_none()
        })
        .await;
    }
    assert_eq!(bed.api.begun().0, lists, "nothing was listed again");
    assert!(bed.api.begun().1 > watches);
    bed.stop().await;
}

#[tokio::test]
async fn what_the_server_has_forgotten_is_listed_again_once() {
    for in_stream in [false, true] {
        let mut bed = pool_bed(3).await;
        bed.wait("three", |set| set.endpoints().len() == 3).await;
        let listed = bed.counted("baton_discovery_lists_total");
        // Gone while nobody watches, and nobody will ever be told.
        bed.api.away(true);
        bed.api.delete("pods", "p2");
        bed.api.put("pods", "p4", pod(4, app()));
        bed.api.forget(in_stream);
        bed.api.away(false);
        bed.wait("as it is now", |set| ids(set) == ["p1", "p3", "p4"]).await;
        let again = bed.counted("baton_discovery_lists_total") - listed;
        assert!((1..=2).contains(&again), "{again} lists: the pods, and perhaps the pool");
        bed.api.put("pods", "p5", pod(5, app()));
        bed.wait("and it is watched", |set| set.get("p5").is_some()).await;
        bed.stop().await;
    }
}

#[tokio::test]
async fn while_the_server_is_away_the_last_set_stays_and_ages() {
    let mut bed = pool_bed(2).await;
    bed.wait("two", |set| set.endpoints().len() == 2).await;
    bed.api.away(true);
    while bed.counted("baton_discovery_watch_failures_total") < 6 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ids(&bed.source.snapshot()), ["p1", "p2"]);
    let at_first = bed.source.age(Instant::now()).unwrap();
    let failures = bed.counted("baton_discovery_watch_failures_total");
    while bed.counted("baton_discovery_watch_failures_total") < failures + 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(bed.source.age(Instant::now()).unwrap() > at_first, "failures confirm nothing");
    bed.api.away(false);
    bed.api.put("pods", "p3", pod(3, app()));
    bed.wait("healed", |set| set.endpoints().len() == 3).await;
    bed.stop().await;
}

#[tokio::test]
async fn nothing_is_known_until_the_server_has_answered() {
    let api = ApiServer::start().await;
    api.away(true);
    let mut bed = Bed::start(api, pool_options());
    while bed.counted("baton_discovery_watch_failures_total") < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!bed.source.snapshot().is_known());
    bed.api.away(false);
    bed.wait("no such pool, which is known", |set| set.endpoints().is_empty()).await;
    bed.stop().await;
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_given_up() {
    let api = ApiServer::start().await;
    api.put("inferencepools", "pool", pool(app(), &[8000]));
    api.put("pods", "p1", pod(1, app()));
    api.mute(true);
    let limits = WatchLimits { watch: Duration::from_secs(1), grace: Duration::from_millis(200), ..limits() };
    let mut bed = Bed::start(api, Options { limits, ..pool_options() });
    bed.wait("listed", |set| set.endpoints().len() == 1).await;
    while bed.api.begun().1 < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Both watches are mute from here to their end.
    bed.api.put("pods", "p2", pod(2, app()));
    bed.api.mute(false);
    bed.wait("told by the next watch", |set| set.endpoints().len() == 2).await;
    bed.stop().await;
}

#[tokio::test]
async fn bookmarks_keep_a_quiet_set_young() {
    let api = ApiServer::start().await;
    api.put("inferencepools", "pool", pool(app(), &[8000]));
    api.put("pods", "p1", pod(1, app()));
    let limits = WatchLimits { watch: Duration::from_secs(1), ..limits() };
    let mut bed = Bed::start(api, Options { limits, ..pool_options() });
    bed.wait("one", |set| set.endpoints().len() == 1).await;
    let (lists, watches) = bed.api.begun();
    let since = Instant::now();
    while bed.api.begun().1 < watches + 6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let age = bed.source.age(Instant::now()).unwrap();
    assert!(age < since.elapsed(), "{age:?} is younger than the {:?} without a change", since.elapsed());
    assert_eq!(bed.api.begun().0, lists);
    assert_eq!(bed.counted("baton_discovery_watch_failures_total"), 0, "ends of watches are no failures");
    bed.stop().await;
}

#[tokio::test]
async fn behind_a_service_pod_and_slice_have_to_agree() {
    let slice = |pods: &[(&str, bool, bool)], family: &str| {
        let endpoints: Vec<_> = pods.iter().map(|(name, is_ready, is_leaving)| json!({"addresses": ["10.0.0.1"], "zone": "z9",
            "conditions": {"ready": is_ready, "serving": true, "terminating": is_leaving}, "targetRef": {"kind": "Pod", "name": name}})).collect();
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family, "metadata": {"labels": {"kubernetes.io/service-name": "svc"}},
            "endpoints": endpoints, "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}, {"name": "metrics", "port": 9090}, {"name": "http", "port": 1, "protocol": "UDP"}]})
    };
    let api = ApiServer::start().await;
    api.put("services", "svc", json!({"metadata": {}, "spec": {"selector": app(), "ports": [{"port": 80}]}}));
    for number in 1..=4 {
        api.put("pods", &format!("p{number}"), pod(number, app()));
    }
    let members = Members::Service { name: "svc".into(), port: Some("http".into()) };
    let mut bed = Bed::start(api, Options { members, ..pool_options() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    bed.wait("in no slice yet", |set| set.endpoints().is_empty()).await;
    let told = [("p1", true, false), ("p2", false, false), ("p3", true, true)];
    bed.api.put("endpointslices", "svc-a", slice(&told, "IPv4"));
    bed.api.put("endpointslices", "svc-b", slice(&told, "IPv6"));
    bed.api.put("endpointslices", "of-another", {
        let mut other = slice(&[("p4", true, false)], "IPv4");
        other["metadata"]["labels"] = json!({"kubernetes.io/service-name": "other"});
        other
    });
    let set = bed.wait("three", |set| ids(set) == ["p1", "p2", "p3"]).await;
    let states: Vec<_> = set.endpoints().iter().map(|endpoint| endpoint.state).collect();
    assert_eq!(states, [State::Ready, State::NotReady, State::Draining]);
    assert_eq!(
        (set.get("p1").unwrap().address.port(), set.get("p1").unwrap().place.zone.as_deref()),
        (8000, Some("z9"))
    );
    bed.api.put("pods", "p1", unready(pod(1, app())));
    bed.wait("the pod says no", |set| set.get("p1").unwrap().state == State::NotReady).await;
    bed.api.delete("services", "svc");
    bed.wait("no service", |set| set.endpoints().is_empty()).await;
    bed.stop().await;
}
