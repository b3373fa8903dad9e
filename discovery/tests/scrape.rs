//! Reading load from servers that are well, and from those that are slow, dead or lying.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use baton_discovery::{
    Endpoint, Engine, MetricsPage, Place, Publisher, Role, State,
    scrape::{Health, Loads, Report, ScrapeError, ScrapeOptions, Scraper},
    source,
};
use baton_process::Metrics;
use common::{
    pages,
    servers::{Manner, Server},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    publisher: Publisher,
    loads: Loads,
    metrics: Metrics,
    until: CancellationToken,
    tasks: JoinSet<()>,
}

fn options() -> ScrapeOptions {
    ScrapeOptions {
        every: Duration::from_millis(10),
        timeout: Duration::from_millis(300),
        most_bytes: 1 << 20,
        ..ScrapeOptions::default()
    }
}

fn endpoint(id: &str, server: &Server) -> Endpoint {
    let metrics = MetricsPage { address: server.address, path: "/metrics".into() };
    Endpoint {
        id: id.into(),
        incarnation: 0,
        address: server.address,
        role: Role::Both,
        engine: Engine::Vllm,
        state: State::Ready,
        labels: Default::default(),
        place: Place::default(),
        metrics,
        kv_events: None,
    }
}

impl Bed {
    fn start(servers: &[(&str, &Server)], options: ScrapeOptions) -> Self {
        let (publisher, source) = source("test");
        let metrics = Metrics::new();
        let (scraper, loads) = Scraper::new(source, options, &metrics);
        let until = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(scraper.run(until.clone()));
        let bed = Self { publisher, loads, metrics, until, tasks };
        bed.publish(servers);
        bed
    }

    fn publish(&self, servers: &[(&str, &Server)]) {
        self.publisher
            .publish(servers.iter().map(|(id, server)| endpoint(id, server)).collect(), Instant::now());
    }

    async fn wait(&self, id: &str, what: &str, is_so: impl Fn(&Report) -> bool) -> Report {
        let start = Instant::now();
        loop {
            let report = self.loads.get(id);
            if let Some(report) = report.as_ref().filter(|report| is_so(report)) {
                return report.clone();
            }
            assert!(start.elapsed() < PATIENCE, "{id}: {what}: not in {PATIENCE:?}; it is {report:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
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

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn page() -> String {
    pages::Server::default().vllm()
}

#[tokio::test]
async fn a_server_is_read_again_and_again_over_one_connection() {
    let server = Server::start(Manner::Page(page())).await;
    let bed = Bed::start(&[("a", &server)], options());
    let report = bed.wait("a", "read", |report| report.health == Health::Healthy).await;
    let load = report.load.unwrap();
    assert_eq!((load.waiting, load.running, load.kv_used_tokens()), (3, 7, Some(4000)));
    until("twenty times", || server.requests() > 20).await;
    assert_eq!(server.counts.connections.load(SeqCst), 1);
    let text = bed.metrics.encode();
    assert!(text.contains("baton_discovery_targets{health=\"healthy\"} 1"), "{text}");
    assert!(text.contains("baton_discovery_oldest_load_seconds 0"), "{text}");
    bed.stop().await;
}

#[tokio::test]
async fn bad_servers_are_unhealthy_or_silent_for_a_reason_and_delay_no_good_one() {
    let liar = page().replace("vllm:num_requests_running{", "vllm:num_requests_running{x=\"\\");
    let nan = format!("{}vllm:kv_cache_usage_perc NaN\n", page());
    let cases = [
        ("never", Manner::Never, "in time", Health::Unhealthy),
        ("drip", Manner::Drip(page()), "in time", Health::Unhealthy),
        ("error", Manner::Status("500 Internal Server Error"), "status 500", Health::Unhealthy),
        ("short", Manner::Short(page()), "broke", Health::Unhealthy),
        ("endless", Manner::Endless, "longer than 1048576 bytes", Health::Silent),
        ("garbage", Manner::Garbage, "does not speak HTTP/1.1", Health::Silent),
        ("redirect", Manner::Status("302 Found"), "status 302", Health::Silent),
        ("nowhere", Manner::Status("404 Not Found"), "status 404", Health::Silent),
        ("line", Manner::Line, "a line of more than", Health::Silent),
        ("web", Manner::Page("<html></html>".into()), "lacks", Health::Silent),
        ("liar", Manner::Page(liar), "malformed", Health::Silent),
        ("nan", Manner::Page(nan), "is NaN", Health::Silent),
    ];
    let good = Server::start(Manner::Page(page())).await;
    let mut servers = Vec::new();
    for (name, manner, ..) in &cases {
        servers.push((*name, Server::start(manner.clone()).await));
    }
    let dead = {
        let server = Server::start(Manner::Never).await;
        server.address
    };
    let mut set: Vec<_> = servers.iter().map(|(name, server)| endpoint(name, server)).collect();
    set.push(endpoint("good", &good));
    set.push(Endpoint {
        id: "dead".into(),
        metrics: MetricsPage { address: dead, path: "/metrics".into() },
        ..endpoint("dead", &good)
    });
    let bed = Bed::start(&[], options());
    bed.publisher.publish(set, Instant::now());
    let expected = cases.iter().map(|(name, _, word, health)| (*name, *word, *health));
    for (name, word, health) in expected.chain([("dead", "no connection", Health::Unhealthy)]) {
        let report = bed.wait(name, "it failed", |report| report.health == health).await;
        let said = report.error.unwrap().to_string();
        assert!(said.contains(word), "{name}: {word:?} is missing in {said:?}");
        assert!(report.load.is_none());
    }
    let asked = good.requests();
    until("the good one goes on", || good.requests() > asked + 20).await;
    assert_eq!(bed.loads.get("good").unwrap().failures, 0);
    let never = servers.iter().find(|(name, _)| *name == "never").map(|(_, server)| server).unwrap();
    assert_eq!(never.counts.most_open.load(SeqCst), 1, "never more than one request to a server");
    bed.stop().await;
}

#[tokio::test]
async fn a_killed_server_keeps_its_last_load_and_comes_back() {
    let server = Server::start(Manner::Page(page())).await;
    let address = server.address;
    let bed = Bed::start(&[("a", &server)], options());
    bed.wait("a", "read", |report| report.load.is_some()).await;
    drop(server);
    let report = bed.wait("a", "unhealthy", |report| report.health == Health::Unhealthy).await;
    assert_eq!(report.load.as_ref().unwrap().running, 7);
    assert!(matches!(report.error, Some(ScrapeError::Connect(_) | ScrapeError::Broken(_))), "{report:?}");
    let age = report.age(Instant::now()).unwrap();
    until("it ages", || bed.loads.get("a").unwrap().age(Instant::now()).unwrap() > age).await;
    let busier = pages::Server { running: vec![9], ..pages::Server::default() };
    let _server = Server::start_at(address, Manner::Page(busier.vllm()), Default::default()).await;
    let report = bed.wait("a", "healthy again", |report| report.health == Health::Healthy).await;
    assert_eq!((report.load.unwrap().running, report.failures), (9, 0));
    bed.stop().await;
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_never_fails() {
    let server = Server::start(Manner::CloseAfter(page())).await;
    let bed = Bed::start(&[("a", &server)], options());
    until("twenty times", || server.requests() > 20).await;
    assert_eq!(bed.loads.get("a").unwrap().failures, 0);
    assert!(!bed.metrics.encode().contains("outcome=\"broken\""));
    bed.stop().await;
}

#[tokio::test]
async fn who_leaves_is_not_asked_any_more_and_who_moves_is_asked_there() {
    let (a, b, c) = (
        Server::start(Manner::Page(page())).await,
        Server::start(Manner::Page(page())).await,
        Server::start(Manner::Page(page())).await,
    );
    let bed = Bed::start(&[("a", &a), ("b", &b)], options());
    until("both", || a.requests() > 3 && b.requests() > 3).await;
    bed.publish(&[("b", &c)]);
    until("the new place", || c.requests() > 3).await;
    assert!(bed.loads.get("a").is_none());
    assert_eq!(bed.loads.all().len(), 1);
    // What was under way when it left may still have come; from here on nothing does.
    let asked = (a.requests(), b.requests());
    let then = c.requests();
    until("time passes", || c.requests() > then + 20).await;
    assert_eq!((a.requests(), b.requests()), asked);
    bed.stop().await;
}

#[tokio::test]
async fn requests_at_once_are_bounded() {
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(Server::start(Manner::Never).await);
    }
    let good = Server::start(Manner::Page(page())).await;
    let names: Vec<_> = (0..silent.len()).map(|at| format!("s{at}")).collect();
    let mut set: Vec<_> = names.iter().map(String::as_str).zip(&silent).collect();
    set.push(("good", &good));
    let bed =
        Bed::start(&set, ScrapeOptions { concurrency: 3, timeout: Duration::from_millis(50), ..options() });
    let open = || silent.iter().map(|server| server.counts.open.load(SeqCst)).sum::<usize>();
    let start = Instant::now();
    let mut most = 0;
    while silent.iter().any(|server| server.requests() < 3) || good.requests() < 10 {
        most = most.max(open());
        assert!(start.elapsed() < PATIENCE, "everybody has a turn");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // A server may see the end of a connection a moment after the next one begins elsewhere.
    assert!((1..=6).contains(&most), "{most} requests at once");
    bed.stop().await;
}

#[tokio::test]
async fn only_the_needed_figures_are_asked_for_where_that_works() {
    let wide = pages::Server { histograms: 50, ..pages::Server::default() };
    let narrow = pages::Server { histograms: 0, running: vec![8], ..pages::Server::default() };
    let server = Server::start(Manner::Narrow(wide.vllm(), narrow.vllm())).await;
    let bed = Bed::start(&[("a", &server)], options());
    bed.wait("a", "the narrow page", |report| report.load.as_ref().is_some_and(|load| load.running == 8))
        .await;
    until("ten times", || server.requests() > 10).await;
    let paths = server.paths();
    assert_eq!(paths[0], "/metrics");
    assert!(
        paths[1..].iter().all(|path| path.starts_with("/metrics/?name%5B%5D=vllm:num_requests_waiting&")),
        "{paths:?}"
    );
    bed.stop().await;
}

#[tokio::test]
async fn a_server_that_loses_figures_or_does_not_know_the_question_is_asked_for_everything() {
    let less: Vec<_> =
        page().lines().filter(|line| !line.contains("cache_config_info")).map(str::to_owned).collect();
    for manner in [
        Manner::Narrow(page(), less.join("\n")),
        Manner::Narrow(page(), String::new()),
        Manner::OnlyThere(page()),
    ] {
        let server = Server::start(manner).await;
        let bed = Bed::start(&[("a", &server)], options());
        until("ten times", || server.requests() > 10).await;
        let paths = server.paths();
        assert!(paths[1].contains('?'), "it was tried");
        assert!(paths[2..].iter().all(|path| path == "/metrics"), "and then not again: {paths:?}");
        let report = bed.loads.get("a").unwrap();
        assert_eq!((report.failures, report.load.unwrap().blocks()), (0, Some(1000)));
        assert!(!bed.metrics.encode().contains("outcome=\"page\""));
        bed.stop().await;
    }
}
