//! gRPC's health service, by which gateways and Kubernetes tell whether a picker may be asked.

use std::time::Duration;

use tokio::{net::TcpListener, time};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Error, Server};
use tonic_health::{ServingStatus, server::health_reporter};

/// Names that it is asked by: all, and Envoy's name of the service.
const SERVICES: [&str; 2] = ["", "envoy.service.ext_proc.v3.ExternalProcessor"];
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
    let looking = async {
        let mut tick = time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            let is_ready = is_ready() && !stop.is_cancelled();
            let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in SERVICES {
                reporter.set_service_status(service, status).await;
            }
        }
    };
    tokio::select! {
        served = serving => served,
        () = looking => Ok(()),
    }
}
