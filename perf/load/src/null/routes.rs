//! What is answered to what.

use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::{Truth, answer::Answer, ask::Ask, head, ledger::Ledger, request::Request};
use crate::{ApiShape, clock::Stamp};

pub(super) enum Reply {
    /// All of it is written.
    Done {
        /// Whether it was a request for tokens.
        counts: bool,
    },
    /// It comes bit by bit.
    Answer(Box<Answer>),
}

/// Where what was really sent may be asked for: `/sent/REQUEST_ID`.
pub(crate) const SENT: &str = "/sent/";

/// The answer to `request`, before which there were `earlier` requests for tokens.
pub(super) fn reply(
    truth: &Truth,
    request: &Request,
    earlier: u64,
    now: Stamp,
    ledger: &Mutex<Ledger>,
    out: &mut Vec<u8>,
) -> Reply {
    let id = request.request_id.clone().unwrap_or_else(|| format!("null-{earlier}"));
    let path = request.path.split('?').next().unwrap_or_default();
    match (request.method.as_str(), path) {
        ("POST", "/v1/chat/completions") => {
            return generate(truth, ApiShape::Chat, request, id, earlier, now, out);
        }
        ("POST", "/v1/completions") => {
            return generate(truth, ApiShape::Completion, request, id, earlier, now, out);
        }
        ("GET", "/v1/models") => {
            let model = json!({ "id": truth.model, "object": "model", "created": 1, "owned_by": "null" });
            let list = json!({ "object": "list", "data": [model] });
            head::whole("200 OK", "application/json", &id, &list.to_string(), out);
        }
        ("GET", "/health") => head::whole("200 OK", "text/plain", &id, "ok\n", out),
        ("GET", path) if path.starts_with(SENT) => {
            let asked = &path[SENT.len()..];
            match ledger.lock().unwrap_or_else(PoisonError::into_inner).get(asked).map(serde_json::to_string)
            {
                Some(Ok(sent)) => head::whole("200 OK", "application/json", &id, &sent, out),
                _ => head::error("404 Not Found", &format!("nothing is known of request {asked}"), &id, out),
            }
        }
        (_, path) => head::error("404 Not Found", &format!("there is no {path} here"), &id, out),
    }
    Reply::Done { counts: false }
}

fn generate(
    truth: &Truth,
    shape: ApiShape,
    request: &Request,
    id: String,
    earlier: u64,
    now: Stamp,
    out: &mut Vec<u8>,
) -> Reply {
    let ask: Ask = match serde_json::from_slice(&request.body) {
        Ok(ask) => ask,
        Err(error) => {
            head::error("400 Bad Request", &format!("the body can't be read: {error}"), &id, out);
            return Reply::Done { counts: true };
        }
    };
    if ask.options().continuous_usage_stats && !truth.has_continuous_usage {
        let message = "stream_options: continuous_usage_stats is not permitted";
        head::error("400 Bad Request", message, &id, out);
        return Reply::Done { counts: true };
    }
    if truth.fails(earlier) {
        head::error("500 Internal Server Error", "this request fails, as was asked for", &id, out);
        return Reply::Done { counts: true };
    }
    Reply::Answer(Box::new(Answer::new(shape, &ask, id, truth.default_tokens, now)))
}
