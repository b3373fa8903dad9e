//! Adapters in the model list; and loading and unloading them at run time, in vLLM's shape.
//!
//! Loading reads folders on the workers' machines that the caller names. So there are no such paths unless the operator has said
//! so, and only operators may ask for them.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use baton_tenancy::Call;
use serde_json::{Value, json};

use crate::{
    App, ServedAdapter, access,
    api_error::ApiError,
    body,
    fields::{Fields, InvalidField},
};

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/load_lora_adapter", post(load)).route("/v1/unload_lora_adapter", post(unload))
}

/// As a model whose parent is the served one.
pub(crate) fn describe(app: &App, adapter: &ServedAdapter) -> Value {
    json!({
        "id": adapter.name,
        "object": "model",
        "created": app.started_at,
        "owned_by": "baton",
        "root": adapter.path,
        "parent": app.config.served_model_names.first(),
        "max_model_len": app.generator.context_tokens(),
    })
}

async fn load(State(app): State<Arc<App>>, request: Request) -> Response {
    let answer = async |call: &mut Call, request| Ok(load_one(&app, call, request).await?.into_response());
    access::counted(&app, "/v1/load_lora_adapter", request, answer).await
}

async fn unload(State(app): State<Arc<App>>, request: Request) -> Response {
    let answer = async |call: &mut Call, request| Ok(unload_one(&app, call, request).await?.into_response());
    access::counted(&app, "/v1/unload_lora_adapter", request, answer).await
}

async fn load_one(app: &App, call: &mut Call, request: Request) -> Result<String, ApiError> {
    let mut fields = read(app, request).await?;
    let name = required(&mut fields, "lora_name")?;
    call.admin(&name)?;
    let path = required(&mut fields, "lora_path")?;
    if fields.boolean("load_inplace")?.unwrap_or(false) {
        return Err(InvalidField::new("load_inplace", "not supported: unload the adapter first").into());
    }
    if app.config.served_model_names.contains(&name) {
        return Err(InvalidField::new("lora_name", format!("{name:?} is the model's own name")).into());
    }
    app.generator.load_adapter(&name, &path).await?;
    tracing::info!(adapter = name, path, "adapter loaded on all workers");
    Ok(format!("Success: LoRA adapter '{name}' added successfully."))
}

async fn unload_one(app: &App, call: &mut Call, request: Request) -> Result<String, ApiError> {
    let mut fields = read(app, request).await?;
    let name = required(&mut fields, "lora_name")?;
    call.admin(&name)?;
    app.generator.unload_adapter(&name).await?;
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
