//! A front in this process, over a generator that does as it is told.
#![allow(dead_code, reason = "each test binary uses a part of it")]

mod generator;
mod http;
mod keys;
mod upstream;

use std::{net::SocketAddr, path::Path, sync::Arc};

use baton_front::{Edge, Front, FrontArgs, FrontConfig, FrontMetrics, ModelText};
use baton_process::{Metrics, Readiness};
use clap::Parser;
use tokio::{net::TcpListener, task::JoinHandle};

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use generator::{Call, FakeGenerator, Step, Told, say, tokens};
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use http::{Answer, EventReader, raw, send};
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use keys::Keys;
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use upstream::{FakeUpstream, Heard, Reply};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: FrontArgs,
}

/// The model that every test serves: the tokenizer crate's byte-level fixture, 256 tokens of context.
const MODEL: &str = "../tokenizer/tests/fixtures/byte-level";

pub(crate) fn tokenizer() -> baton_tokenizer::Tokenizer {
    baton_tokenizer::Tokenizer::load(Path::new(MODEL)).unwrap()
}

pub(crate) fn config(options: &[&str]) -> FrontConfig {
    let line = ["test", "--served-model-name=tiny"];
    FrontConfig::new(Some(Path::new(MODEL)), &Command::parse_from(line.iter().chain(options)).args)
}

pub(crate) struct TestFront {
    pub(crate) http: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
}

impl TestFront {
    /// A front, and the test's hand on what generates for it.
    pub(crate) async fn start(options: &[&str]) -> (Self, Told) {
        Self::over(FakeGenerator::new(), options).await
    }

    pub(crate) async fn over(generator: (FakeGenerator, Told), options: &[&str]) -> (Self, Told) {
        Self::behind(Edge::open(), Metrics::new(), generator, options).await
    }

    /// A front behind `edge`, which counts in `registry`.
    pub(crate) async fn behind(
        edge: Edge,
        registry: Metrics,
        (generator, told): (FakeGenerator, Told),
        options: &[&str],
    ) -> (Self, Told) {
        let config = config(options);
        let text = ModelText::load(Path::new(MODEL), &config).await.unwrap();
        let metrics = FrontMetrics::new(&registry, "baton_test", "tiny", config.limits.max_inflight);
        let readiness = Readiness::not_yet("");
        readiness.set_ready();
        let front = Front::new(config, text, Arc::new(generator), metrics, registry, readiness, edge);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { front.serve(listener, std::future::pending()).await });
        (Self { http, serving }, told)
    }

    /// A front that asks for `keys`.
    pub(crate) async fn with_keys(keys: &Keys) -> (Self, Told) {
        Self::behind(keys.edge(), keys.metrics.clone(), FakeGenerator::new(), &[]).await
    }

    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        send(self.http, "POST", path, &[], body.to_string().as_bytes()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.http, "GET", path, &[], b"").await
    }
}

impl Drop for TestFront {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
