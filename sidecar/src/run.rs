//! Wiring: listeners, services, and the order in which they end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use baton_process::{Metrics, Readiness, Shutdown, bind, report_listening, serve_admin};
use baton_proto::{
    MAX_MESSAGE_BYTES, MAX_STREAMS,
    v1::{
        generation_server::GenerationServer, membership_server::MembershipServer,
        registry_server::RegistryServer,
    },
};
use baton_tls::{Listener, Tls};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;

use crate::{
    Args, RunError,
    channels::Channels,
    generation::{GenerationService, Requests},
    http::{Directory, HttpFront},
    link::DecodeLink,
    metrics::SidecarMetrics,
    registry::{RegistryService, Relays},
};

/// Time for connections to close once every stream on them has ended.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a sidecar until `shutdown`, then drains it.
///
/// # Errors
/// [`RunError`].
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), RunError> {
    let sidecar = Sidecar::bind(args).await?;
    let http = sidecar.http_address().map(|http| ("http", http));
    report_listening([("grpc", sidecar.grpc), ("admin", sidecar.admin)].into_iter().chain(http));
    sidecar.serve(shutdown).await
}

/// A sidecar whose ports are bound.
pub struct Sidecar {
    /// Where it serves gRPC.
    pub grpc: SocketAddr,
    /// Where it serves metrics and health.
    pub admin: SocketAddr,
    args: Args,
    tls: Tls,
    serving_endpoint: String,
    grpc_listener: TcpListener,
    admin_listener: TcpListener,
    http: Option<HttpFront>,
}

impl Sidecar {
    /// Takes the ports.
    ///
    /// # Errors
    /// A port is taken, or nobody could reach the sidecar at the address given.
    pub async fn bind(args: Args) -> Result<Self, RunError> {
        let tls = Tls::load(&args.tls)?;
        let grpc_listener = bind(args.listen, "--listen").await?;
        let admin_listener = bind(args.admin_listen, "--admin-listen").await?;
        let (grpc, admin) = (grpc_listener.local_addr()?, admin_listener.local_addr()?);
        let serving_endpoint = match &args.advertise {
            Some(advertise) => advertise.clone(),
            None if grpc.ip().is_unspecified() => {
                return Err(RunError::NoAdvertisedAddress { listen: args.listen });
            }
            None => grpc.to_string(),
        };
        let http = HttpFront::bind(&args).await?;
        Ok(Self { grpc, admin, args, tls, serving_endpoint, grpc_listener, admin_listener, http })
    }

    /// Where it serves OpenAI's API, if it does.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.address)
    }

    /// Serves until `shutdown`, then takes no new requests, lets those in flight end up to the drain deadline, and returns.
    ///
    /// # Errors
    /// A server failed.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), RunError> {
        let Self { grpc, args, tls, serving_endpoint, grpc_listener, admin_listener, http, .. } = self;
        let metrics = Metrics::of_process();
        tls.register(&metrics);
        let readiness = Readiness::not_yet("no decode worker has joined");
        let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
        let link = DecodeLink::default();
        let requests = Arc::new(Requests {
            link: link.clone(),
            channels: Channels::over(tls.dial()),
            limits: args.request_limits(),
            slots: Semaphore::new(args.max_requests),
            max_requests: args.max_requests,
            metrics: SidecarMetrics::register(&metrics),
            tasks: TaskTracker::new(),
            draining: draining.clone(),
            stop: stop.clone(),
        });
        let (list, schedulers) = watch::channel(args.registry.now());
        let gateway_endpoint = http.as_ref().map(|http| reachable(http.address, &serving_endpoint));
        let relays = Arc::new(Relays {
            link,
            schedulers: schedulers.clone(),
            dial: tls.dial(),
            serving_endpoint,
            gateway_endpoint: gateway_endpoint.unwrap_or_default(),
            readiness: readiness.clone(),
            tasks: TaskTracker::new(),
            draining: draining.clone(),
            stop: stop.clone(),
        });
        relays.tasks.spawn(args.registry.clone().keep(list, stop.clone()));
        tracing::info!(%grpc, registry = %args.registry, "sidecar listens");

        let mut servers = JoinSet::new();
        let closing = CancellationToken::new();
        let grpc_listener = tls.grpc_listener(grpc_listener);
        servers.spawn(serve_grpc(grpc_listener, requests.clone(), relays.clone(), closing.clone()));
        if let Some(http) = http {
            let directory = Directory::default();
            relays.tasks.spawn(directory.clone().follow(schedulers, tls.dial(), stop.clone()));
            let front = http.over(requests.clone(), directory, &metrics, &readiness);
            servers.spawn(front.serve(tls.clone(), closing.clone()));
        }
        let admin = serve_admin(
            tls.http_listener(admin_listener),
            metrics,
            readiness.clone(),
            closing.clone().cancelled_owned(),
        );
        servers.spawn(async move { admin.await.map_err(RunError::Admin) });
        let fresh = tls.keep_fresh(closing.clone());
        servers.spawn(async move {
            fresh.await;
            Ok(())
        });

        let fault = tokio::select! {
            () = shutdown.triggered() => None,
            Some(ended) = servers.join_next() => Some(ended),
        };
        draining.cancel();
        readiness.set_not_ready("shutting down");
        requests.tasks.close();
        relays.tasks.close();
        if fault.is_none() && tokio::time::timeout(args.drain_timeout, requests.tasks.wait()).await.is_err() {
            tracing::warn!(
                requests = requests.tasks.len(),
                "drain deadline passed: requests in flight are given up"
            );
        }
        stop.cancel();
        closing.cancel();
        let ended = tokio::time::timeout(CLOSE_PATIENCE, async {
            requests.tasks.wait().await;
            relays.tasks.wait().await;
            while servers.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::debug!("connections still open were closed");
        }
        match fault {
            Some(Ok(Err(error))) => Err(error),
            Some(Ok(Ok(())) | Err(_)) | None => Ok(()),
        }
    }
}

async fn serve_grpc(
    listener: Listener,
    requests: Arc<Requests>,
    relays: Arc<Relays>,
    until: CancellationToken,
) -> Result<(), RunError> {
    let generation = GenerationServer::new(GenerationService(requests))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let registry = RegistryService(relays);
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(Duration::from_secs(1)))
        .http2_keepalive_timeout(Some(Duration::from_secs(4)))
        .add_service(generation)
        .add_service(MembershipServer::new(registry.clone()))
        .add_service(RegistryServer::new(registry).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .serve_with_incoming_shutdown(listener.into_stream(), until.cancelled_owned())
        .await?;
    Ok(())
}

/// Where others reach `listening`, on the host of `endpoint` when it listens on every address.
fn reachable(listening: SocketAddr, endpoint: &str) -> String {
    match endpoint.rsplit_once(':') {
        Some((host, _)) if listening.ip().is_unspecified() => format!("{host}:{}", listening.port()),
        _ => listening.to_string(),
    }
}
