//! The subscriber, on real publishers of `kv-events`, over connections that are cut, and with workers that restart.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use baton_kv_events::{Event, EventSender, EventStats, Format, Publisher, Settings, Stored};
use baton_kv_index::{
    Health, IndexHandle, IndexLimits, Indexer, Matches, PromptKeys, Scope, Source, Subscriber, WorkerId,
    WorkerSpec, WorkerStatus,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// Long enough to be reached by a hang only.
const HANG: Duration = Duration::from_secs(30);
const WORKER: WorkerId = WorkerId(7);
const SCOPE: Scope<'_> = Scope { model: "m", adapter: None, salt: None };

/// A worker's publisher.
struct Worker {
    sender: EventSender,
    stats: EventStats,
    events: SocketAddr,
    replay: SocketAddr,
    sent: u64,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Worker {
    /// On those ports, or any.
    async fn start(ports: (u16, u16), format: Format, replay_batches: usize) -> Self {
        let endpoint = |port: u16| format!("@tcp://127.0.0.1:{port}").parse().unwrap();
        let settings = Settings {
            endpoint: endpoint(ports.0),
            replay_endpoint: Some(endpoint(ports.1)),
            topic: "kv@pod@m".to_owned(),
            format,
            replay_batches,
        };
        let (publisher, sender) = Publisher::start(settings).await.unwrap();
        let [(_, events), (_, replay)] = publisher.addresses() else { panic!("two sockets") };
        let (events, replay, stats) = (*events, *replay, publisher.stats());
        let end = CancellationToken::new();
        let task = tokio::spawn(publisher.run(end.clone()));
        Self { sender, stats, events, replay, sent: 0, end, task }
    }

    /// Publishes, and waits until it has.
    async fn send(&mut self, events: Vec<Event>) {
        self.sender.send(events);
        self.sent += 1;
        until(|| self.stats.published() == self.sent).await;
    }

    async fn store(&mut self, tokens: &[u32]) {
        self.send(vec![stored(tokens)]).await;
    }

    async fn stop(self) -> (u16, u16) {
        self.end.cancel();
        timeout(HANG, self.task).await.expect("no hang").unwrap();
        (self.events.port(), self.replay.port())
    }
}

/// A whole prompt, in blocks of 2 tokens.
fn stored(tokens: &[u32]) -> Event {
    Event::Stored(Stored {
        hashes: hashes(tokens),
        parent: None,
        token_ids: tokens.to_vec(),
        block_tokens: 2,
        lora: None,
        salt: None,
    })
}

fn hashes(tokens: &[u32]) -> Vec<u64> {
    (1..=tokens.len() / 2)
        .map(|blocks| tokens[..blocks * 2].iter().fold(9, |hash, t| hash * 1009 + u64::from(*t)))
        .collect()
}

/// Between the index and the worker: a wire that can be cut.
struct Wire {
    address: SocketAddr,
    /// `None` while it is cut.
    connections: Arc<Mutex<Option<JoinSet<()>>>>,
    task: JoinHandle<()>,
}

impl Wire {
    async fn to(worker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Some(JoinSet::new())));
        let all = connections.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let Some(connections) = &mut *all.lock().unwrap() else { continue };
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(worker).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self { address, connections, task }
    }

    async fn cut(&self) {
        let connections = self.connections.lock().unwrap().take();
        connections.expect("whole").shutdown().await;
    }

    fn mend(&self) {
        *self.connections.lock().unwrap() = Some(JoinSet::new());
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct World {
    indexer: Indexer,
    status: Arc<WorkerStatus>,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl World {
    async fn listening(events: SocketAddr, replay: Option<SocketAddr>) -> Self {
        let indexer = Indexer::start(IndexLimits { bytes: 16 << 20, guess_seconds: 60 }).unwrap();
        let spec = WorkerSpec { model: "m".to_owned(), block_tokens: 16, same_hashes: None };
        indexer.handle().add(WORKER, spec).await.unwrap().unwrap();
        let source = Source {
            events: format!("tcp://{events}"),
            replay: replay.map(|replay| format!("tcp://{replay}")),
            topic: "kv@".to_owned(),
        };
        let subscriber = Subscriber::new(WORKER, source, indexer.handle());
        let (status, end) = (subscriber.status(), CancellationToken::new());
        let task = tokio::spawn(subscriber.run(end.clone()));
        Self { indexer, status, end, task }
    }

    async fn until_found(&self, tokens: &[u32], expected: u32) {
        let handle = self.indexer.handle();
        until(|| found(&handle, tokens) == expected).await;
    }

    async fn until_health(&self, health: Health) {
        until(|| self.status.health() == health).await;
    }

    async fn stop(self) {
        self.end.cancel();
        timeout(HANG, self.task).await.expect("no hang").unwrap();
    }
}

fn found(handle: &IndexHandle, tokens: &[u32]) -> u32 {
    let mut matches = Matches::default();
    handle.reader().read(|index| {
        for size in index.block_sizes() {
            index.query(&PromptKeys::new(&SCOPE, size, tokens), &mut matches);
        }
    });
    matches.found().iter().map(|found| found.prefix_tokens()).sum()
}

#[track_caller]
fn until(condition: impl Fn() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let wait = async {
            let mut often = interval(Duration::from_millis(5));
            while !condition() {
                often.tick().await;
            }
        };
        assert!(timeout(HANG, wait).await.is_ok(), "never came about: {place}");
    }
}

const A: &[u32] = &[1, 2, 3, 4, 5, 6];
const B: &[u32] = &[7, 8, 9, 10];
const C: &[u32] = &[70_000, 300, 11, 12];

#[tokio::test]
async fn what_was_published_before_and_what_comes_is_known() {
    for format in [Format::Array, Format::Map] {
        let mut worker = Worker::start((0, 0), format, 100).await;
        worker.store(A).await;
        worker.store(B).await;
        let world = World::listening(worker.events, Some(worker.replay)).await;
        world.until_found(A, 6).await;
        world.until_found(B, 4).await;
        world.until_health(Health::Live).await;
        worker.store(C).await;
        world.until_found(C, 4).await;
        worker.send(vec![Event::Removed { hashes: hashes(A)[1..].to_vec() }]).await;
        world.until_found(A, 2).await;
        worker.send(vec![Event::Cleared]).await;
        world.until_found(A, 0).await;
        let stats = world.status.stats();
        assert_eq!((stats.restarts, stats.resyncs, stats.unreadable, stats.skipped), (0, 0, 0, 0));
        world.stop().await;
        worker.stop().await;
    }
}

/// A worker that keeps so many batches for replays, has told of A, and is not heard any more.
async fn cut_off(replay_batches: usize) -> (Worker, Wire, World) {
    let mut worker = Worker::start((0, 0), Format::Array, replay_batches).await;
    let wire = Wire::to(worker.events).await;
    let world = World::listening(wire.address, Some(worker.replay)).await;
    worker.store(A).await;
    world.until_found(A, 6).await;
    wire.cut().await;
    world.until_health(Health::Connecting).await;
    (worker, wire, world)
}

#[tokio::test]
async fn what_was_published_while_the_wire_was_cut_is_asked_for() {
    let (mut worker, wire, world) = cut_off(100).await;
    assert_eq!(found(&world.indexer.handle(), A), 6, "what is known counts meanwhile");
    worker.store(B).await;
    worker.send(vec![Event::Removed { hashes: hashes(A)[2..].to_vec() }]).await;
    wire.mend();
    world.until_found(B, 4).await;
    world.until_found(A, 4).await;
    world.until_health(Health::Live).await;
    worker.store(C).await;
    world.until_found(C, 4).await;
    let stats = world.status.stats();
    assert_eq!((stats.restarts, stats.resyncs), (0, 0));
    world.stop().await;
    worker.stop().await;
}

#[tokio::test]
async fn what_the_publisher_has_no_more_makes_the_knowledge_stale_until_the_cache_is_cleared() {
    let (mut worker, wire, world) = cut_off(2).await;
    for _ in 0..5 {
        worker.store(B).await;
    }
    worker.store(C).await;
    wire.mend();
    world.until_health(Health::Stale).await;
    world.until_found(C, 4).await;
    world.until_found(B, 4).await;
    assert_eq!(found(&world.indexer.handle(), A), 0, "it may have been removed, so it does not count");
    assert_eq!((world.status.stats().restarts, world.status.stats().resyncs), (0, 1));
    worker.send(vec![Event::Cleared]).await;
    world.until_health(Health::Live).await;
    worker.store(A).await;
    world.until_found(A, 6).await;
    world.stop().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_restarts_has_nothing_of_what_it_had() {
    // The second life has published less than the first when it is heard again, then as much, then more.
    for batches in 1..=4 {
        let mut worker = Worker::start((0, 0), Format::Array, 100).await;
        let world = World::listening(worker.events, Some(worker.replay)).await;
        worker.store(A).await;
        worker.store(A).await;
        world.until_found(A, 6).await;
        until(|| world.status.stats().batches == 2).await;
        let ports = worker.stop().await;
        let mut worker = Worker::start(ports, Format::Array, 100).await;
        for _ in 0..batches {
            worker.store(B).await;
        }
        world.until_found(A, 0).await;
        world.until_found(B, 4).await;
        world.until_health(Health::Live).await;
        worker.store(C).await;
        world.until_found(C, 4).await;
        assert_eq!((world.status.stats().restarts, world.status.stats().resyncs), (1, 0), "{batches}");
        world.stop().await;
        worker.stop().await;
    }
}

#[tokio::test]
async fn without_replays_a_gap_loses_what_was_known() {
    let mut worker = Worker::start((0, 0), Format::Array, 100).await;
    let wire = Wire::to(worker.events).await;
    worker.store(A).await;
    let world = World::listening(wire.address, None).await;
    world.until_health(Health::Stale).await;
    // A subscription takes a moment.
    while found(&world.indexer.handle(), B) == 0 {
        worker.store(B).await;
    }
    assert_eq!(found(&world.indexer.handle(), A), 0);
    wire.cut().await;
    world.until_health(Health::Connecting).await;
    wire.mend();
    world.until_found(B, 0).await;
    while found(&world.indexer.handle(), C) == 0 {
        worker.store(C).await;
    }
    assert_eq!(world.status.health(), Health::Stale);
    world.stop().await;
    worker.stop().await;
}

#[tokio::test]
async fn an_index_that_ends_ends_its_subscribers() {
    let worker = Worker::start((0, 0), Format::Array, 100).await;
    let world = World::listening(worker.events, Some(worker.replay)).await;
    world.until_health(Health::Live).await;
    let handle = world.indexer.handle();
    drop(world.indexer);
    assert!(handle.remove(WORKER).await.is_err());
    let mut worker = worker;
    let mut task = world.task;
    let ended = async {
        while timeout(Duration::from_millis(20), &mut task).await.is_err() {
            worker.sender.send(vec![Event::Cleared]);
        }
    };
    timeout(HANG, ended).await.expect("it ends");
    worker.end.cancel();
}
