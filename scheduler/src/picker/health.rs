//! gRPC's health service, by which gateways and Kubernetes tell whether a picker may be asked.

use std::time::Duration;

use tokio::{net::TcpListener, time};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Error, Server};
use tonic_health::{ServingStatus, server::health_reporter};

/// Says whether there is anybody to choose: the endpoint picker protocol's names, and the one that is asked when none is.
const READY: [&str; 3] = ["", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"];
/// Says whether the process works. The second is by what charts for pickers ask before Kubernetes restarts one, which must not happen
/// while the servers are still reading their weights.
const ALIVE: [&str; 2] = ["liveness", "inference-extension"];
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Serves until `stop`; what it says is what `is_ready` says.
pub(crate) async fn serve_health(
    listener: TcpListener,
    is_ready: impl Fn() -> bool + Send,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (reporter, service) = health_reporter();
    let serving = Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
    for service in ALIVE {
        reporter.set_service_status(service, ServingStatus::Serving).await;
    }
    let looking = async {
        let mut tick = time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            let is_ready = is_ready() && !stop.is_cancelled();
            let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in READY {
                reporter.set_service_status(service, status).await;
            }
        }
    };
    tokio::select! {
        served = serving => served,
        () = looking => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use tonic::transport::Channel;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    use super::*;

    /// Waits until it says this of all of these.
    async fn are(client: &HealthClient<Channel>, services: &[&str], wanted: ServingStatus) {
        for service in services {
            let request = HealthCheckRequest { service: (*service).to_owned() };
            let mut told = client.clone().watch(request).await.unwrap().into_inner();
            while told.message().await.unwrap().unwrap().status() != wanted.into() {}
        }
    }

    #[tokio::test]
    async fn a_picker_without_anybody_to_choose_is_alive_and_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (has_anybody, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let asked = has_anybody.clone();
        let serving =
            tokio::spawn(serve_health(listener, move || asked.load(Ordering::Relaxed), stop.clone()));
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        let client = HealthClient::new(channel);
        are(&client, &READY, ServingStatus::NotServing).await;
        are(&client, &ALIVE, ServingStatus::Serving).await;
        has_anybody.store(true, Ordering::Relaxed);
        are(&client, &READY, ServingStatus::Serving).await;
        let stranger = HealthCheckRequest { service: "somebody-else".to_owned() };
        assert!(client.clone().check(stranger).await.is_err());
        drop(client);
        stop.cancel();
        serving.await.unwrap().unwrap();
    }
}
