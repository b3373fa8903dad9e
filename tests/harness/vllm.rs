//! A server that answers as vLLM does, and says who it is.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{ANY, serving::Serving};

/// It ends when dropped.
pub(crate) struct FakeVllm {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _serving: Serving,
}

#[derive(Default)]
struct Shared {
    name: String,
    answered: AtomicU32,
    waiting: AtomicU32,
    running: AtomicU32,
    /// Beginnings of conversations that it has computed.
    cached: Mutex<BTreeSet<String>>,
}

/// What computing a conversation takes that is not cached, and one that is.
const PREFILL: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(10)];

impl FakeVllm {
    pub(crate) fn start(name: &str) -> Self {
        let shared = Arc::new(Shared { name: name.to_owned(), ..Shared::default() });
        let app = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/metrics", get(metrics))
            .with_state(shared.clone());
        let listener = std::net::TcpListener::bind(ANY).expect("a free port");
        let serving = Serving::http1(listener, app);
        Self { address: serving.address(), shared, _serving: serving }
    }

    /// As its page says from now on.
    pub(crate) fn set_load(&self, waiting: u32, running: u32) {
        self.shared.waiting.store(waiting, Ordering::Relaxed);
        self.shared.running.store(running, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self) -> u32 {
        self.shared.answered.load(Ordering::Relaxed)
    }
}

async fn chat(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    shared.answered.fetch_add(1, Ordering::Relaxed);
    let beginning = body["messages"][0]["content"].to_string();
    let is_new = shared.cached.lock().expect("no test panics here").insert(beginning);
    tokio::time::sleep(PREFILL[usize::from(!is_new)]).await;
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    if body["stream"] == json!(true) {
        let event = json!({ "choices": [{ "delta": { "content": shared.name } }] });
        let usage = json!({ "choices": [], "usage": { "completion_tokens": 3 } });
        let text =
            format!("data: {event}\n\ndata: {event}\n\ndata: {event}\n\ndata: {usage}\n\ndata: [DONE]\n\n");
        return ([(CONTENT_TYPE, "text/event-stream")], text).into_response();
    }
    Json(json!({
        "served_by": shared.name,
        "request_id": header("x-request-id"),
        "prefiller": header("x-prefiller-host-port"),
        "usage": { "prompt_tokens": 5, "completion_tokens": 3 },
    }))
    .into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> String {
    let (waiting, running) = (shared.waiting.load(Ordering::Relaxed), shared.running.load(Ordering::Relaxed));
    format!(
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{model_name=\"m\"}} {waiting}.0\n\
         # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{model_name=\"m\"}} {running}.0\n\
         # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{{model_name=\"m\"}} 0.1\n\
         # TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"10000\"}} 1.0\n"
    )
}
