//! The life of a worker process, with a real model: it registers, shows its metrics, and leaves in good order.

use std::{net::SocketAddr, time::Duration};

use baton_kv_transfer::{
    FabricSpec, KvDtype, KvGeometry, KvLayout, KvOrder, KvPlacement, TensorParallel, TransferConfig,
    TransferNode,
};
use baton_prefill_worker::{Args, RunError, run};
use baton_process::Shutdown;
use baton_proto::v1::{
    RegistryReply, Role, WorkerInfo, WorkerReport,
    pair::{Refused, State},
    registry_reply::{Accepted, DecodeWorker, DecodeWorkers, Rejected, Reply},
    registry_server::{Registry, RegistryServer},
    worker_report::Report,
};
use clap::Parser;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

/// Only ever spent by a failing test.
const HANG: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// A registry that hands each membership to the test.
struct FakeRegistry(mpsc::Sender<Membership>);

struct Membership {
    reports: Streaming<WorkerReport>,
    replies: mpsc::Sender<Result<RegistryReply, Status>>,
}

#[tonic::async_trait]
impl Registry for FakeRegistry {
    type JoinStream = ReceiverStream<Result<RegistryReply, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<WorkerReport>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let (replies, stream) = mpsc::channel(4);
        let membership = Membership { reports: request.into_inner(), replies };
        self.0.send(membership).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Membership {
    async fn reply(&self, reply: Reply) {
        self.replies.send(Ok(RegistryReply { reply: Some(reply) })).await.unwrap();
    }

    async fn hello(&mut self) -> WorkerInfo {
        match self.report().await {
            Some(Report::Hello(hello)) => hello,
            other => panic!("not a hello: {other:?}"),
        }
    }

    /// Its next report of pairs.
    async fn pairs(&mut self) -> Vec<Option<State>> {
        loop {
            match self.report().await {
                Some(Report::Pairs(report)) => {
                    return report.pairs.into_iter().map(|pair| pair.state).collect();
                }
                Some(_) => {}
                None => panic!("it left"),
            }
        }
    }

    async fn decode_workers(&self, workers: Vec<DecodeWorker>) {
        self.reply(Reply::DecodeWorkers(DecodeWorkers { workers })).await;
    }

    /// `None`: the worker has left.
    async fn report(&mut self) -> Option<Report> {
        within(self.reports.message()).await.unwrap_or(None).map(|report| report.report.unwrap())
    }
}

struct Bed {
    address: SocketAddr,
    memberships: mpsc::Receiver<Membership>,
    server: JoinHandle<()>,
}

impl Bed {
    async fn registry(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, memberships) = mpsc::channel(4);
        let server = Server::builder().add_service(RegistryServer::new(FakeRegistry(sender)));
        let server =
            tokio::spawn(
                async move { server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() },
            );
        Self { address, memberships, server }
    }

    async fn membership(&mut self) -> Membership {
        within(self.memberships.recv()).await.unwrap()
    }
}

#[track_caller]
fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move { tokio::time::timeout(HANG, future).await.unwrap_or_else(|_| panic!("hangs at {caller}")) }
}

fn fixture(name: &str) -> String {
    format!("../engine/tests/fixtures/{name}")
}

fn start(model: &str, registry: SocketAddr, more: &[&str]) -> (Shutdown, JoinHandle<Result<(), RunError>>) {
    let registry = registry.to_string();
    let fixed = [
        "prefill-worker",
        "--model",
        model,
        "--worker-id",
        "prefill-7",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--kv-blocks",
        "64",
        "--dtype",
        "f32",
        "--threads",
        "1",
        "--registry",
        &registry,
    ];
    let args = Cli::parse_from(fixed.iter().chain(more)).args;
    let shutdown = Shutdown::manual();
    (shutdown.clone(), tokio::spawn(run(args, shutdown)))
}

/// Status and body.
async fn get(endpoint: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(endpoint).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_registers_says_what_it_is_and_leaves_when_told_to_stop() {
    let mut bed = Bed::registry("127.0.0.1:0").await;
    let (shutdown, served) = start(&fixture("llama3-f32"), bed.address, &["--served-model-name", "tiny"]);
    let mut membership = bed.membership().await;
    let hello = membership.hello().await;
    assert_eq!((hello.worker_id.as_str(), hello.role()), ("prefill-7", Role::Prefill));
    assert_eq!(hello.pid, std::process::id());
    let (model, kv_cache, fabric) = (hello.model.unwrap(), hello.kv_cache.unwrap(), hello.fabric.unwrap());
    assert_eq!((model.name.as_str(), model.dtype.as_str()), ("tiny", "f32"));
    assert_eq!((kv_cache.num_blocks, kv_cache.block_tokens), (64, 16));
    assert_eq!(fabric.name, "shm");
    assert!(!fabric.control_endpoint.is_empty());

    let (status, reason) = get(&hello.admin_endpoint, "/ready").await;
    assert_eq!(status, 503, "not before the scheduler took it: {reason}");
    membership.reply(Reply::Accepted(Accepted { ttl_ms: 1000 })).await;
    membership.decode_workers(Vec::new()).await;
    let load = loop {
        match membership.report().await {
            Some(Report::Load(load)) => break load,
            Some(Report::Pairs(report)) => assert_eq!(report.pairs, [], "nobody is there"),
            Some(Report::Cache(report)) => assert!(report.begins, "all that it has cached, which is nothing"),
            other => panic!("load follows the hello, not {other:?}"),
        }
    };
    assert_eq!((load.blocks_free, load.blocks_total, load.draining), (64, 64, false));
    within(async { while get(&hello.admin_endpoint, "/ready").await.0 != 200 {} }).await;

    let (_, metrics) = get(&hello.admin_endpoint, "/metrics").await;
    for line in [
        "vllm:num_requests_waiting{model_name=\"tiny\"} 0",
        "vllm:num_requests_running{model_name=\"tiny\"} 0",
        "vllm:kv_cache_usage_perc{model_name=\"tiny\"} 0",
        "vllm:cache_config_info{model_name=\"tiny\",block_size=\"16\",num_gpu_blocks=\"64\"} 1",
        "vllm:generation_tokens_total{model_name=\"tiny\"} ",
        "vllm:prompt_tokens_total{model_name=\"tiny\"} ",
        "vllm:time_to_first_token_seconds_bucket{",
        "baton_kv_blocks{state=\"free\"} 64",
        "baton_kv_blocks{state=\"cached\"} 0",
        "baton_kv_blocks{state=\"owned\"} 0",
        "baton_kv_blocks{state=\"held\"} 0",
        "baton_kv_blocks_in_use 0",
        "baton_prefix_cache_blocks 0",
        "baton_prefix_cache_evictions_total 0",
        "vllm:prefix_cache_hits_total{model_name=\"tiny\"} 0",
        "vllm:prefix_cache_queries_total{model_name=\"tiny\"} ",
        "baton_transfer_writes_sent_total 0",
        "baton_transfer_quarantined_blocks 0",
        "baton_fabric_info{fabric=\"shm\",provider=",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }

    shutdown.trigger();
    let mut told = false;
    while let Some(report) = membership.report().await {
        told |= matches!(report, Report::Load(load) if load.draining);
    }
    assert!(told, "the scheduler learns that it drains before it leaves");
    within(served).await.unwrap().unwrap();
}

/// As the registry names it.
fn decode_worker(id: &str, control_endpoint: &str, node_id: &[u8]) -> DecodeWorker {
    let (worker_id, control_endpoint) = (id.to_owned(), control_endpoint.to_owned());
    DecodeWorker { worker_id, incarnation: 1, control_endpoint, node_id: node_id.to_vec().into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_tries_each_decode_worker_before_it_is_ready_and_tells_what_came_of_it() {
    let layout = KvLayout {
        layers: 2,
        kv_heads: 1,
        head_dim: 8,
        block_tokens: 16,
        dtype: KvDtype::F32,
        placement: KvPlacement::Joined,
        order: KvOrder::Hnd,
        tensor_parallel: TensorParallel::SINGLE,
    };
    let other = TransferConfig::new(FabricSpec::Shm, KvGeometry { layout, blocks: 8 }, "another model");
    let other = TransferNode::start(other).await.unwrap();
    let mut bed = Bed::registry("127.0.0.1:0").await;
    let (shutdown, served) = start(&fixture("llama3-f32"), bed.address, &[]);
    let mut membership = bed.membership().await;
    let admin = membership.hello().await.admin_endpoint;
    membership.reply(Reply::Accepted(Accepted { ttl_ms: 1000 })).await;
    assert_eq!(membership.pairs().await, [], "nobody has said who is there");
    let (status, reason) = get(&admin, "/ready").await;
    assert_eq!((status, reason.trim()), (503, "not ready: connecting to the decode workers"));

    let node = other.fabric();
    let wrong = decode_worker("wrong", &node.control_endpoint, &node.node_id);
    let nobody = decode_worker("nobody", "unix:@baton-kv-nobody", &[1; 16]);
    membership.decode_workers(vec![wrong.clone(), nobody]).await;
    let states = loop {
        let states = membership.pairs().await;
        if states.len() == 2 {
            break states;
        }
    };
    let [Some(State::Unreachable(_)), Some(State::Refused(Refused { field, prefill_value, decode_value }))] =
        &states[..]
    else {
        panic!("by name: nobody cannot be reached, the other is refused: {states:?}")
    };
    assert_eq!((field.as_str(), decode_value.as_str()), ("model", "another model"));
    assert!(prefill_value.starts_with("revision "), "{prefill_value}");
    within(async { while get(&admin, "/ready").await.0 != 200 {} }).await;
    let (_, metrics) = get(&admin, "/metrics").await;
    for line in [
        "baton_transfer_pairs{state=\"connected\",field=\"\"} 0",
        "baton_transfer_pairs{state=\"refused\",field=\"model\"} 1",
        "baton_transfer_pairs{state=\"unreachable\",field=\"\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }

    // Who left is forgotten.
    membership.decode_workers(vec![wrong]).await;
    within(async { while membership.pairs().await.len() != 1 {} }).await;
    shutdown.trigger();
    within(served).await.unwrap().unwrap();
    other.shutdown().await;
}

/// As many seconds as it waits for a list that does not come: an older registry has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_wait_for_ever_for_the_list_of_decode_workers() {
    let mut bed = Bed::registry("127.0.0.1:0").await;
    let (shutdown, served) = start(&fixture("llama3-f32"), bed.address, &[]);
    let mut membership = bed.membership().await;
    let admin = membership.hello().await.admin_endpoint;
    membership.reply(Reply::Accepted(Accepted { ttl_ms: 1000 })).await;
    within(async { while get(&admin, "/ready").await.0 != 200 {} }).await;
    shutdown.trigger();
    within(served).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_worker_ends_with_the_schedulers_reason() {
    let mut bed = Bed::registry("127.0.0.1:0").await;
    let (_shutdown, served) = start(&fixture("llama3-f32"), bed.address, &[]);
    let membership = bed.membership().await;
    membership
        .reply(Reply::Rejected(Rejected { reason: "model.revision: a here, b there".to_owned() }))
        .await;
    let error = within(served).await.unwrap().unwrap_err();
    assert!(matches!(&error, RunError::Rejected(_)), "{error:?}");
    assert_eq!(error.to_string(), "the scheduler rejected worker prefill-7: model.revision: a here, b there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_comes_late_or_restarts_is_joined_without_help() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (shutdown, served) = start(&fixture("llama3-f32"), address, &[]);
    let mut first = Bed::registry(&address.to_string()).await;
    let mut membership = first.membership().await;
    let incarnation = membership.hello().await.incarnation;
    membership.reply(Reply::Accepted(Accepted { ttl_ms: 1000 })).await;
    let Bed { server, memberships, .. } = first;
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    // Its connections close with its memberships.
    drop((membership, memberships));

    let mut second = Bed::registry(&address.to_string()).await;
    assert_eq!(second.membership().await.hello().await.incarnation, incarnation);
    shutdown.trigger();
    within(served).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_at_the_start_is_named() {
    let registry = SocketAddr::from(([127, 0, 0, 1], 1));
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let model = fixture("llama3-f32");
    for (model, more, words) in [
        ("/nowhere", vec![], vec!["/nowhere"]),
        (&model, vec!["--max-context", "1000000000"], vec!["--max-context", "1000000000"]),
    ] {
        let (_shutdown, served) = start(model, registry, &more);
        let error = within(served).await.unwrap().unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let args = |listen, registry| {
        Cli::try_parse_from(["prefill-worker", "--model", &model, "--listen", listen, "--registry", registry])
    };
    let refused = args("127.0.0.1:0", "a b").map(|_| ()).unwrap_err().to_string();
    let in_use = args(&taken, "127.0.0.1:1").unwrap().args;
    let failed = within(run(in_use, Shutdown::manual())).await.unwrap_err().to_string();
    for (error, words) in [(refused, ["--registry", "a b"]), (failed, ["--listen", "in use"])] {
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
