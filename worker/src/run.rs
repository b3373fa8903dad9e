//! The life of a worker process.

use std::{
    error::Error as _,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use baton_engine::EngineState;
use baton_process::{Metrics, Readiness, Report, Shutdown, bind, serve_admin};
use baton_proto::{
    MAX_STREAMS,
    v1::{Role, WorkerInfo},
};
use baton_tls::{Listener, Tls};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

use crate::{
    Memberships, Registration, Rejected, RequestMetrics, RunError, Source, Worker, WorkerArgs,
    assemble::{Assembly, assemble},
    cache_events::KvEvents,
    collect::{self, Observed},
    identity,
    pairs::Pairs,
    warm_up,
};

/// Time for what was given up to let go of its blocks, and for connections to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The listeners of a worker and where they listen.
struct Listeners {
    grpc: TcpListener,
    admin: TcpListener,
    grpc_address: SocketAddr,
    admin_address: SocketAddr,
    /// Where sidecars reach the worker.
    endpoint: String,
}

/// Runs a worker of `role`, whose gRPC service `service` makes, until `shutdown`; then drains it.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    args: WorkerArgs,
    role: Role,
    service: impl FnOnce(Arc<Worker>) -> Routes,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    // Addresses first: what is wrong with them should be known before a model is loaded.
    let begun = Instant::now();
    let tls = Tls::load(&args.tls)?;
    let source = source(&args, role)?;
    let listeners = Listeners::bind(&args).await?;
    let events = KvEvents::start(&args).await?;
    let metrics = Metrics::of_process();
    tls.register(&metrics);
    let readiness = Readiness::not_yet("the model is being loaded");
    let mut servers: JoinSet<Result<(), RunError>> = JoinSet::new();
    let closing = CancellationToken::new();
    let Listeners { grpc, admin, grpc_address, admin_address, endpoint } = listeners;
    let admin = serve_admin(
        tls.http_listener(admin),
        metrics.clone(),
        readiness.clone(),
        closing.clone().cancelled_owned(),
    );
    servers.spawn(async move { admin.await.map_err(RunError::Admin) });

    let mut keepers = JoinSet::new();
    keepers.spawn(tls.clone().keep_fresh(closing.clone()));
    if let Some(publisher) = events.publisher {
        keepers.spawn(publisher.run(closing.clone()));
    }
    let started = async {
        let assembly = assemble(&args, role, events.observer).await?;
        readiness.set_not_ready("warming up");
        warm_up(&assembly.engine).await?;
        Ok::<_, RunError>(assembly)
    };
    let assembly = tokio::select! {
        assembly = started => assembly?,
        () = shutdown.triggered() => return Ok(()),
    };
    let Assembly { engine, node, model, kv_cache, vocab_size, grammars, adapters } = assembly;
    let adapters = Arc::new(adapters);
    let fabric = identity::fabric_info(node.fabric());
    report_listening(grpc_address, admin_address, &fabric.control_endpoint, &events.addresses);
    let pairs = (role == Role::Prefill).then(|| Arc::new(Pairs::new()));
    let observed = Observed { grammars: grammars.clone(), events: events.stats, adapters: adapters.clone() };
    collect::register(&metrics, engine.clone(), node.clone(), pairs.clone(), observed, &model.name);
    let request_metrics = RequestMetrics::register(&metrics, &model.name);
    let worker = Worker::new(engine, node, request_metrics, vocab_size);
    let worker = Arc::new(worker.with_grammars(grammars).with_adapters(adapters.clone()));
    servers.spawn(serve_grpc(tls.grpc_listener(grpc), service(worker.clone()), closing.clone()));

    let engine = identity::engine_info(worker.engine.config(), begun.elapsed());
    let admin_endpoint = reachable(admin_address, &endpoint);
    let hello = WorkerInfo {
        worker_id: args.worker_id.clone().unwrap_or_else(|| identity::default_worker_id(role)),
        incarnation: identity::incarnation(),
        role: role.into(),
        endpoint,
        serving_endpoint: String::new(),
        gateway_endpoint: String::new(),
        model: Some(model),
        kv_cache: Some(kv_cache),
        fabric: Some(fabric),
        admin_endpoint,
        pid: std::process::id(),
        // What they are when it joins is filled in then.
        adapters: None,
        labels: args.labels.iter().cloned().collect(),
        engine: Some(engine),
    };
    readiness.set_not_ready("not registered yet");
    let mut registration = Registration::new(hello, worker.clone(), readiness.clone()).over(tls.dial());
    if let Some(pairs) = pairs {
        keepers.spawn(pairs.clone().keep(worker.node.clone(), worker.stop.clone()));
        registration = registration.with_pairs(pairs);
    }
    registration = registration.with_cache(events.feeds);
    keepers.spawn(adapters.keep(worker.stop.clone()));
    let leave = CancellationToken::new();
    let mut members: JoinSet<Result<(), Rejected>> = JoinSet::new();
    members.spawn(Memberships::new(registration, source).run(leave.clone()));

    let outcome = tokio::select! {
        () = shutdown.triggered() => Ok(()),
        state = worker.engine.stopped() => Err(engine_failed(state)),
        failure = worker.node.failed() => Err(failure.into()),
        Some(ended) = servers.join_next() => ended.unwrap_or(Ok(())),
        Some(ended) = members.join_next() => ended.unwrap_or(Ok(())).map_err(RunError::Rejected),
    };
    readiness.set_not_ready(ending(&outcome));
    worker.draining.cancel();
    worker.calls.close();
    if outcome.is_ok() {
        drain(&worker, args.drain_timeout()).await;
    }
    worker.stop.cancel();
    if timeout(CLOSE_PATIENCE, worker.calls.wait()).await.is_err() {
        tracing::warn!(calls = worker.calls.len(), "calls did not end");
    }
    // Blocks that a transfer still holds come back here, while the engine is there to take them.
    worker.node.shutdown().await;
    leave.cancel();
    closing.cancel();
    let closed = timeout(CLOSE_PATIENCE, async {
        members.join_next().await;
        while servers.join_next().await.is_some() {}
        worker.engine.shutdown(baton_engine::Shutdown::Abort).await;
    });
    if closed.await.is_err() {
        tracing::debug!("connections still open were closed");
    }
    outcome
}

/// A decode worker joins through its sidecar, which knows the schedulers.
fn source(args: &WorkerArgs, role: Role) -> Result<Source, RunError> {
    let bad_registry = |reason| RunError::BadRegistry { value: args.registry.to_string(), reason };
    if role != Role::Decode {
        return Ok(Source::given(args.registry.clone()));
    }
    let sidecar =
        args.registry.only().ok_or_else(|| bad_registry("a decode worker joins one sidecar, HOST:PORT"))?;
    Source::sidecar(sidecar).map_err(|_| bad_registry("it is not HOST:PORT"))
}

/// Lets calls under way end.
async fn drain(worker: &Worker, patience: Duration) {
    let calls = worker.calls.len();
    if calls > 0 {
        tracing::info!(calls, "draining");
    }
    let ended = tokio::select! {
        ended = timeout(patience, worker.calls.wait()) => ended.is_ok(),
        _ = worker.engine.stopped() => true,
    };
    if !ended {
        tracing::warn!(
            calls = worker.calls.len(),
            ?patience,
            "not drained in time: calls under way are given up"
        );
    }
}

/// What whoever asks is told until the process has ended. A fault is for its supervisor to answer, with a new process.
fn ending(outcome: &Result<(), RunError>) -> String {
    let Err(error) = outcome else { return "shutting down".to_owned() };
    tracing::error!(%error, reason = error.source().map(tracing::field::display), "this worker ends by a fault");
    error.to_string()
}

fn engine_failed(state: EngineState) -> RunError {
    let reason = match state {
        EngineState::Stopped { reason, .. } => reason,
        EngineState::Serving | EngineState::Draining => "it stopped".to_owned(),
    };
    RunError::Engine { reason }
}

impl Listeners {
    async fn bind(args: &WorkerArgs) -> Result<Self, RunError> {
        let grpc = bind(args.listen, "--listen").await?;
        let admin = bind(args.admin_listen, "--admin-listen").await?;
        let (grpc_address, admin_address) = (grpc.local_addr()?, admin.local_addr()?);
        let endpoint = match &args.advertise {
            Some(advertise) => advertise.clone(),
            None if grpc_address.ip().is_unspecified() => {
                return Err(RunError::NoAdvertisedAddress { listen: args.listen });
            }
            None => grpc_address.to_string(),
        };
        Ok(Self { grpc, admin, grpc_address, admin_address, endpoint })
    }
}

/// Where others reach `listening`, on the host of `endpoint` when it listens on every address.
fn reachable(listening: SocketAddr, endpoint: &str) -> String {
    match endpoint.rsplit_once(':') {
        Some((host, _)) if listening.ip().is_unspecified() => format!("{host}:{}", listening.port()),
        _ => listening.to_string(),
    }
}

/// The transfer node's control endpoint is a port on some fabrics only.
fn report_listening(
    grpc: SocketAddr,
    admin: SocketAddr,
    control_endpoint: &str,
    events: &[(&'static str, SocketAddr)],
) {
    let mut listeners =
        std::collections::BTreeMap::from([("grpc".to_owned(), grpc), ("admin".to_owned(), admin)]);
    if let Some(transfer) = control_endpoint.strip_prefix("tcp:").and_then(|address| address.parse().ok()) {
        listeners.insert("transfer".to_owned(), transfer);
    }
    listeners.extend(events.iter().map(|(name, address)| ((*name).to_owned(), *address)));
    Report::Listening(listeners).print();
}

async fn serve_grpc(listener: Listener, routes: Routes, until: CancellationToken) -> Result<(), RunError> {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(Duration::from_secs(1)))
        .http2_keepalive_timeout(Some(Duration::from_secs(4)))
        .add_routes(routes)
        .serve_with_incoming_shutdown(listener.into_stream(), until.cancelled_owned())
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use baton_kv_transfer::DataPlaneFailed;

    use super::*;

    #[test]
    fn a_worker_whose_transfers_are_gone_is_not_ready_and_says_why_it_ends() {
        let failure = DataPlaneFailed { reason: "3 writes did not come back".to_owned() };
        let error = RunError::from(failure);
        let source = error.source().expect("a reason").to_string();
        assert_eq!(ending(&Err(error)), "kv-transfer failed");
        assert!(source.contains("3 writes did not come back") && source.contains("restart"), "{source}");
        assert_eq!(ending(&Ok(())), "shutting down");
    }
}
