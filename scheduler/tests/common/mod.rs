//! A scheduler in this process, with fake sidecars that join it through its real registry.
#![allow(dead_code, reason = "each test binary uses a part of it")]

#[path = "../../../front/tests/common/http.rs"]
mod http;
mod sidecar;
mod worker;

use std::{net::SocketAddr, path::Path};

use baton_process::{Metrics, Shutdown};
use baton_scheduler::{Config, Scheduler, SchedulerArgs, SchedulerError};
use clap::Parser;
use tokio::task::JoinHandle;

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use http::{Answer, EventReader, raw, send};
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use sidecar::{Call, FakeSidecar, Step, say, tokens};
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use worker::{FakeWorker, Pairing, connected, decode_info, prefill_info};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: SchedulerArgs,
}

/// The model that every test serves: the tokenizer crate's byte-level fixture, 256 tokens of context.
pub(crate) fn model_dir() -> String {
    "../tokenizer/tests/fixtures/byte-level".to_owned()
}

pub(crate) fn tokenizer() -> baton_tokenizer::Tokenizer {
    baton_tokenizer::Tokenizer::load(Path::new(&model_dir())).unwrap()
}

pub(crate) fn config(options: &[&str]) -> Config {
    let model = model_dir();
    let ports = [
        "--listen=127.0.0.1:0",
        "--registry-listen=127.0.0.1:0",
        "--served-model-name=tiny",
        "--model",
        &model,
    ];
    // Prompts are short here, and hand-overs are what is looked at.
    let is_aggregated = options.contains(&"--aggregated");
    let disaggregate = (!is_aggregated).then_some(&"--disaggregate=always");
    let all = ["test"].iter().chain(&ports).chain(disaggregate).chain(options);
    Config::from(&Command::parse_from(all).args)
}

pub(crate) struct TestScheduler {
    pub(crate) http: SocketAddr,
    pub(crate) registry: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) served: JoinHandle<Result<(), SchedulerError>>,
}

impl TestScheduler {
    pub(crate) async fn start(options: &[&str]) -> Self {
        let scheduler = Scheduler::bind(config(options), &Metrics::new()).await.unwrap();
        let (http, registry) = (scheduler.http_address().unwrap(), scheduler.registry_address().unwrap());
        let shutdown = Shutdown::manual();
        let served = tokio::spawn(scheduler.serve(shutdown.clone()));
        Self { http, registry, shutdown, served }
    }

    /// With one decode worker (its sidecar is returned) and one prefill worker.
    pub(crate) async fn with_pair(options: &[&str]) -> (Self, FakeSidecar, [FakeWorker; 2]) {
        let scheduler = Self::start(options).await;
        let sidecar = FakeSidecar::start().await;
        let decode = FakeWorker::join(&scheduler, decode_info("decode-0", sidecar.address)).await.unwrap();
        let prefill = FakeWorker::join(&scheduler, prefill_info("prefill-0")).await.unwrap();
        scheduler.connected(1).await;
        (scheduler, sidecar, [decode, prefill])
    }

    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        send(self.http, "POST", path, &[], body.to_string().as_bytes()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.http, "GET", path, &[], b"").await
    }

    /// Waits until so many pairs are connected.
    pub(crate) async fn connected(&self, pairs: usize) {
        let is_connected = |pair: &&serde_json::Value| pair["state"] == "connected";
        self.workers_until(|workers| {
            let workers = workers.as_array().unwrap();
            let all = workers.iter().filter_map(|worker| worker["pairs"].as_array()).flatten();
            all.filter(is_connected).count() == pairs
        })
        .await;
    }

    /// Waits until `/v1/workers` shows what `is_it` wants; bounded, and without sleeping: each look is a request.
    pub(crate) async fn workers_until(
        &self,
        is_it: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let look = async {
            loop {
                let workers = self.get("/v1/workers").await.json();
                if is_it(&workers["workers"]) {
                    return workers["workers"].clone();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), look)
            .await
            .expect("the fleet came to the expected state")
    }
}
