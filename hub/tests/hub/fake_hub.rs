//! A server with one model, which can cut connections, ignore ranges and ask for a token.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{StreamExt as _, future::ready, stream};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How a missing token is answered.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    /// 401, nothing else.
    Bare,
    /// 403 with the hub's error code.
    Gated,
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<&'static str, Bytes>,
    requests: Vec<(String, Option<String>)>,
    cut_after: Option<usize>,
    ignores_ranges: bool,
    token: Option<(String, Refusal)>,
}

#[derive(Clone)]
pub(crate) struct FakeHub {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl FakeHub {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let weights: Vec<u8> =
            (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let files = BTreeMap::from([
            ("README.md", Bytes::from_static(b"# tiny")),
            ("config.json", Bytes::from_static(b"{}")),
            ("consolidated.safetensors", Bytes::from_static(b"twice")),
            ("generation_config.json", Bytes::from_static(b"{\"a\":1}")),
            ("model.safetensors", weights.into()),
            ("onnx/model.onnx", Bytes::from_static(b"other")),
            ("tokenizer.json", Bytes::from_static(b"{\"b\":2}")),
            ("tokenizer_config.json", Bytes::from_static(b"{\"c\":3}")),
        ]);
        let hub = Self {
            address: listener.local_addr().unwrap(),
            inner: Arc::new(Mutex::new(Inner { files, ..Inner::default() })),
        };
        let router = Router::new()
            .route("/api/models/{org}/{name}/revision/{revision}", get(revision))
            .route("/{org}/{name}/resolve/{revision}/{*file}", get(file).head(head))
            .route("/bytes/{*file}", get(stored))
            .layer(middleware::from_fn_with_state(hub.clone(), guard))
            .with_state(hub.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        hub
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn content(&self, file: &str) -> Bytes {
        self.inner().files[file].clone()
    }

    /// SHA-256 for weights, git's blob hash for the rest.
    pub(crate) fn etag(&self, file: &str) -> String {
        let content = self.content(file);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if is_large(file) {
            hex(&Sha256::digest(&content))
        } else {
            hex(&Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(&content).finalize())
        }
    }

    /// The next answer with a large file's bytes ends the connection after `bytes`.
    pub(crate) fn cut_next_download_after(&self, bytes: usize) {
        self.inner().cut_after = Some(bytes);
    }

    pub(crate) fn ignore_ranges(&self) {
        self.inner().ignores_ranges = true;
    }

    pub(crate) fn require_token(&self, token: &str, refusal: Refusal) {
        self.inner().token = Some((token.to_owned(), refusal));
    }

    /// `Range` headers of the requests for a large file's bytes, in order.
    pub(crate) fn ranges_asked_for(&self, file: &str) -> Vec<Option<String>> {
        let wanted = format!("/bytes/{file}");
        let inner = self.inner();
        inner.requests.iter().filter(|(path, _)| *path == wanted).map(|(_, range)| range.clone()).collect()
    }

    pub(crate) fn requests(&self) -> usize {
        self.inner().requests.len()
    }

    pub(crate) fn forget_requests(&self) {
        self.inner().requests.clear();
    }
}

fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors")
}

async fn guard(State(hub): State<FakeHub>, request: Request, next: Next) -> Response {
    let (range, authorization) = {
        let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        (text(header::RANGE), text(header::AUTHORIZATION))
    };
    let refusal = {
        let mut inner = hub.inner();
        inner.requests.push((request.uri().path().to_owned(), range));
        inner.token.clone().filter(|(token, _)| authorization != Some(format!("Bearer {token}")))
    };
    match refusal {
        Some((_, Refusal::Bare)) => StatusCode::UNAUTHORIZED.into_response(),
        Some((_, Refusal::Gated)) => (StatusCode::FORBIDDEN, [("x-error-code", "GatedRepo")]).into_response(),
        None => next.run(request).await,
    }
}

async fn revision(
    State(hub): State<FakeHub>,
    Path((org, name, revision)): Path<(String, String, String)>,
) -> Response {
    if (org.as_str(), name.as_str()) != ("org", "tiny") {
        // The real hub does not tell strangers that a model does not exist.
        return (StatusCode::UNAUTHORIZED, [("x-error-code", "RepoNotFound")]).into_response();
    }
    if revision != "main" && revision != COMMIT {
        return (StatusCode::NOT_FOUND, [("x-error-code", "RevisionNotFound")]).into_response();
    }
    let siblings: Vec<_> =
        hub.inner().files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
    axum::Json(serde_json::json!({ "id": "org/tiny", "sha": COMMIT, "siblings": siblings })).into_response()
}

fn description(hub: &FakeHub, file: &str) -> HeaderMap {
    let etag = format!("\"{}\"", hub.etag(file));
    let mut headers = HeaderMap::new();
    headers.insert("x-repo-commit", COMMIT.parse().unwrap());
    if is_large(file) {
        headers.insert(header::ETAG, "\"the-store's-own\"".parse().unwrap());
        headers.insert("x-linked-etag", etag.parse().unwrap());
        headers.insert("x-linked-size", hub.content(file).len().into());
        headers.insert(header::LOCATION, format!("{}/bytes/{file}", hub.endpoint()).parse().unwrap());
    } else {
        headers.insert(header::ETAG, etag.parse().unwrap());
        headers.insert(header::CONTENT_LENGTH, hub.content(file).len().into());
    }
    headers
}

type FilePath = Path<(String, String, String, String)>;

async fn head(State(hub): State<FakeHub>, Path((_, _, _, file)): FilePath) -> Response {
    let status = if is_large(&file) { StatusCode::FOUND } else { StatusCode::OK };
    (status, description(&hub, &file)).into_response()
}

async fn file(State(hub): State<FakeHub>, Path((_, _, _, file)): FilePath) -> Response {
    if is_large(&file) {
        (StatusCode::FOUND, description(&hub, &file)).into_response()
    } else {
        (description(&hub, &file), hub.content(&file)).into_response()
    }
}

/// The store that large files are redirected to.
async fn stored(State(hub): State<FakeHub>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    let content = hub.content(&file);
    let (cut_after, ignores_ranges) = {
        let mut inner = hub.inner();
        (inner.cut_after.take(), inner.ignores_ranges)
    };
    let range = headers.get(header::RANGE).filter(|_| !ignores_ranges).map(|range| range.to_str().unwrap());
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let rest = content.slice(start.unwrap_or(0)..);
    let mut response = Response::builder().header(header::CONTENT_LENGTH, rest.len());
    if let Some(start) = start {
        let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
    }
    let body = match cut_after {
        None => Body::from(rest),
        Some(bytes) => {
            Body::from_stream(stream::once(ready(Ok(rest.slice(..bytes)))).chain(stream::once(async {
                // Lets the server send what it has before it learns of the end.
                tokio::task::yield_now().await;
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            })))
        }
    };
    response.body(body).unwrap()
}
