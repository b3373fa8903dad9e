//! A gateway's side of the protocol.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    service::ext_proc::v3::{
        HttpBody, HttpHeaders, ProcessingRequest, body_mutation::Mutation,
        external_processor_client::ExternalProcessorClient, processing_request::Request,
        processing_response::Response,
    },
};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// As Envoy passes bodies on.
const CHUNK_BYTES: usize = 64 << 10;

/// A request's body, in chunks.
pub(crate) struct Ask(Vec<Bytes>);

impl Ask {
    /// Whose prompt is made of these pieces: equal seeds and lengths in bytes are equal texts.
    pub(crate) fn of(pieces: impl IntoIterator<Item = (u64, usize)>) -> Self {
        let text: String = pieces.into_iter().map(|(seed, bytes)| words(seed, bytes)).collect();
        let message = serde_json::json!({ "role": "user", "content": text });
        let body = serde_json::json!({ "model": "m", "max_tokens": 300, "messages": [message] });
        let body = Bytes::from(body.to_string());
        let chunks = (0..body.len()).step_by(CHUNK_BYTES);
        Self(chunks.map(|at| body.slice(at..(at + CHUNK_BYTES).min(body.len()))).collect())
    }
}

fn words(seed: u64, bytes: usize) -> String {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        let letters = random.random_range(2..9);
        text.extend((0..letters).map(|_| char::from(random.random_range(b'a'..=b'z'))));
        text.push(' ');
    }
    text
}

pub(crate) async fn connect(address: &str) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?)
}

/// Asks where a request goes: the added latency in ms, from the last chunk to the destination.
pub(crate) async fn exchange(channel: Channel, ask: &Ask) -> anyhow::Result<f64> {
    let (sender, outgoing) = mpsc::channel(64);
    let send = async |request| sender.send(message(request)).await.context("the picker has hung up");
    send(headers(&[(":method", "POST"), (":path", "/v1/chat/completions")], false)).await?;
    for (number, chunk) in ask.0.iter().enumerate() {
        send(body(chunk.to_vec(), number + 1 == ask.0.len())).await?;
    }
    let mut client = ExternalProcessorClient::new(channel).max_decoding_message_size(64 << 20);
    let asked = Instant::now();
    let mut replies = client.process(ReceiverStream::new(outgoing)).await?.into_inner();
    let mut added = None;
    let mut is_whole = false;
    while !is_whole {
        let reply = replies.message().await?.context("it ended early")?;
        match reply.response {
            Some(Response::RequestHeaders(_)) => added = Some(asked.elapsed()),
            Some(Response::RequestBody(body)) => {
                let mutation = body.response.and_then(|response| response.body_mutation?.mutation);
                is_whole = matches!(mutation, Some(Mutation::StreamedResponse(part)) if part.end_of_stream);
            }
            other => bail!("unexpected: {other:?}"),
        }
    }
    send(Request::ResponseHeaders(http_headers(&[(":status", "200")], false))).await?;
    send(Request::ResponseBody(HttpBody {
        body: b"{\"usage\":{\"completion_tokens\":100}}".to_vec(),
        end_of_stream: true,
        ..HttpBody::default()
    }))
    .await?;
    drop(sender);
    while replies.message().await?.is_some() {}
    Ok(added.context("no destination")?.as_secs_f64() * 1e3)
}

fn message(request: Request) -> ProcessingRequest {
    ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }
}

fn body(body: Vec<u8>, end_of_stream: bool) -> Request {
    Request::RequestBody(HttpBody { body, end_of_stream, ..HttpBody::default() })
}

fn headers(headers: &[(&str, &str)], end_of_stream: bool) -> Request {
    Request::RequestHeaders(http_headers(headers, end_of_stream))
}

fn http_headers(headers: &[(&str, &str)], end_of_stream: bool) -> HttpHeaders {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    let headers = HeaderMap { headers: headers.iter().map(header).collect() };
    HttpHeaders { headers: Some(headers), end_of_stream, ..HttpHeaders::default() }
}
