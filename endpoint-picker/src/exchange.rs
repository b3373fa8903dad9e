//! The protocol of one request, without I/O: messages in, messages out, and one question in between.
//!
//! ```text
//! headers ─► body … ─► end ─► Step::Pick ─► Exchange::placed ─► headers, body, trailers go on
//!                                     └─► refused: the gateway answers by itself
//! answer's headers ─► its body, part by part ─► its trailers: each goes on at once
//! ```

use bytes::{Bytes, BytesMut};
use envoy_types::pb::envoy::{
    config::core::v3::Metadata,
    extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
    service::ext_proc::v3::{
        HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse, ProtocolConfiguration,
        processing_request::Request as Message,
    },
};

use crate::{
    Headers, Pick, PickRequest, Refusal, Response, Watch, conformance, metadata,
    reply::{self, Way},
};

/// Bounds, and what is switched on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest request body; longer ones are refused with 413.
    pub body_bytes: usize,
    /// Obey the header by which the Inference Extension's conformance tests choose, and show them who served. Clients could choose
    /// endpoints so: for tests alone.
    pub conformance: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: 32 << 20, conformance: false }
    }
}

/// What follows from a message.
pub(crate) enum Step {
    /// These replies, maybe none.
    Reply(Vec<ProcessingResponse>),
    /// Somebody is to choose; then [`Exchange::placed`].
    Pick(PickRequest),
    /// The gateway does not keep to the protocol: what it did.
    Broken(&'static str),
}

/// One request.
pub(crate) struct Exchange {
    limits: Limits,
    phase: Phase,
    /// How the gateway sends the answer's body.
    answer_mode: BodySendMode,
    /// The first of those that were chosen, for conformance tests.
    selected: Option<String>,
    watch: Option<Box<dyn Watch>>,
}

enum Phase {
    Start,
    Reading { request: PickRequest, body: BytesMut },
    Picking { body: Option<Bytes>, has_trailers: bool },
    Placed,
    Over,
}

impl Exchange {
    pub(crate) fn new(limits: Limits) -> Self {
        let answer_mode = BodySendMode::FullDuplexStreamed;
        Self { limits, phase: Phase::Start, answer_mode, selected: None, watch: None }
    }

    /// Whether nothing is waited for any more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    pub(crate) fn take(&mut self, message: ProcessingRequest) -> Step {
        let ProcessingRequest { metadata_context, protocol_config, request, .. } = message;
        let metadata = metadata_context.as_ref();
        match (request, std::mem::replace(&mut self.phase, Phase::Over)) {
            (Some(Message::RequestHeaders(headers)), Phase::Start) => {
                self.begin(headers, metadata, protocol_config)
            }
            (Some(Message::RequestBody(part)), Phase::Reading { request, body }) => {
                self.read(part, request, body)
            }
            (Some(Message::RequestTrailers(_)), Phase::Reading { request, body }) => {
                self.ask(request, Some(body.freeze()), true)
            }
            (Some(Message::ResponseHeaders(headers)), Phase::Placed) => self.answer(headers, metadata),
            (Some(Message::ResponseBody(part)), Phase::Placed) => self.answer_body(part),
            (Some(Message::ResponseTrailers(_)), Phase::Placed) => {
                self.end();
                Step::Reply(vec![reply::trailers(Way::Answer)])
            }
            // Of a request that was refused; from a newer gateway.
            (_, Phase::Over) | (None, _) => Step::Reply(Vec::new()),
            (_, Phase::Start) => Step::Broken("the first message has no request headers"),
            (_, Phase::Reading { .. }) => Step::Broken("something came between parts of a request body"),
            (_, Phase::Picking { .. }) => Step::Broken("a message came while an endpoint was chosen"),
            (_, Phase::Placed) => Step::Broken("a part of the request came after its end"),
        }
    }

    /// What came of [`Step::Pick`].
    pub(crate) fn placed(&mut self, outcome: Result<Pick, Refusal>) -> Vec<ProcessingResponse> {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        let Phase::Picking { body, has_trailers } = phase else { return Vec::new() };
        let mut pick = match outcome {
            Ok(pick) if !pick.endpoints.is_empty() => pick,
            Ok(_) => return vec![reply::refused(&internal("the picker chose no endpoint"))],
            Err(refusal) => return vec![reply::refused(&refusal)],
        };
        if self.limits.conformance {
            self.selected = pick.endpoints.first().cloned();
            pick.headers.extend(self.selected.as_deref().map(conformance::request_header));
        }
        let mut replies = vec![reply::placed(&pick)];
        if let Some(body) = body {
            replies.extend(reply::body(Way::Request, pick.body.as_ref().unwrap_or(&body), !has_trailers));
        }
        if has_trailers {
            replies.push(reply::trailers(Way::Request));
        }
        self.watch = Some(pick.watch);
        self.phase = Phase::Placed;
        replies
    }

    fn begin(
        &mut self,
        headers: HttpHeaders,
        metadata: Option<&Metadata>,
        config: Option<ProtocolConfiguration>,
    ) -> Step {
        // Gateways that do not say so speak the newest they know, which is the one that this needs.
        let config = config.map(|config| (config.request_body_mode(), config.response_body_mode()));
        let (request_mode, answer_mode) =
            config.unwrap_or((BodySendMode::FullDuplexStreamed, BodySendMode::FullDuplexStreamed));
        self.answer_mode = answer_mode;
        let is_end = headers.end_of_stream;
        let headers = Headers::read(headers.headers);
        let wanted = if self.limits.conformance { conformance::selection(&headers) } else { None };
        let request = PickRequest {
            headers,
            body: Bytes::new(),
            subset: wanted.or_else(|| metadata::subset(metadata)),
        };
        match request_mode {
            _ if is_end => self.ask(request, None, false),
            BodySendMode::FullDuplexStreamed => {
                self.phase = Phase::Reading { request, body: BytesMut::new() };
                Step::Reply(Vec::new())
            }
            mode => self.refuse(&internal(&format!(
                "the gateway sends request bodies as {}: set its ext_proc processing_mode.request_body_mode to FULL_DUPLEX_STREAMED",
                mode.as_str_name()
            ))),
        }
    }

    fn read(&mut self, part: HttpBody, request: PickRequest, mut body: BytesMut) -> Step {
        let most = self.limits.body_bytes;
        if body.len() + part.body.len() > most {
            let message = format!("the request body is longer than {most} bytes, which is all that is taken");
            return self.refuse(&Refusal {
                status: 413,
                kind: "invalid_request_error",
                message,
                retry_after: None,
            });
        }
        body.extend_from_slice(&part.body);
        if part.end_of_stream {
            return self.ask(request, Some(body.freeze()), false);
        }
        self.phase = Phase::Reading { request, body };
        Step::Reply(Vec::new())
    }

    fn ask(&mut self, request: PickRequest, body: Option<Bytes>, has_trailers: bool) -> Step {
        let request = PickRequest { body: body.clone().unwrap_or_default(), ..request };
        self.phase = Phase::Picking { body, has_trailers };
        Step::Pick(request)
    }

    fn answer(&mut self, headers: HttpHeaders, metadata: Option<&Metadata>) -> Step {
        let is_end = headers.end_of_stream;
        let headers = Headers::read(headers.headers);
        let status = headers.get(":status").and_then(|status| status.parse().ok()).unwrap_or(0);
        let is_stream = headers.get("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        let response = Response { status, served: metadata::served(metadata), is_stream };
        let selected = self.selected.as_deref();
        let shown =
            selected.map(|selected| conformance::answer_headers(selected, response.served.as_deref()));
        if let Some(watch) = &mut self.watch {
            watch.response(&response);
        }
        self.go_on(is_end);
        Step::Reply(vec![reply::answer_headers(shown.unwrap_or_default())])
    }

    fn answer_body(&mut self, part: HttpBody) -> Step {
        if let Some(watch) = &mut self.watch {
            watch.body(&part.body);
        }
        self.go_on(part.end_of_stream);
        Step::Reply(match self.answer_mode {
            BodySendMode::FullDuplexStreamed => {
                reply::body(Way::Answer, &part.body.into(), part.end_of_stream).collect()
            }
            _ => vec![reply::answer_body_unchanged()],
        })
    }

    fn go_on(&mut self, is_end: bool) {
        match is_end {
            true => self.end(),
            false => self.phase = Phase::Placed,
        }
    }

    fn end(&mut self) {
        self.phase = Phase::Over;
        if let Some(mut watch) = self.watch.take() {
            watch.ended();
        }
    }

    fn refuse(&mut self, refusal: &Refusal) -> Step {
        self.phase = Phase::Over;
        Step::Reply(vec![reply::refused(refusal)])
    }
}

fn internal(message: &str) -> Refusal {
    Refusal { status: 500, kind: "internal_error", message: message.to_owned(), retry_after: None }
}

#[cfg(test)]
mod tests;
