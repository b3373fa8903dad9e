//! Adapters in the model list; and loading and unloading them at run time, in vLLM's shape.
//!
//! Loading reads folders on the workers' machines that the caller names. So there are no such paths unless the operator has said
//! so.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    routing::post,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    App, body,
    error::ApiError,
    fields::{Fields, InvalidField},
};
use crate::fleet::ServedAdapter;

/// For workers to read an adapter; one that takes longer is withdrawn.
const LOAD_PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/load_lora_adapter", post(load)).route("/v1/unload_lora_adapter", post(unload))
}

/// As a model whose parent is the served one.
pub(super) fn describe(app: &App, adapter: &ServedAdapter) -> Value {
    json!({
        "id": adapter.name,
        "object": "model",
        "created": app.started_at,
        "owned_by": "baton",
        "root": adapter.path,
        "parent": app.config.served_model_names.first(),
        "max_model_len": app.fleet.context_tokens(),
    })
}

async fn load(State(app): State<Arc<App>>, request: Request) -> Result<String, ApiError> {
    let mut fields = read(&app, request).await?;
    let (name, path) = (required(&mut fields, "lora_name")?, required(&mut fields, "lora_path")?);
    if fields.boolean("load_inplace")?.unwrap_or(false) {
        return Err(InvalidField::new("load_inplace", "not supported: unload the adapter first").into());
    }
    if app.config.served_model_names.contains(&name) {
        return Err(InvalidField::new("lora_name", format!("{name:?} is the model's own name")).into());
    }
    if app.fleet.members().is_empty() {
        return Err(ApiError::not_ready(&["no worker has joined".to_owned()]));
    }
    let number = app.fleet.order_load(&name, &path)?;
    let withdrawal = Withdrawal { app: &app, name: &name, is_due: true };
    let problems = match timeout(LOAD_PATIENCE, app.fleet.carried_out(number)).await {
        Ok(problems) => problems,
        Err(_) => vec![format!("not loaded within {} s", LOAD_PATIENCE.as_secs())],
    };
    if !problems.is_empty() {
        return Err(ApiError::invalid(problems.join("; ")).param("lora_path"));
    }
    let revisions = app.fleet.revisions_of(&name);
    if revisions.len() > 1 {
        let message = format!("the workers read different adapters from {path}: revisions {revisions:?}");
        return Err(ApiError::invalid(message).param("lora_path"));
    }
    withdrawal.forget();
    tracing::info!(adapter = name, path, "adapter loaded on all workers");
    Ok(format!("Success: LoRA adapter '{name}' added successfully."))
}

async fn unload(State(app): State<Arc<App>>, request: Request) -> Result<String, ApiError> {
    let mut fields = read(&app, request).await?;
    let name = required(&mut fields, "lora_name")?;
    let number = app.fleet.order_unload(&name)?;
    // Whoever is slow does it later; the order stands.
    let _ = timeout(LOAD_PATIENCE, app.fleet.carried_out(number)).await;
    tracing::info!(adapter = name, "adapter unloaded");
    Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
}

async fn read(app: &App, request: Request) -> Result<Fields, ApiError> {
    let (parts, body) = request.into_parts();
    body::read_fields(&parts.headers, body, &app.config.limits).await
}

fn required(fields: &mut Fields, name: &str) -> Result<String, ApiError> {
    match fields.string(name)?.filter(|text| !text.is_empty()) {
        Some(text) => Ok(text),
        None => Err(InvalidField::new(name, "expected a string, got nothing").into()),
    }
}

/// All workers have an adapter or none: takes the order back when dropped before it was carried out everywhere, also when the
/// client has gone.
struct Withdrawal<'a> {
    app: &'a App,
    name: &'a str,
    is_due: bool,
}

impl Withdrawal<'_> {
    fn forget(mut self) {
        self.is_due = false;
    }
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        if self.is_due {
            // There is room for it: it takes the place of the order to load.
            let _ = self.app.fleet.order_unload(self.name);
        }
    }
}
