//! What reading a whole fleet's load costs: `cargo bench -p baton-discovery --bench fleet [SERVERS]`. The servers are in another thread; what is
//! counted is the processor time of the thread that reads, as a share of a core.
#![allow(missing_docs, reason = "a bench")]
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

#[allow(dead_code, reason = "tests use the rest")]
#[path = "../tests/common/pages.rs"]
mod pages;

use std::{net::SocketAddr, sync::mpsc, thread, time::Duration};

use baton_discovery::{
    Endpoint, Engine, MetricsPage, Place, Role, State,
    scrape::{Health, ScrapeOptions, Scraper},
    source,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

const SERVERS: usize = 1_000;
const EVERY: Duration = Duration::from_millis(200);
const SPAN: Duration = Duration::from_secs(5);

fn answer(page: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len()).into_bytes()
}

async fn serve(mut stream: TcpStream, wide: Vec<u8>, narrow: Vec<u8>) {
    let mut head = vec![0; 8 << 10];
    while let Ok(1..) = stream.read(&mut head).await {
        let page = if head.starts_with(b"GET /metrics/?") { &narrow } else { &wide };
        if stream.write_all(page).await.is_err() {
            return;
        }
    }
}

/// One listener is all the servers: a reader cannot tell.
fn servers(histograms: usize, is_narrowing: bool) -> SocketAddr {
    let page = |histograms| answer(&pages::Server { histograms, ..pages::Server::default() }.vllm());
    let (wide, narrow) = (page(histograms), if is_narrowing { page(0) } else { page(histograms) });
    println!(
        "pages of {} KB, {} KB when only what is needed is asked for",
        wide.len() / 1000,
        narrow.len() / 1000
    );
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            sender.send(listener.local_addr().expect("an address")).expect("it waits");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, wide.clone(), narrow.clone()));
            }
        });
    });
    receiver.recv().expect("an address")
}

fn endpoint(at: usize, address: SocketAddr) -> Endpoint {
    Endpoint {
        id: format!("server-{at}").into(),
        incarnation: 0,
        address,
        role: Role::Both,
        engine: Engine::Vllm,
        state: State::Ready,
        labels: std::sync::Arc::default(),
        place: Place::default(),
        metrics: MetricsPage { address, path: "/metrics".into() },
        kv_events: None,
    }
}

async fn read(address: SocketAddr, count: usize) {
    let (publisher, source) = source("bench");
    publisher.publish((0..count).map(|at| endpoint(at, address)).collect(), std::time::Instant::now());
    let (scraper, loads) = Scraper::new(
        source,
        ScrapeOptions { every: EVERY, ..ScrapeOptions::default() },
        &baton_process::Metrics::new(),
    );
    let until = CancellationToken::new();
    let measure = async {
        // The first round is of whole pages.
        sleep(SPAN / 2).await;
        let before = clock_gettime(ClockId::ThreadCPUTime);
        sleep(SPAN).await;
        let used = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime) - before).expect("time goes on");
        let now = std::time::Instant::now();
        let reports = loads.all();
        let healthy = reports.iter().filter(|(_, report)| report.health == Health::Healthy).count();
        let oldest = reports.iter().filter_map(|(_, report)| report.age(now)).max().unwrap_or_default();
        let share = used.as_secs_f64() / SPAN.as_secs_f64() * 100.0;
        println!(
            "{healthy} of {count} read each {EVERY:?}: {share:.1} % of a core; the oldest load is {oldest:.0?} old"
        );
        until.cancel();
    };
    tokio::join!(scraper.run(until.clone()), measure);
}

fn main() {
    // Cargo says --bench to benches that are to measure; tests only build this and look whether it starts.
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let count = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(if is_measured {
        SERVERS
    } else {
        0
    });
    for (histograms, is_narrowing) in [(90, true), (30, false)] {
        if count > 0 {
            let address = servers(histograms, is_narrowing);
            Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(read(address, count));
        }
    }
}
