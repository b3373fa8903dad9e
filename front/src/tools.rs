//! `/tokenize` and `/detokenize`, in vLLM's shape.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use baton_tenancy::Call;
use serde_json::json;

use crate::{
    App, access,
    api_error::ApiError,
    body,
    fields::{InvalidField, token_ids},
    prompt,
    request::{PromptSource, adapter, take_chat_prompt, take_model},
};

pub(crate) async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Response {
    let answer = async |call: &mut Call, request| to_tokens(&app, call, request).await;
    access::counted(&app, "/tokenize", request, answer).await
}

pub(crate) async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Response {
    let answer = async |call: &mut Call, request| to_text(&app, call, request).await;
    access::counted(&app, "/detokenize", request, answer).await
}

async fn to_tokens(app: &App, call: &mut Call, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let mut fields = body::read_fields(&parts.headers, body, &app.config.limits).await?;
    let model = take_model(&mut fields, app, call)?;
    adapter(app, call.tenant(), &model)?;
    let with_strings = fields.boolean("return_token_strs")?.unwrap_or(false);
    let source = match fields.string("prompt")? {
        Some(text) => {
            PromptSource::Text { text, add_special: fields.boolean("add_special_tokens")?.unwrap_or(true) }
        }
        None => PromptSource::Chat(take_chat_prompt(&mut fields)?),
    };
    let ids = prompt::encode(app, source).await?;
    let spelling = |&id: &u32| app.tokenizer.spelling(id).unwrap_or_default();
    let strings = with_strings.then(|| ids.iter().map(spelling).collect::<Vec<_>>());
    let answer = json!({
        "count": ids.len(),
        "max_model_len": app.generator.context_tokens(),
        "tokens": ids,
        "token_strs": strings,
    });
    Ok(Json(answer).into_response())
}

async fn to_text(app: &App, call: &mut Call, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let mut fields = body::read_fields(&parts.headers, body, &app.config.limits).await?;
    let model = take_model(&mut fields, app, call)?;
    adapter(app, call.tenant(), &model)?;
    let Some(tokens) = fields.array("tokens")? else {
        return Err(InvalidField::new("tokens", "expected an array of token ids, got nothing").into());
    };
    let ids = token_ids(&tokens, "tokens", app.tokenizer.vocab_size())?;
    Ok(Json(json!({ "prompt": app.tokenizer.decode(&ids, false) })).into_response())
}
