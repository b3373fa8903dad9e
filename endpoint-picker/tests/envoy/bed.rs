//! A real Envoy, a picker that does what a test says, and endpoints that tell what they got.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener as StdListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::HeaderMap,
    response::{IntoResponse, Response as AxumResponse},
};
use baton_endpoint_picker::{EndpointPicker, Limits, Pick, PickRequest, Picker, Refusal, Response, Watch};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;

/// Endpoints, best first.
type Choose = dyn Fn(&PickRequest) -> Result<Vec<String>, Refusal> + Send + Sync;

/// Chooses as the test's closure says, and keeps what it saw.
pub(crate) struct TestPicker {
    choose: Box<Choose>,
    pub(crate) asked: Mutex<Vec<PickRequest>>,
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl TestPicker {
    pub(crate) fn new(
        choose: impl Fn(&PickRequest) -> Result<Vec<String>, Refusal> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { choose: Box::new(choose), asked: Mutex::default(), seen: Arc::default() })
    }
}

impl Picker for TestPicker {
    async fn pick(&self, request: PickRequest) -> Result<Pick, Refusal> {
        let outcome = (self.choose)(&request);
        self.asked.lock().unwrap().push(request);
        let watch = Box::new(Noting(self.seen.clone(), 0));
        Ok(Pick { endpoints: outcome?, headers: vec![("x-picked".into(), "yes".into())], body: None, watch })
    }
}

/// Notes who answered how, how much, and how it ended.
struct Noting(Arc<Mutex<Vec<String>>>, usize);

impl Noting {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

impl Watch for Noting {
    fn response(&mut self, response: &Response) {
        let Response { status, served, is_stream } = response;
        self.note(format!("{status} from {} stream={is_stream}", served.as_deref().unwrap_or("nobody")));
    }

    fn body(&mut self, chunk: &[u8]) {
        self.1 += chunk.len();
    }

    fn ended(&mut self) {
        self.note(format!("{} bytes, ended", self.1));
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        self.note("over".to_owned());
    }
}

/// A picker's service, on a runtime of its own, so that dropping it takes its connections with it, as a killed process would.
pub(crate) struct PickerServer {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl PickerServer {
    pub(crate) async fn start(picker: Arc<TestPicker>, address: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = address.to_owned();
        let start = runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            let address = listener.local_addr().unwrap();
            let service = EndpointPicker::service(picker, Limits { conformance: true, ..Limits::default() });
            let server = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::spawn(async { drop(server.await) });
            address
        });
        Self { address: start.await.unwrap(), runtime: Some(runtime) }
    }
}

impl Drop for PickerServer {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// An endpoint: says its address and what it got; `POST /stream` answers in events, one each 20 ms.
pub(crate) struct Endpoint {
    pub(crate) address: String,
    task: JoinHandle<()>,
}

impl Endpoint {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let app = Router::new()
            .route("/stream", axum::routing::post(stream))
            .fallback(tell)
            .layer(DefaultBodyLimit::disable())
            .with_state(address.clone());
        Self { address, task: tokio::spawn(async { drop(axum::serve(listener, app).await) }) }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn tell(State(address): State<String>, headers: HeaderMap, body: Bytes) -> AxumResponse {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
    let told = BTreeMap::from([
        ("address", address),
        ("body", digest(&body)),
        ("bytes", body.len().to_string()),
        ("destination", header("x-gateway-destination-endpoint")),
        ("picked", header("x-picked")),
    ]);
    axum::Json(told).into_response()
}

pub(crate) const EVENTS: usize = 20;

async fn stream(State(address): State<String>, _body: Bytes) -> AxumResponse {
    let events = futures::stream::unfold(0, move |n| {
        let address = address.clone();
        async move {
            if n == EVENTS {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, std::io::Error>(format!("data: {n} {address}\n\n")), n + 1))
        }
    });
    ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
}

/// Envoy, killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) url: String,
    _folder: tempfile::TempDir,
}

static GATEWAYS: AtomicUsize = AtomicUsize::new(0);

impl Gateway {
    /// In front of `endpoints`; without a picker that answers, requests fail.
    pub(crate) async fn start(pickers: &[SocketAddr], endpoints: &[&str]) -> Self {
        let envoy = std::env::var("BATON_TEST_ENVOY")
            .expect("BATON_TEST_ENVOY is not set: the path of envoy; `./dev test` installs it");
        let front = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let list = |addresses: Vec<String>| {
            let entry = |address: &String| {
                let (host, port) = address.rsplit_once(':').unwrap();
                format!(
                    "{{ endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }} }}"
                )
            };
            addresses.iter().map(entry).collect::<Vec<_>>().join(", ")
        };
        let config = include_str!("gateway.yaml")
            .replace("@FRONT@", &front.to_string())
            .replace("@BEHIND@", "http")
            .replace("@PICKER_TLS@", "")
            .replace("@PICKERS@", &list(pickers.iter().map(SocketAddr::to_string).collect()))
            .replace("@ENDPOINTS@", &list(endpoints.iter().map(|e| (*e).to_owned()).collect()));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, config).unwrap();
        let child = spawn(&envoy, &file, folder.path());
        let gateway = Self { child, url: format!("http://127.0.0.1:{front}"), _folder: folder };
        gateway.wait(front).await;
        gateway
    }

    async fn wait(&self, port: u16) {
        for _ in 0..400 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let log = std::fs::read_to_string(self._folder.path().join("log")).unwrap_or_default();
        panic!("Envoy does not listen after 10 s:\n{log}");
    }
}

fn spawn(envoy: &str, config: &Path, folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let base_id = std::process::id() as usize * 16 + GATEWAYS.fetch_add(1, Ordering::Relaxed);
    Command::new(envoy)
        .args(["--config-path", config.to_str().unwrap()])
        .args(["--base-id", &base_id.to_string(), "--concurrency", "1", "--log-level", "warning"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("envoy starts")
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
