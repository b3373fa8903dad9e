//! The endpoint picker protocol as a real Envoy speaks it. Its binary is found through `BATON_TEST_ENVOY`.

mod bed;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use baton_endpoint_picker::{PickRequest, Refusal};
use bed::{EVENTS, Endpoint, Gateway, PickerServer, TestPicker, digest};

type Told = BTreeMap<String, String>;

fn to(endpoints: &[&str]) -> impl Fn(&PickRequest) -> Result<Vec<String>, Refusal> + Send + Sync + 'static {
    let endpoints: Vec<String> = endpoints.iter().map(|e| (*e).to_owned()).collect();
    move |_| Ok(endpoints.clone())
}

async fn post(gateway: &Gateway, body: Vec<u8>) -> reqwest::Response {
    let url = format!("{}/v1/chat/completions", gateway.url);
    reqwest::Client::new().post(url).body(body).send().await.unwrap()
}

async fn told(response: reqwest::Response) -> Told {
    assert_eq!(response.status(), 200);
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// What watches saw, once they are over.
async fn seen(picker: &TestPicker, over: usize) -> Vec<String> {
    for _ in 0..200 {
        let seen = picker.seen.lock().unwrap().clone();
        if seen.iter().filter(|what| *what == "over").count() >= over {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not over: {:?}", picker.seen.lock().unwrap());
}

#[tokio::test]
async fn requests_of_all_sizes_reach_the_chosen_endpoint_unchanged() {
    let (a, b) = (Endpoint::start().await, Endpoint::start().await);
    let picker = TestPicker::new(to(&[&b.address]));
    let server = PickerServer::start(picker.clone(), "127.0.0.1:0").await;
    let gateway = Gateway::start(&[server.address], &[&a.address, &b.address]).await;
    for bytes in [2, 61_999, 62_000, 62_001, 400_000, 3_000_000] {
        let body: Vec<u8> = (0..bytes).map(|i: u32| (i * 31 % 251) as u8).collect();
        let answer = told(post(&gateway, body.clone()).await).await;
        assert_eq!(answer["address"], b.address, "{bytes} bytes");
        assert_eq!((&answer["body"], &answer["bytes"]), (&digest(&body), &bytes.to_string()));
        assert_eq!((answer["destination"].as_str(), answer["picked"].as_str()), (b.address.as_str(), "yes"));
        assert_eq!(picker.asked.lock().unwrap().last().unwrap().body, body, "the picker saw it whole");
    }
    let get = reqwest::get(format!("{}/v1/models", gateway.url)).await.unwrap();
    assert_eq!(get.headers()["x-conformance-test-served-endpoint"], b.address.as_str());
    assert_eq!(told(get).await["address"], b.address, "a request without a body");
    let seen = seen(&picker, 7).await;
    assert_eq!(seen[0], format!("200 from {} stream=false", b.address), "who served is reported back");
}

#[tokio::test]
async fn events_come_one_by_one_and_a_client_that_leaves_ends_the_watch() {
    let a = Endpoint::start().await;
    let picker = TestPicker::new(to(&[&a.address]));
    let server = PickerServer::start(picker.clone(), "127.0.0.1:0").await;
    let gateway = Gateway::start(&[server.address], &[&a.address]).await;
    let open = || async {
        let url = format!("{}/stream", gateway.url);
        reqwest::Client::new().post(url).body("{\"stream\":true}").send().await.unwrap()
    };
    let mut answer = open().await;
    let (start, mut arrivals, mut text) = (Instant::now(), Vec::new(), String::new());
    while let Some(chunk) = answer.chunk().await.unwrap() {
        arrivals.push(start.elapsed());
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert_eq!(text.matches("data: ").count(), EVENTS);
    assert!(arrivals.len() > EVENTS / 2, "they are not gathered: {arrivals:?}");
    let all = seen(&picker, 1).await;
    assert_eq!(all[0], format!("200 from {} stream=true", a.address));
    assert!(all[1].ends_with("bytes, ended"), "{all:?}");

    let mut answer = open().await;
    answer.chunk().await.unwrap().unwrap();
    drop(answer);
    let all = seen(&picker, 2).await;
    assert_eq!(all[3..].len(), 2, "the head, and over without an end: {all:?}");
}

#[tokio::test]
async fn what_the_gateway_leaves_to_choose_from_reaches_the_picker() {
    let (a, b) = (Endpoint::start().await, Endpoint::start().await);
    let picker = TestPicker::new(|request| match request.subset.clone() {
        Some(subset) if !subset.is_empty() => Ok(subset),
        _ => Err(Refusal {
            status: 503,
            kind: "overloaded_error",
            message: "nobody to choose from".to_owned(),
            retry_after: Some(Duration::from_secs(3)),
        }),
    });
    let server = PickerServer::start(picker, "127.0.0.1:0").await;
    let gateway = Gateway::start(&[server.address], &[&a.address, &b.address]).await;
    let client = reqwest::Client::new();
    for endpoint in [&a, &b, &a] {
        let request = client.post(&gateway.url).header("x-test-subset", &endpoint.address).body("{}");
        assert_eq!(told(request.send().await.unwrap()).await["address"], endpoint.address);
    }
    let refused = client.post(&gateway.url).body("{}").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "3"));
    let error: serde_json::Value = serde_json::from_slice(&refused.bytes().await.unwrap()).unwrap();
    assert_eq!(error["error"]["message"], "nobody to choose from");
}

#[tokio::test]
async fn the_gateway_tries_the_endpoints_in_order() {
    let (gone, alive) = (Endpoint::start().await, Endpoint::start().await);
    let dead = gone.address.clone();
    drop(gone);
    let picker = TestPicker::new(to(&[&dead, &alive.address]));
    let server = PickerServer::start(picker.clone(), "127.0.0.1:0").await;
    let gateway = Gateway::start(&[server.address], &[&dead, &alive.address]).await;
    for _ in 0..5 {
        let answer = told(post(&gateway, b"{}".to_vec()).await).await;
        assert_eq!(answer["address"], alive.address);
    }
    let seen = seen(&picker, 5).await;
    assert!(seen.contains(&format!("200 from {} stream=false", alive.address)), "{seen:?}");
}

#[tokio::test]
async fn a_picker_killed_under_load_and_started_again_serves_on() {
    let a = Endpoint::start().await;
    let picker = TestPicker::new(to(&[&a.address]));
    let server = PickerServer::start(picker.clone(), "127.0.0.1:0").await;
    let address = server.address;
    let gateway = Arc::new(Gateway::start(&[address], &[&a.address]).await);
    let (served, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (gateway, served, failed) = (gateway.clone(), served.clone(), failed.clone());
            tokio::spawn(async move {
                loop {
                    match post(&gateway, vec![b'x'; 100_000]).await.status().as_u16() {
                        200 => served.fetch_add(1, Ordering::Relaxed),
                        // The gateway says so at once; nothing hangs.
                        500..=504 => failed.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
            })
        })
        .collect();
    let wait_for = |count: Arc<AtomicUsize>, more: usize| async move {
        let target = count.load(Ordering::Relaxed) + more;
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while count.load(Ordering::Relaxed) < target {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("requests are answered");
    };
    wait_for(served.clone(), 20).await;
    drop(server);
    wait_for(failed.clone(), 5).await;
    let _server = PickerServer::start(picker, &address.to_string()).await;
    wait_for(served, 20).await;
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn one_of_two_pickers_may_go() {
    let a = Endpoint::start().await;
    let picker = TestPicker::new(to(&[&a.address]));
    let first = PickerServer::start(picker.clone(), "127.0.0.1:0").await;
    let second = PickerServer::start(picker.clone(), "127.0.0.1:0").await;
    let gateway = Gateway::start(&[first.address, second.address], &[&a.address]).await;
    for _ in 0..10 {
        assert_eq!(post(&gateway, b"{}".to_vec()).await.status(), 200);
    }
    drop(first);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut served = 0;
    for _ in 0..20 {
        served += usize::from(post(&gateway, b"{}".to_vec()).await.status() == 200);
    }
    assert!(served >= 10, "the other one serves: {served} of 20");
}
