//! What is published, read by a client as vLLM's users write it: pyzmq, and msgspec structures declared as vLLM declares them.

use std::{process::Stdio, time::Duration};

use baton_kv_events::{Event, EventSender, EventStats, Format, Lora, Publisher, Settings, Stored};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// Long enough to be reached by a hang only.
const HANG: Duration = Duration::from_secs(60);
const TOPIC: &str = "kv@10.0.0.1@tiny";
const HERE: &str = "@tcp://127.0.0.1:0";

struct Client {
    _child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(format: Format) -> Self {
        let python = std::env::var("BATON_TEST_PYTHON").expect(
            "BATON_TEST_PYTHON names a Python with the packages of tests/requirements.txt; `./dev test` sets it",
        );
        let word = if format == Format::Array { "array" } else { "map" };
        let mut child = Command::new(python)
            .args(["tests/vllm_client.py", word])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let commands = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { _child: child, commands, answers }
    }

    async fn tell(&mut self, command: &str) {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.expect("the client lives");
    }

    async fn answer(&mut self) -> Value {
        let line = timeout(HANG, self.answers.next_line()).await.expect("no hang").unwrap();
        serde_json::from_str(&line.expect("an answer; the client says above why there is none")).unwrap()
    }

    async fn ask(&mut self, command: &str) -> Value {
        self.tell(command).await;
        self.answer().await
    }

    /// Batches without events are sent until one has come: a subscription takes a moment.
    async fn until_subscribed(&mut self, sender: &mut EventSender) {
        let mut often = interval(Duration::from_millis(20));
        let subscribed = tokio::select! {
            answer = self.answer() => answer,
            () = async { loop { often.tick().await; sender.send(vec![]); } } => unreachable!(),
        };
        assert_eq!(subscribed, "subscribed");
    }

    async fn batches(&mut self, count: usize) -> Vec<Value> {
        let Value::Array(batches) = self.ask(&format!("batches {count}")).await else { panic!("a list") };
        batches
    }
}

struct Service {
    sender: EventSender,
    stats: EventStats,
    events: String,
    replay: String,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Service {
    async fn start(endpoint: &str, format: Format, replay_batches: usize) -> Self {
        let (publisher, sender) = Publisher::start(Settings {
            endpoint: endpoint.parse().unwrap(),
            replay_endpoint: Some(HERE.parse().unwrap()),
            topic: TOPIC.to_owned(),
            format,
            replay_batches,
        })
        .await
        .unwrap();
        let at = |what: &str| {
            let address = publisher.addresses().iter().find(|(name, _)| *name == what);
            address.map(|(_, address)| format!("tcp://{address}")).unwrap_or_default()
        };
        let (events, replay, stats) = (at("kv-events"), at("kv-events-replay"), publisher.stats());
        let end = CancellationToken::new();
        let task = tokio::spawn(publisher.run(end.clone()));
        Self { sender, stats, events, replay, end, task }
    }

    async fn stop(self) {
        self.end.cancel();
        timeout(HANG, self.task).await.expect("no hang").unwrap();
    }
}

fn stored(hashes: &[u64], parent: Option<u64>, token_ids: Vec<u32>) -> Stored {
    Stored { hashes: hashes.to_vec(), parent, token_ids, block_tokens: 2, lora: None, salt: None }
}

fn expected(hashes: &[u64], parent: Option<u64>, token_ids: &[u32]) -> Value {
    json!({"kind": "BlockStored", "block_hashes": hashes, "parent_block_hash": parent, "token_ids": token_ids,
        "block_size": 2, "lora_id": null, "medium": "GPU", "lora_name": null, "extra_keys": null})
}

#[tokio::test]
async fn every_kind_of_event_is_read_as_it_was_sent() {
    for format in [Format::Array, Format::Map] {
        let mut service = Service::start(HERE, format, 10_000).await;
        let mut client = Client::start(format);
        client.tell(&format!("subscribe {} kv@", service.events)).await;
        client.until_subscribed(&mut service.sender).await;

        let lora = Some(Lora { id: 3, name: "poet".to_owned() });
        let large: Vec<u32> = (0..200_000).map(|i| i * 20_000).collect();
        service.sender.send(vec![
            Event::Stored(stored(&[u64::MAX, 1], None, vec![0, 127, 128, u32::MAX])),
            Event::Stored(Stored {
                lora: lora.clone(),
                ..stored(&[255, 256], Some(u64::MAX), vec![1, 2, 3, 4])
            }),
            Event::Stored(Stored {
                salt: Some("s".repeat(300)),
                lora,
                ..stored(&[65_536, 9], None, vec![5; 4])
            }),
            Event::Removed { hashes: vec![1, u64::MAX] },
            Event::Cleared,
        ]);
        service.sender.send(vec![Event::Stored(stored(&[7], None, large.clone()))]);
        let batches = client.batches(2).await;
        let long = "s".repeat(300);
        assert_eq!(
            batches[0]["events"],
            json!([
                expected(&[u64::MAX, 1], None, &[0, 127, 128, u32::MAX]),
                {"kind": "BlockStored", "block_hashes": [255, 256], "parent_block_hash": u64::MAX,
                    "token_ids": [1, 2, 3, 4], "block_size": 2, "lora_id": 3, "medium": "GPU", "lora_name": "poet",
                    "extra_keys": [["poet"], ["poet"]]},
                {"kind": "BlockStored", "block_hashes": [65_536, 9], "parent_block_hash": null,
                    "token_ids": [5, 5, 5, 5], "block_size": 2, "lora_id": 3, "medium": "GPU", "lora_name": "poet",
                    "extra_keys": [["poet", long], ["poet"]]},
                {"kind": "BlockRemoved", "block_hashes": [1, u64::MAX], "medium": "GPU"},
                {"kind": "AllBlocksCleared"},
            ])
        );
        assert_eq!(batches[0]["rank"], 0);
        assert!(batches[0]["ts"].as_f64().unwrap() > 1.7e9, "seconds since 1970");
        assert_eq!(batches[1]["number"].as_u64(), batches[0]["number"].as_u64().map(|n| n + 1));
        assert_eq!(batches[1]["events"], json!([expected(&[7], None, &large)]));
        assert_eq!(service.stats.dropped(), 0);
        service.stop().await;
    }
}

/// With events, the first hash is the number of the batch among those.
fn hashes(batches: &Value) -> Vec<u64> {
    let first = |batch: &Value| batch["events"][0]["block_hashes"][0].as_u64();
    batches.as_array().unwrap().iter().filter_map(first).collect()
}

#[tokio::test]
async fn what_a_subscriber_missed_is_replayed_from_where_it_asks() {
    let mut service = Service::start(HERE, Format::Array, 6).await;
    let mut client = Client::start(Format::Array);
    let replay = |first: u64, url: &str| format!("replay {url} {first}");
    assert_eq!(client.ask(&replay(0, &service.replay)).await, json!([]), "nothing has happened yet");

    // Before anybody subscribes: number 0, then 1, 2, 3.
    service.sender.send(vec![Event::Cleared]);
    (1..4).for_each(|i| service.sender.send(vec![Event::Removed { hashes: vec![i] }]));
    while service.stats.published() < 4 {
        tokio::task::yield_now().await;
    }
    let all = client.ask(&replay(0, &service.replay)).await;
    let numbers: Vec<_> =
        all.as_array().unwrap().iter().map(|batch| batch["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert_eq!(all[0]["events"], json!([{"kind": "AllBlocksCleared"}]));
    assert_eq!(hashes(&client.ask(&replay(2, &service.replay)).await), [2, 3]);
    assert_eq!(client.ask(&replay(4, &service.replay)).await, json!([]));
    assert_eq!(client.ask(&replay(u64::MAX, &service.replay)).await, json!([]));

    // Then it subscribes, and finds by the numbers that it lacks something.
    client.tell(&format!("subscribe {} kv@10.0.0.1", service.events)).await;
    client.until_subscribed(&mut service.sender).await;
    service.sender.send(vec![Event::Removed { hashes: vec![77] }]);
    let live = client.batches(1).await;
    let number = live[0]["number"].as_u64().unwrap();
    assert!(number > 4);
    assert_eq!(hashes(&client.ask(&replay(number, &service.replay)).await), [77]);

    // Six are kept.
    (100..110).for_each(|i| service.sender.send(vec![Event::Removed { hashes: vec![i] }]));
    client.batches(10).await;
    assert_eq!(hashes(&client.ask(&replay(0, &service.replay)).await), [104, 105, 106, 107, 108, 109]);
    assert_eq!(service.stats.replays(), 7);
    service.stop().await;
}

#[tokio::test]
async fn other_topics_are_not_sent() {
    let mut service = Service::start(HERE, Format::Array, 6).await;
    let mut client = Client::start(Format::Array);
    client.tell(&format!("subscribe {} kv@", service.events)).await;
    client.until_subscribed(&mut service.sender).await;
    client.tell(&format!("subscribe {} other", service.events)).await;
    let heard = timeout(Duration::from_millis(300), client.until_subscribed(&mut service.sender)).await;
    assert!(heard.is_err(), "its topic is another");
    service.stop().await;
}

#[tokio::test]
async fn a_router_is_called_and_called_again_when_it_comes_back() {
    let mut client = Client::start(Format::Array);
    client.tell("listen 0 kv@").await;
    let port = client.answer().await;
    let mut service = Service::start(&format!("tcp://127.0.0.1:{port}"), Format::Array, 100).await;
    client.until_subscribed(&mut service.sender).await;
    service.sender.send(vec![Event::Removed { hashes: vec![1] }]);
    assert_eq!(hashes(&client.batches(1).await.into()), [1]);

    // It goes, and another one takes its place.
    drop(client);
    let mut client = Client::start(Format::Array);
    client.tell(&format!("listen {port} kv@")).await;
    client.until_subscribed(&mut service.sender).await;
    service.sender.send(vec![Event::Removed { hashes: vec![2] }]);
    assert_eq!(hashes(&client.batches(1).await.into()), [2]);
    service.stop().await;
}

#[tokio::test]
async fn nobody_listening_is_nobodys_trouble() {
    // No router there, and more than the queue holds; the publisher shares this test's thread.
    let mut service = Service::start("tcp://127.0.0.1:9", Format::Array, 100).await;
    for i in 0..10_000 {
        service.sender.send(vec![Event::Removed { hashes: vec![i] }]);
        if i % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(service.stats.dropped(), 0);
    let mut client = Client::start(Format::Array);
    let replayed = client.ask(&format!("replay {} 0", service.replay)).await;
    assert_eq!(hashes(&replayed).last(), Some(&9_999));
    service.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("@tcp://{}", taken.local_addr().unwrap());
    let settings = Settings {
        endpoint: endpoint.parse().unwrap(),
        replay_endpoint: None,
        topic: String::new(),
        format: Format::Array,
        replay_batches: 1,
    };
    let error = Publisher::start(settings).await.err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen on {endpoint} for KV events"));
}
