//! OpenAI's HTTP API on the sidecar itself, for gateways that choose the decode worker and send the client's request to it.
//!
//! The front is the scheduler's own; what generates is this sidecar, the same way as for a request that comes by gRPC.

mod directory;
mod generator;
mod targets;

use std::{net::SocketAddr, sync::Arc};

use baton_front::{Edge, Front, FrontConfig, FrontMetrics, ModelText};
use baton_process::{Metrics, Readiness, bind};
use baton_tls::Tls;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use directory::Directory;

use crate::{Args, RunError, generation::Requests};
use generator::SidecarGenerator;

/// What begins the names of its metrics.
const PREFIX: &str = "baton_sidecar_http";

/// A front whose port is bound and whose model is read.
pub(crate) struct HttpFront {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    config: FrontConfig,
    text: ModelText,
}

impl HttpFront {
    /// Takes the port and reads the model's tokenizer; `None` when no such front was asked for.
    pub(crate) async fn bind(args: &Args) -> Result<Option<Self>, RunError> {
        let (Some(listen), Some(model)) = (args.http_listen, &args.model) else { return Ok(None) };
        let config = FrontConfig::new(Some(model), &args.front);
        let text = ModelText::load(model, &config).await?;
        let listener = bind(listen, "--http-listen").await?;
        Ok(Some(Self { address: listener.local_addr()?, listener, config, text }))
    }

    /// The front over this sidecar's requests.
    pub(crate) fn over(
        self,
        requests: Arc<Requests>,
        directory: Directory,
        metrics: &Metrics,
        readiness: &Readiness,
    ) -> Bound {
        let Self { address, listener, config, text } = self;
        tracing::info!(http = %address, model = config.shown_name(), "sidecar serves HTTP");
        let counted = FrontMetrics::new(metrics, PREFIX, config.shown_name(), config.limits.max_inflight);
        let generator = Arc::new(SidecarGenerator::new(requests, directory, &config, &text));
        Bound {
            // Who may ask is the gateway's to decide.
            front: Front::new(
                config,
                text,
                generator,
                counted,
                metrics.clone(),
                readiness.clone(),
                Edge::open(),
            ),
            listener,
        }
    }
}

/// A front, ready to serve.
pub(crate) struct Bound {
    front: Front,
    listener: TcpListener,
}

impl Bound {
    pub(crate) async fn serve(self, tls: Tls, until: CancellationToken) -> Result<(), RunError> {
        Ok(self.front.serve(tls.front_listener(self.listener), until.cancelled_owned()).await?)
    }
}
