use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderMap, HeaderValue},
        service::ext_proc::v3::{
            HttpTrailers, body_mutation::Mutation, processing_response::Response as Reply,
        },
    },
    google::protobuf::{ListValue, Struct, Value, value::Kind},
};

use super::*;

fn headers(pairs: &[(&str, &str)], end_of_stream: bool) -> HttpHeaders {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    let headers = HeaderMap { headers: pairs.iter().map(header).collect() };
    HttpHeaders { headers: Some(headers), end_of_stream, ..HttpHeaders::default() }
}

fn part(body: &[u8], end_of_stream: bool) -> HttpBody {
    HttpBody { body: body.to_vec(), end_of_stream, ..HttpBody::default() }
}

fn message(request: Message) -> ProcessingRequest {
    ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }
}

fn with_metadata(
    mut message: ProcessingRequest,
    namespace: &str,
    key: &str,
    kind: Kind,
) -> ProcessingRequest {
    let fields = [(key.to_owned(), Value { kind: Some(kind) })].into();
    let filter_metadata = [(namespace.to_owned(), Struct { fields })].into();
    message.metadata_context = Some(Metadata { filter_metadata, ..Metadata::default() });
    message
}

fn with_modes(
    mut message: ProcessingRequest,
    request: BodySendMode,
    answer: BodySendMode,
) -> ProcessingRequest {
    message.protocol_config = Some(ProtocolConfiguration {
        request_body_mode: request.into(),
        response_body_mode: answer.into(),
        ..ProtocolConfiguration::default()
    });
    message
}

fn replies(step: Step) -> Vec<ProcessingResponse> {
    match step {
        Step::Reply(replies) => replies,
        Step::Pick(request) => panic!("asked for {request:?}"),
        Step::Broken(how) => panic!("broken: {how}"),
    }
}

fn asked(step: Step) -> PickRequest {
    match step {
        Step::Pick(request) => request,
        Step::Reply(replies) => panic!("replied {replies:?}"),
        Step::Broken(how) => panic!("broken: {how}"),
    }
}

fn broken(step: Step) -> &'static str {
    match step {
        Step::Broken(how) => how,
        _ => panic!("not broken"),
    }
}

/// What a watch was told.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

struct Watching(Seen);

impl Watch for Watching {
    fn response(&mut self, response: &Response) {
        let Response { status, served, is_stream } = response;
        self.0.note(format!("{status} {} {is_stream}", served.as_deref().unwrap_or("-")));
    }

    fn body(&mut self, chunk: &[u8]) {
        self.0.note(String::from_utf8_lossy(chunk).into_owned());
    }

    fn ended(&mut self) {
        self.0.note("ended".to_owned());
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.note("dropped".to_owned());
    }
}

fn pick(endpoints: &[&str], seen: &Seen) -> Pick {
    Pick {
        endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
        headers: Vec::new(),
        body: None,
        watch: Box::new(Watching(seen.clone())),
    }
}

/// Headers that a reply sets.
fn set_headers(reply: &ProcessingResponse) -> Vec<(String, String)> {
    let mutation = match reply.response.as_ref().unwrap() {
        Reply::RequestHeaders(h) | Reply::ResponseHeaders(h) => {
            h.response.as_ref().unwrap().header_mutation.clone()
        }
        Reply::ImmediateResponse(immediate) => immediate.headers.clone(),
        other => panic!("{other:?}"),
    };
    let options = mutation.unwrap_or_default().set_headers.into_iter().map(|option| option.header.unwrap());
    options.map(|header| (header.key, String::from_utf8(header.raw_value).unwrap())).collect()
}

/// Parts of a body that replies let go on, and where it ends.
fn bodies(replies: &[ProcessingResponse]) -> Vec<(Vec<u8>, bool)> {
    let body = |reply: &ProcessingResponse| match reply.response.as_ref().unwrap() {
        Reply::RequestBody(body) | Reply::ResponseBody(body) => {
            let mutation = body.response.clone().unwrap().body_mutation.unwrap().mutation.unwrap();
            let Mutation::StreamedResponse(part) = mutation else { panic!("not streamed") };
            Some((part.body, part.end_of_stream))
        }
        _ => None,
    };
    replies.iter().filter_map(body).collect()
}

fn post() -> ProcessingRequest {
    message(Message::RequestHeaders(headers(&[(":method", "POST"), (":path", "/v1/completions")], false)))
}

fn refused(replies: &[ProcessingResponse]) -> (i32, String) {
    let [reply] = replies else { panic!("{replies:?}") };
    let Some(Reply::ImmediateResponse(immediate)) = &reply.response else { panic!("{reply:?}") };
    let body: serde_json::Value = serde_json::from_slice(&immediate.body).unwrap();
    (immediate.status.as_ref().unwrap().code, body["error"]["message"].as_str().unwrap().to_owned())
}

#[test]
fn a_body_in_parts_is_held_until_its_end_and_goes_on_in_small_parts() {
    let (mut exchange, seen) = (Exchange::new(Limits::default()), Seen::default());
    assert!(replies(exchange.take(post())).is_empty(), "the reply to headers waits for the choice");
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let chunks: Vec<_> = body.chunks(16_384).collect();
    for chunk in &chunks[..chunks.len() - 1] {
        assert!(replies(exchange.take(message(Message::RequestBody(part(chunk, false))))).is_empty());
    }
    let request = asked(exchange.take(message(Message::RequestBody(part(chunks[chunks.len() - 1], true)))));
    assert_eq!(request.body, body);
    assert_eq!(request.headers.get(":path"), Some("/v1/completions"));
    let placed = exchange.placed(Ok(pick(&["10.0.0.1:8000", "10.0.0.2:8000"], &seen)));
    assert_eq!(
        set_headers(&placed[0]),
        [("x-gateway-destination-endpoint".to_owned(), "10.0.0.1:8000,10.0.0.2:8000".to_owned())]
    );
    let Some(Reply::RequestHeaders(first)) = &placed[0].response else { panic!("headers first") };
    assert!(first.response.as_ref().unwrap().clear_route_cache);
    let metadata = placed[0].dynamic_metadata.clone().unwrap();
    let Some(Kind::StructValue(inner)) = &metadata.fields["envoy.lb"].kind else { panic!("a struct") };
    let expected = Kind::StringValue("10.0.0.1:8000,10.0.0.2:8000".to_owned());
    assert_eq!(inner.fields["x-gateway-destination-endpoint"].kind, Some(expected));
    let parts = bodies(&placed);
    assert!(parts.iter().all(|(part, _)| part.len() <= 62_000));
    assert_eq!(parts.iter().flat_map(|(part, _)| part.clone()).collect::<Vec<_>>(), body);
    let ends: Vec<_> = parts.iter().map(|(_, is_end)| *is_end).collect();
    assert!(ends.iter().position(|end| *end) == Some(ends.len() - 1), "the last part ends it, no other");
}

#[test]
fn a_request_without_a_body_is_placed_at_once() {
    let (mut exchange, seen) = (Exchange::new(Limits::default()), Seen::default());
    let get = headers(&[(":method", "GET"), (":path", "/v1/models")], true);
    let request = asked(exchange.take(message(Message::RequestHeaders(get))));
    assert!(request.body.is_empty() && request.subset.is_none());
    assert_eq!(exchange.placed(Ok(pick(&["10.0.0.1:80"], &seen))).len(), 1);
}

#[test]
fn trailers_end_a_body_and_follow_it() {
    let (mut exchange, seen) = (Exchange::new(Limits::default()), Seen::default());
    replies(exchange.take(post()));
    replies(exchange.take(message(Message::RequestBody(part(b"{}", false)))));
    let request = asked(exchange.take(message(Message::RequestTrailers(HttpTrailers::default()))));
    assert_eq!(request.body, "{}");
    let placed = exchange.placed(Ok(pick(&["10.0.0.1:80"], &seen)));
    assert_eq!(bodies(&placed), [(b"{}".to_vec(), false)], "trailers end it");
    assert!(matches!(placed[2].response, Some(Reply::RequestTrailers(_))));
}

#[test]
fn a_new_body_has_a_new_length() {
    let (mut exchange, seen) = (Exchange::new(Limits::default()), Seen::default());
    replies(exchange.take(post()));
    asked(exchange.take(message(Message::RequestBody(part(b"{}", true)))));
    let headers = vec![("x-prefiller-host-port".to_owned(), "10.0.0.9:8000".to_owned())];
    let other = Pick { headers, body: Some("{\"a\":1}".into()), ..pick(&["10.0.0.1:80"], &seen) };
    let placed = exchange.placed(Ok(other));
    let set = set_headers(&placed[0]);
    assert_eq!(set[1], ("x-prefiller-host-port".to_owned(), "10.0.0.9:8000".to_owned()));
    assert_eq!(set[2], ("content-length".to_owned(), "7".to_owned()));
    assert_eq!(bodies(&placed), [(b"{\"a\":1}".to_vec(), true)]);
}

#[test]
fn what_the_gateway_leaves_to_choose_from_is_read_as_list_and_as_text() {
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let list = |texts: &[&str]| {
        let values = texts.iter().map(|t| Value { kind: Some(text(t)) }).collect();
        Kind::ListValue(ListValue { values })
    };
    for (kind, expected) in [
        (list(&["10.0.0.1:80", "10.0.0.2:80"]), vec!["10.0.0.1:80", "10.0.0.2:80"]),
        (text("10.0.0.1:80, 10.0.0.2:80"), vec!["10.0.0.1:80", "10.0.0.2:80"]),
        (list(&[]), vec![]),
        (text(""), vec![]),
    ] {
        let get = message(Message::RequestHeaders(headers(&[], true)));
        let hinted =
            with_metadata(get, "envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset", kind);
        let request = asked(Exchange::new(Limits::default()).take(hinted));
        assert_eq!(request.subset.unwrap(), expected);
    }
}

#[test]
fn refusals_are_answers_of_the_gateway_in_openais_shape() {
    let mut exchange = Exchange::new(Limits::default());
    replies(exchange.take(post()));
    asked(exchange.take(message(Message::RequestBody(part(b"{}", true)))));
    let refusal = Refusal {
        status: 429,
        kind: "overloaded_error",
        message: "later".to_owned(),
        retry_after: Some(Duration::from_millis(1200)),
    };
    let answer = exchange.placed(Err(refusal));
    assert_eq!(refused(&answer), (429, "later".to_owned()));
    assert!(set_headers(&answer[0]).contains(&("retry-after".to_owned(), "2".to_owned())));
    assert!(exchange.is_over());
    assert!(replies(exchange.take(message(Message::RequestBody(part(b"late", true))))).is_empty());
}

#[test]
fn bodies_that_are_too_long_and_gateways_set_up_otherwise_are_refused() {
    let mut exchange = Exchange::new(Limits { body_bytes: 10, conformance: false });
    replies(exchange.take(post()));
    replies(exchange.take(message(Message::RequestBody(part(b"12345678", false)))));
    let (status, text) = refused(&replies(exchange.take(message(Message::RequestBody(part(b"9 10", true))))));
    assert!(status == 413 && text.contains("10 bytes"), "{text}");

    let buffered = with_modes(post(), BodySendMode::Buffered, BodySendMode::None);
    let (status, text) = refused(&replies(Exchange::new(Limits::default()).take(buffered)));
    assert!(status == 500 && text.contains("FULL_DUPLEX_STREAMED"), "{text}");
}

#[test]
fn the_answer_goes_on_part_by_part_and_is_watched() {
    for (mode, echoes) in [(BodySendMode::FullDuplexStreamed, true), (BodySendMode::Streamed, false)] {
        let (mut exchange, seen) =
            (Exchange::new(Limits { conformance: true, ..Limits::default() }), Seen::default());
        let get = message(Message::RequestHeaders(headers(&[], true)));
        asked(exchange.take(with_modes(get, BodySendMode::None, mode)));
        exchange.placed(Ok(pick(&["10.0.0.1:80"], &seen)));
        let answer =
            headers(&[(":status", "200"), ("content-type", "text/event-stream; charset=utf-8")], false);
        let answer = with_metadata(
            message(Message::ResponseHeaders(answer)),
            "envoy.lb",
            "x-gateway-destination-endpoint-served",
            Kind::StringValue("10.0.0.1:80".to_owned()),
        );
        let head = replies(exchange.take(answer));
        assert_eq!(
            set_headers(&head[0]),
            [
                ("x-conformance-test-served-endpoint".to_owned(), "10.0.0.1:80".to_owned()),
                ("x-conformance-test-selected-endpoint".to_owned(), "10.0.0.1:80".to_owned()),
            ]
        );
        let first = replies(exchange.take(message(Message::ResponseBody(part(b"data: 1", false)))));
        let last = replies(exchange.take(message(Message::ResponseBody(part(b"", true)))));
        if echoes {
            assert_eq!(bodies(&first), [(b"data: 1".to_vec(), false)]);
            assert_eq!(bodies(&last), [(vec![], true)]);
        } else {
            assert!(first.len() == 1 && last.len() == 1);
        }
        assert_eq!(seen.all(), ["200 10.0.0.1:80 true", "data: 1", "", "ended", "dropped"]);
    }
}

#[test]
fn an_answer_that_is_broken_off_drops_the_watch_without_an_end() {
    let (mut exchange, seen) = (Exchange::new(Limits::default()), Seen::default());
    asked(exchange.take(message(Message::RequestHeaders(headers(&[], true)))));
    exchange.placed(Ok(pick(&["10.0.0.1:80"], &seen)));
    replies(exchange.take(message(Message::ResponseHeaders(headers(&[(":status", "200")], false)))));
    drop(exchange);
    assert_eq!(seen.all(), ["200 - false", "dropped"]);
}

#[test]
fn trailers_of_an_answer_end_it() {
    let (mut exchange, seen) = (Exchange::new(Limits::default()), Seen::default());
    asked(exchange.take(message(Message::RequestHeaders(headers(&[], true)))));
    exchange.placed(Ok(pick(&["10.0.0.1:80"], &seen)));
    replies(exchange.take(message(Message::ResponseHeaders(headers(&[(":status", "200")], false)))));
    let last = replies(exchange.take(message(Message::ResponseTrailers(HttpTrailers::default()))));
    assert!(matches!(last[0].response, Some(Reply::ResponseTrailers(_))));
    assert_eq!(seen.all()[1..], ["ended", "dropped"]);
}

#[test]
fn conformance_headers_count_only_where_they_are_switched_on() {
    let chosen = |conformance| {
        let get = headers(&[("test-epp-endpoint-selection", "10.0.0.7, 10.0.0.8:80")], true);
        let mut exchange = Exchange::new(Limits { conformance, ..Limits::default() });
        let subset = asked(exchange.take(message(Message::RequestHeaders(get)))).subset;
        let placed = exchange.placed(Ok(pick(&["10.0.0.8:80", "10.0.0.7:80"], &Seen::default())));
        // The gateway does not say who served.
        let answer = headers(&[(":status", "200")], true);
        let answered = replies(exchange.take(message(Message::ResponseHeaders(answer))));
        let header = |reply: &ProcessingResponse, name: &str| {
            set_headers(reply).into_iter().find(|(header, _)| header == name).map(|(_, value)| value)
        };
        let served = header(&answered[0], "x-conformance-test-served-endpoint");
        (subset, header(&placed[0], "x-echo-set-header"), served)
    };
    let (subset, echo, served) = chosen(true);
    assert_eq!(subset.unwrap(), ["10.0.0.7", "10.0.0.8:80"]);
    assert_eq!(echo.unwrap(), "x-conformance-test-served-endpoint:10.0.0.8:80");
    assert!(served.unwrap().starts_with("fail"));
    assert_eq!(chosen(false), (None, None, None));
}

#[test]
fn messages_out_of_order_break_the_stream() {
    let body = || message(Message::RequestBody(part(b"{}", true)));
    assert!(broken(Exchange::new(Limits::default()).take(body())).contains("request headers"));
    let mut exchange = Exchange::new(Limits::default());
    replies(exchange.take(post()));
    assert!(broken(exchange.take(post())).contains("between parts"));
    let (mut exchange, seen) = (Exchange::new(Limits::default()), Seen::default());
    asked(exchange.take(message(Message::RequestHeaders(headers(&[], true)))));
    exchange.placed(Ok(pick(&["10.0.0.1:80"], &seen)));
    assert!(broken(exchange.take(body())).contains("after its end"));
}

#[test]
fn a_choice_of_nobody_is_our_fault() {
    let mut exchange = Exchange::new(Limits::default());
    asked(exchange.take(message(Message::RequestHeaders(headers(&[], true)))));
    assert_eq!(refused(&exchange.placed(Ok(pick(&[], &Seen::default())))).0, 500);
}
