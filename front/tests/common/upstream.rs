//! A server with OpenAI's API that does as it is told.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use baton_front::Upstreams;
use baton_process::Metrics;
use futures::{StreamExt as _, stream};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{
        Mutex,
        mpsc::{self, UnboundedReceiver, UnboundedSender},
    },
    task::JoinHandle,
    time::timeout,
};

use super::http::PATIENCE;

/// What it was asked.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// What it answers.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    chunks: UnboundedReceiver<io::Result<Bytes>>,
}

pub(crate) struct FakeUpstream {
    pub(crate) address: SocketAddr,
    heard: UnboundedReceiver<Heard>,
    replies: UnboundedSender<Reply>,
    serving: JoinHandle<()>,
    folder: tempfile::TempDir,
}

type Shared = Arc<(UnboundedSender<Heard>, Mutex<UnboundedReceiver<Reply>>)>;

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::whole(status, "application/json", body.to_string())
    }

    /// A stream with these events, and its end.
    pub(crate) fn events(events: &[&str]) -> Self {
        let text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        Self::whole(200, "text/event-stream", text)
    }

    /// A stream in the test's hand.
    pub(crate) fn live() -> (Self, UnboundedSender<io::Result<Bytes>>) {
        let (sender, chunks) = mpsc::unbounded_channel();
        (
            Self { status: 200, headers: vec![("content-type", "text/event-stream".to_owned())], chunks },
            sender,
        )
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn whole(status: u16, kind: &str, body: String) -> Self {
        let (sender, chunks) = mpsc::unbounded_channel();
        sender.send(Ok(body.into())).unwrap();
        Self { status, headers: vec![("content-type", kind.to_owned())], chunks }
    }
}

impl FakeUpstream {
    pub(crate) async fn start() -> Self {
        let (hears, heard) = mpsc::unbounded_channel();
        let (replies, to_give) = mpsc::unbounded_channel();
        let shared: Shared = Arc::new((hears, Mutex::new(to_give)));
        let app = Router::new().fallback(answer).with_state(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let folder = tempfile::tempdir().unwrap();
        Self { address, heard, replies, serving, folder }
    }

    /// As a front is told of it: `lines` are the entry's, beside name, URL and key.
    pub(crate) fn upstreams(&self, lines: &str, metrics: &Metrics) -> Upstreams {
        let [file, key] = ["upstreams.yaml", "key"].map(|name| self.folder.path().join(name));
        std::fs::write(&key, "sk-theirs\n").unwrap();
        let entry = format!(
            "upstreams:\n- name: spare\n  url: http://{}/api/v1/\n  key-file: {}\n{lines}\n",
            self.address,
            key.display()
        );
        std::fs::write(&file, entry).unwrap();
        Upstreams::open(&file, metrics).unwrap()
    }

    pub(crate) fn reply(&self, reply: Reply) {
        self.replies.send(reply).expect("it serves");
    }

    pub(crate) async fn heard(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("it is asked").expect("it lives")
    }

    /// Nobody listens at its address from now on.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        self.serving.abort();
        assert!((&mut self.serving).await.is_err_and(|ended| ended.is_cancelled()));
        self.address
    }

    /// It was not asked what the test has not taken.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.heard.try_recv().is_err()
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path().to_owned();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    shared.0.send(Heard { path, headers: parts.headers, body }).ok();
    let Some(Reply { status, headers, chunks }) = shared.1.lock().await.recv().await else {
        panic!("the test is over");
    };
    let chunks = stream::unfold(chunks, |mut chunks| async { Some((chunks.recv().await?, chunks)) }).boxed();
    let mut response = Response::new(Body::from_stream(chunks));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
    }
    response
}
