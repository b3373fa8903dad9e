//! Messages to the gateway.

use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
    service::ext_proc::v3::{
        BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, ImmediateResponse,
        ProcessingResponse, StreamedBodyResponse, TrailersResponse, body_mutation::Mutation,
        processing_response::Response,
    },
    r#type::v3::HttpStatus,
};
use serde_json::json;

use crate::{
    Pick, Refusal,
    metadata::{self, DESTINATION},
};

/// Envoy takes body parts of at most 64 KiB with their framing.
const MOST_CHUNK_BYTES: usize = 62_000;

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Request,
    Answer,
}

/// The destination; and the new length, if the body is another.
pub(crate) fn placed(pick: &Pick) -> ProcessingResponse {
    let endpoints = pick.endpoints.join(",");
    let mut headers = vec![(DESTINATION.to_owned(), endpoints.clone())];
    headers.extend(pick.headers.iter().cloned());
    headers.extend(pick.body.as_ref().map(|body| ("content-length".to_owned(), body.len().to_string())));
    let common = CommonResponse {
        header_mutation: Some(set(headers)),
        clear_route_cache: true,
        ..CommonResponse::default()
    };
    ProcessingResponse {
        dynamic_metadata: Some(metadata::destination(&endpoints)),
        ..message(Response::RequestHeaders(HeadersResponse { response: Some(common) }))
    }
}

/// An answer's headers go on, with some more.
pub(crate) fn answer_headers(more: Vec<(String, String)>) -> ProcessingResponse {
    let mutation = (!more.is_empty()).then(|| set(more));
    let common = CommonResponse { header_mutation: mutation, ..CommonResponse::default() };
    message(Response::ResponseHeaders(HeadersResponse { response: Some(common) }))
}

/// A body in parts, the last of which ends it if `is_end`.
pub(crate) fn body(way: Way, body: &Bytes, is_end: bool) -> impl Iterator<Item = ProcessingResponse> {
    let parts = body.len().div_ceil(MOST_CHUNK_BYTES).max(1);
    let part = move |index: usize| {
        let start = index * MOST_CHUNK_BYTES;
        let end = body.len().min(start + MOST_CHUNK_BYTES);
        let streamed = StreamedBodyResponse {
            body: body[start..end].to_vec(),
            end_of_stream: is_end && index + 1 == parts,
            ..StreamedBodyResponse::default()
        };
        let mutation = BodyMutation { mutation: Some(Mutation::StreamedResponse(streamed)) };
        let common = CommonResponse { body_mutation: Some(mutation), ..CommonResponse::default() };
        body_message(way, common)
    };
    (0..parts).map(part)
}

/// A part of an answer's body goes on as it is, where the gateway keeps it meanwhile.
pub(crate) fn answer_body_unchanged() -> ProcessingResponse {
    body_message(Way::Answer, CommonResponse::default())
}

fn body_message(way: Way, common: CommonResponse) -> ProcessingResponse {
    let body = BodyResponse { response: Some(common) };
    message(match way {
        Way::Request => Response::RequestBody(body),
        Way::Answer => Response::ResponseBody(body),
    })
}

pub(crate) fn trailers(way: Way) -> ProcessingResponse {
    message(match way {
        Way::Request => Response::RequestTrailers(TrailersResponse::default()),
        Way::Answer => Response::ResponseTrailers(TrailersResponse::default()),
    })
}

/// The gateway is to answer by itself, with an error in OpenAI's shape.
pub(crate) fn refused(refusal: &Refusal) -> ProcessingResponse {
    let Refusal { status, kind, message: text, retry_after } = refusal;
    let error = json!({ "error": { "message": text, "type": kind, "param": null, "code": status } });
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    // A client that waits less than it was told is told again.
    headers.extend(retry_after.map(|wait| ("retry-after".to_owned(), wait.as_secs_f64().ceil().to_string())));
    message(Response::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus { code: i32::from(*status) }),
        headers: Some(set(headers)),
        body: error.to_string().into_bytes(),
        details: format!("baton_{kind}"),
        ..ImmediateResponse::default()
    }))
}

fn message(response: Response) -> ProcessingResponse {
    ProcessingResponse { response: Some(response), ..ProcessingResponse::default() }
}

fn set(headers: Vec<(String, String)>) -> HeaderMutation {
    let option = |(key, value): (String, String)| HeaderValueOption {
        header: Some(HeaderValue { key, raw_value: value.into_bytes(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    };
    HeaderMutation { set_headers: headers.into_iter().map(option).collect(), remove_headers: Vec::new() }
}
