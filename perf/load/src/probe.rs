//! What a server offers, found out before a run, so that no request of the run is spent on it.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use crate::{
    Extras, Manner, Message, Prompt, Target,
    chunk::error_message,
    fetch::{FetchError, fetch},
    http::Pool,
};

/// A server cannot be put under load.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It does not answer.
    #[error("{target} does not answer ({why}): is the server up, and is this its URL?")]
    Unreachable {
        /// Where.
        target: Target,
        /// What happened.
        why: String,
    },
    /// It names no model.
    #[error("{target} names no model at /v1/models ({why}): name one with --model")]
    NoModel {
        /// Where.
        target: Target,
        /// What it said.
        why: String,
    },
    /// It refuses the simplest request.
    #[error("{target} refuses a request for two tokens with status {status}: {message}")]
    Refused {
        /// Where.
        target: Target,
        /// Its status.
        status: u16,
        /// What it said.
        message: String,
    },
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// The first model that the server names.
pub(crate) async fn model(
    pool: &Arc<Pool>,
    manner: &Manner,
    patience: Duration,
) -> Result<String, ProbeError> {
    let target = pool.target();
    let request = manner.get(target, "/v1/models");
    let fetched = fetch(pool, &request, patience).await.map_err(|error| unreachable(target, &error))?;
    let no_model = |why: String| ProbeError::NoModel { target: target.clone(), why };
    if fetched.status != 200 {
        return Err(no_model(format!("status {}: {}", fetched.status, error_message(&fetched.body))));
    }
    let models: Models =
        serde_json::from_slice(&fetched.body).map_err(|error| no_model(error.to_string()))?;
    let first = models.data.into_iter().next();
    first.map(|model| model.id).ok_or_else(|| no_model("its list is empty".to_owned()))
}

/// The most of `manner.extras` that the server takes; a request for two tokens is sent for each attempt.
pub(crate) async fn extras(
    pool: &Arc<Pool>,
    manner: &Manner,
    patience: Duration,
) -> Result<Extras, ProbeError> {
    let target = pool.target();
    let wanted = manner.extras;
    let mut tried: Vec<Extras> = Vec::new();
    let mut refused = None;
    for step in Extras::LADDER {
        let extras = Extras {
            usage: step.usage && wanted.usage,
            continuous_usage: step.continuous_usage && wanted.continuous_usage && wanted.usage,
            ignore_eos: step.ignore_eos && wanted.ignore_eos,
        };
        if tried.contains(&extras) {
            continue;
        }
        tried.push(extras);
        let attempt = Manner { extras, ..manner.clone() };
        let prompt = Prompt::Messages(vec![Message { role: "user", content: "Hello".to_owned() }]);
        let request = attempt.request(target, "baton-probe", prompt, 2);
        let fetched = fetch(pool, &request, patience).await.map_err(|error| unreachable(target, &error))?;
        match fetched.status {
            200..300 => return Ok(extras),
            status => {
                let message = error_message(&fetched.body);
                let error = ProbeError::Refused { target: target.clone(), status, message };
                // Other fields change nothing about other statuses.
                if !matches!(status, 400 | 422) {
                    return Err(error);
                }
                refused = Some(error);
            }
        }
    }
    refused.map_or(Ok(wanted), Err)
}

fn unreachable(target: &Target, error: &FetchError) -> ProbeError {
    ProbeError::Unreachable { target: target.clone(), why: error.to_string() }
}
