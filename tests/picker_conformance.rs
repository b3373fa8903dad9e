//! What the conformance suite of the Gateway API Inference Extension asks of a picker, asked again before a real Envoy: `docs/gateway-conformance.md` says
//! which of its tests are which of these. Pods are servers that know nothing of metrics, as there, and a made-up API server shows them.

use std::{collections::BTreeSet, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    ANY, Client, Cluster, Gateway, GatewayShape, Pods, Process, Reply, Sent, Speaks, eventually, start_with,
    words,
};

/// Among whom a request is to be placed.
const SELECTION: &str = "test-epp-endpoint-selection";
/// Who served it, as the gateway told the picker.
const SERVED: &str = "x-conformance-test-served-endpoint";
const SELECTED: &str = "x-conformance-test-selected-endpoint";
const PATH: &str = "/primary-gateway-test";
/// So many requests, and so many at a time.
const REQUESTS: usize = 100;
const AT_A_TIME: usize = 10;

/// A pool behind its picker.
struct Bed {
    scheduler: Process,
    picker: String,
}

impl Bed {
    /// Of the pool of this name.
    fn start(cluster: &Cluster, pool: &str) -> Self {
        let pool = format!("conformance/{pool}");
        let line = ["scheduler", "--listen", ANY, "--registry-listen", ANY, "--picker-listen", ANY];
        let rest = ["--picker-conformance", "--served-model-name", "m", "--inference-pool", &pool];
        let environment = [("KUBECONFIG", cluster.config())];
        let (scheduler, at) = start_with(&words(&[&line[..], &rest].concat()), &environment);
        let bed = Self { picker: at("picker"), scheduler };
        let operators = Client::new(format!("http://{}", at("http")));
        eventually("pods are found", || match operators.get("/ready") {
            reply if reply.status == 200 => Ok(()),
            reply => Err(reply.body),
        });
        bed
    }

    fn stop(mut self) {
        self.scheduler.signal(Signal::TERM, Sent::ToProcess);
        assert_eq!(self.scheduler.wait(Duration::from_secs(10)).code(), Some(0));
    }
}

/// One pool, its picker, and a gateway before both.
fn bed(pods: &Pods, shape: GatewayShape) -> (Cluster, Bed, Gateway) {
    let cluster = Cluster::start(pods.objects(), vec![pods.pool()]);
    let bed = Bed::start(&cluster, pods.name);
    let gateway = gateway(&bed, pods, shape);
    (cluster, bed, gateway)
}

fn gateway(bed: &Bed, pods: &Pods, shape: GatewayShape) -> Gateway {
    let addresses = pods.addresses();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    Gateway::shaped(&[&bed.picker], &addresses, shape)
}

/// Asks among these endpoints.
fn ask(gateway: &Gateway, selection: &str) -> Reply {
    let body = json!({ "model": "conformance-fake-model", "prompt": "Write as if you were a critic: San Francisco" });
    gateway.client.saying(SELECTION, selection).post(PATH, &body)
}

/// The pod that answered, and its port.
fn answered(reply: &Reply) -> (String, u64) {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let told: Value = serde_json::from_str(&reply.body).expect("JSON");
    (told["pod"].as_str().expect("a pod").to_owned(), told["port"].as_u64().expect("a port"))
}

/// Who answers, when many ask at once.
fn crowd(gateway: &Gateway, selection: &str) -> BTreeSet<(String, u64)> {
    std::thread::scope(|scope| {
        let one =
            || -> Vec<_> { (0..REQUESTS / AT_A_TIME).map(|_| answered(&ask(gateway, selection))).collect() };
        let all: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(one)).collect();
        all.into_iter().flat_map(|asked| asked.join().expect("answers")).collect()
    })
}

#[test]
fn a_gateway_follows_the_picker() {
    let pods = Pods::start("primary", 71, 1, Speaks::Http1);
    let (_cluster, bed, gateway) = bed(&pods, GatewayShape::default());
    let ip = |pod: usize| pods.pods[pod].ip.to_string();
    for pod in &pods.pods {
        assert_eq!(answered(&ask(&gateway, &pod.ip.to_string())).0, pod.name);
    }
    for chosen in [&[2][..], &[0, 1], &[0, 1, 2]] {
        let selection: Vec<String> = chosen.iter().map(|&pod| ip(pod)).collect();
        let allowed: BTreeSet<&str> = chosen.iter().map(|&pod| pods.pods[pod].name.as_str()).collect();
        for (pod, _) in crowd(&gateway, &selection.join(",")) {
            assert!(allowed.contains(pod.as_str()), "{pod} is none of {allowed:?}");
        }
        // Nor are the others named to the gateway, for when one fails.
        let told: Value = serde_json::from_str(&ask(&gateway, &selection.join(", ")).body).expect("JSON");
        let named = told["destination"].as_str().expect("a destination").split(',');
        let hosts: BTreeSet<&str> = named.filter_map(|endpoint| Some(endpoint.rsplit_once(':')?.0)).collect();
        assert_eq!(hosts, selection.iter().map(String::as_str).collect());
    }
    assert_eq!(ask(&gateway, "127.0.0.9").status, 503, "nobody is there");
    drop(gateway);
    bed.stop();
}

#[test]
fn a_gateway_follows_the_picker_to_ranks_of_pods() {
    let pods = Pods::start("ranks", 72, 3, Speaks::Http1);
    let (_cluster, bed, gateway) = bed(&pods, GatewayShape::default());
    let ip = |pod: usize| pods.pods[pod].ip.to_string();
    let [first, second, third] = pods.ports[..] else { panic!("three ports") };
    let rank = |pod: usize, port: u16| format!("{}:{port}", ip(pod));
    // Pods, each with its ports; all of them where it is named without one.
    let (all, outer) = ([first, second, third], [first, third]);
    let cases = [
        (ip(1), vec![(1, &all[..])]),
        ([ip(0), rank(2, second)].join(","), vec![(0, &all), (2, &all[1..2])]),
        ([ip(0), rank(1, first), rank(1, third), ip(2)].join(","), vec![(0, &all), (1, &outer), (2, &all)]),
    ];
    for (selection, allowed) in cases {
        let ports_of = |&(pod, ports): &(usize, &[u16])| -> Vec<(String, u64)> {
            ports.iter().map(|&port| (pods.pods[pod].name.clone(), u64::from(port))).collect()
        };
        let allowed: BTreeSet<_> = allowed.iter().flat_map(ports_of).collect();
        let used = crowd(&gateway, &selection);
        assert!(used.is_subset(&allowed), "{used:?} of {allowed:?}");
        // All pods are alike, so a hundred requests use more than one of their ranks.
        assert!(used.len() > 1, "{used:?}");
    }
    drop(gateway);
    bed.stop();
}

#[test]
fn a_gateway_tells_who_served() {
    for (network, speaks) in [(73, Speaks::Http1), (74, Speaks::Http2)] {
        let pods = Pods::start("primary", network, 1, speaks);
        let shape = GatewayShape { is_http2_behind: speaks == Speaks::Http2, ..GatewayShape::default() };
        let (_cluster, bed, gateway) = bed(&pods, shape);
        for (pod, endpoint) in pods.pods.iter().zip(pods.addresses()) {
            for selection in [&pod.ip.to_string(), &endpoint] {
                let reply = ask(&gateway, selection);
                assert_eq!(answered(&reply).0, pod.name);
                assert_eq!((&reply.headers[SERVED], &reply.headers[SELECTED]), (&endpoint, &endpoint));
            }
        }
        drop(gateway);
        bed.stop();
    }
}

#[test]
fn each_pool_has_its_own_picker() {
    let (primary, secondary) =
        (Pods::start("primary", 75, 1, Speaks::Http1), Pods::start("secondary", 76, 1, Speaks::Http1));
    let objects = [primary.objects(), secondary.objects()].concat();
    let cluster = Cluster::start(objects, vec![primary.pool(), secondary.pool()]);
    let everybody: Vec<String> =
        [&primary, &secondary].iter().flat_map(|pods| &pods.pods).map(|pod| pod.ip.to_string()).collect();
    for (pods, other) in [(&primary, &secondary), (&secondary, &primary)] {
        let bed = Bed::start(&cluster, pods.name);
        let gateway = gateway(&bed, pods, GatewayShape::default());
        for (pod, _) in crowd(&gateway, &everybody.join(",")) {
            assert!(pod.starts_with(pods.name), "{pod}");
        }
        // Only the other pool's picker would choose these.
        assert_eq!(ask(&gateway, &other.addresses()[0]).status, 503);
        // Requests without a body and without a wish go to any.
        let reply = gateway.client.get("/primary");
        assert!(answered(&reply).0.starts_with(pods.name), "{}", reply.body);
        drop(gateway);
        bed.stop();
    }
}
