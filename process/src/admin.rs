//! `/metrics`, `/health` and `/ready`, the endpoints that every process has.

use std::{future::Future, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
    serve::Listener,
};

use crate::{Metrics, Readiness, metrics};

/// Routes for `/metrics`, `/health` (200 while the process runs) and `/ready` (200, or 503 with the reason).
pub fn admin_router(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .with_state(metrics)
        .route("/health", get(async || "ok\n"))
        .merge(Router::new().route("/ready", get(show_ready)).with_state(readiness))
}

/// Serves [`admin_router`] on `listener` until `until` is done.
///
/// # Errors
/// When the listener fails.
pub async fn serve_admin(
    listener: impl Listener<Addr = SocketAddr>,
    metrics: Metrics,
    readiness: Readiness,
    until: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, admin_router(metrics, readiness)).with_graceful_shutdown(until).await
}

async fn show_metrics(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.encode())
}

async fn show_ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    match readiness.check() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}
