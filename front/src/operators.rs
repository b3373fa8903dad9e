//! What operators and probes ask: decisions, traffic, workers, health, metrics. It needs no model, so that a scheduler which only picks
//! for gateways has it, too.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{Uri, header::CONTENT_TYPE},
    middleware,
    response::IntoResponse,
    routing::get,
    serve::Listener,
};
use baton_process::{Metrics, Readiness};
use baton_tenancy::Tenancy;
use serde_json::{Value, json};

use crate::{
    Generator, RequestLimits,
    access::{self, ClientAddr, Peers},
    api_error::ApiError,
    records, routes,
};

/// What its handlers need.
pub(crate) struct OperatorState {
    pub(crate) generator: Arc<dyn Generator>,
    pub(crate) tenancy: Tenancy,
    pub(crate) limits: RequestLimits,
    registry: Metrics,
    readiness: Readiness,
}

/// The HTTP front for operators and probes alone; a [`Front`](crate::Front) has the same paths.
pub struct OperatorFront(Arc<OperatorState>);

impl OperatorFront {
    /// `/ready` says no until `readiness` and the generator say yes; `/metrics` shows all of `registry`; `tenancy` says who is an
    /// operator.
    pub fn new(
        generator: Arc<dyn Generator>,
        registry: Metrics,
        readiness: Readiness,
        tenancy: Tenancy,
        limits: RequestLimits,
    ) -> Self {
        Self(Arc::new(OperatorState { generator, tenancy, limits, registry, readiness }))
    }

    /// Serves them until `stop`, as [`Front::serve`](crate::Front::serve); who asks for anything else is told that there is no model.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve<L: Listener<Addr = SocketAddr>>(
        &self,
        listener: L,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let paths = self.paths().fallback(async |uri: Uri| ApiError::no_model(uri.path()));
        serve(routes::finished(paths), listener, stop).await
    }

    /// Its paths.
    pub(crate) fn paths(&self) -> Router {
        let for_operators = Router::new()
            .route("/v1/workers", get(workers))
            .route("/v1/steps", get(steps))
            .merge(records::routes())
            .route_layer(middleware::from_fn_with_state(self.0.clone(), access::admins_only));
        for_operators
            .route("/health", get(async || "ok\n"))
            .route("/ready", get(ready))
            .route("/ready/pairs", get(ready_pairs))
            .route("/metrics", get(metrics))
            .route("/version", get(async || Json(json!({ "version": env!("CARGO_PKG_VERSION") }))))
            .with_state(self.0.clone())
    }
}

/// Serves until `stop`, then takes no new connections and returns when those that are open have ended.
pub(crate) async fn serve<L: Listener<Addr = SocketAddr>>(
    router: Router,
    listener: L,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router.into_make_service_with_connect_info::<ClientAddr>();
    axum::serve(Peers(listener), service).with_graceful_shutdown(stop).await
}

async fn ready(State(state): State<Arc<OperatorState>>) -> Result<&'static str, ApiError> {
    if let Err(reason) = state.readiness.check() {
        return Err(ApiError::not_ready(&[reason]));
    }
    state.generator.check_ready().map_err(|missing| ApiError::not_ready(&missing))?;
    Ok("ready\n")
}

/// As `/ready`, and every pair is connected or can never be; which those are is in the answer, a line each.
async fn ready_pairs(State(state): State<Arc<OperatorState>>) -> Result<String, ApiError> {
    ready(State(state.clone())).await?;
    let refused = state.generator.check_pairs().map_err(|open| ApiError::not_ready(&open))?;
    Ok(refused.iter().map(|pair| format!("{pair}\n")).collect())
}

async fn metrics(State(state): State<Arc<OperatorState>>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, OPEN_METRICS)], state.registry.encode())
}

async fn workers(State(state): State<Arc<OperatorState>>) -> Json<Value> {
    Json(json!({ "workers": state.generator.workers() }))
}

async fn steps(State(state): State<Arc<OperatorState>>) -> Json<Value> {
    Json(json!({ "workers": state.generator.steps() }))
}
