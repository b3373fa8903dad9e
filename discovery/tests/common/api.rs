//! A small Kubernetes API server: lists in pages, watches with versions and bookmarks, forgotten versions, and the ways in which it fails.
//! It speaks what `kube` speaks; it is not Kubernetes.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use baton_discovery::kubernetes::Client;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// One change: what was, and what is.
#[derive(Clone)]
struct Entry {
    version: u64,
    resource: String,
    old: Option<Value>,
    new: Option<Value>,
}

#[derive(Default)]
struct Store {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    log: Vec<Entry>,
    /// Versions up to this one are forgotten.
    forgotten: u64,
    pages: HashMap<String, (u64, Vec<Value>)>,
    page: usize,
    /// Requests that were answered with an error instead.
    is_away: bool,
    /// Watches begin, and then say nothing at all.
    is_mute: bool,
    /// 410 comes as an event, not as a status.
    says_gone_in_stream: bool,
    lists: usize,
    watches: usize,
}

/// The server. Dropping it stops it.
pub(crate) struct ApiServer {
    shared: Arc<Shared>,
    address: std::net::SocketAddr,
    _tasks: JoinSet<()>,
}

struct Shared {
    store: Mutex<Store>,
    /// Bumped at each change.
    changed: watch::Sender<u64>,
    /// Bumped to cut all watches.
    cut: watch::Sender<u64>,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            store: Mutex::new(Store { version: 10, page: 500, ..Store::default() }),
            changed: watch::Sender::new(0),
            cut: watch::Sender::new(0),
        });
        let app = Router::new()
            .route("/api/v1/namespaces/{ns}/{resource}", get(answer_core))
            .route("/apis/{group}/{version}/namespaces/{ns}/{resource}", get(answer_group))
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { shared, address, _tasks: tasks }
    }

    pub(crate) fn client(&self) -> Client {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    fn with<T>(&self, f: impl FnOnce(&mut Store) -> T) -> T {
        f(&mut self.shared.store.lock().unwrap())
    }

    /// Creates or replaces an object; gives its version.
    pub(crate) fn put(&self, resource: &str, name: &str, mut object: Value) -> u64 {
        let version = self.with(|store| {
            store.version += 1;
            object["metadata"]["name"] = json!(name);
            object["metadata"]["namespace"] = json!("ns");
            object["metadata"]["resourceVersion"] = json!(store.version.to_string());
            let old = store.objects.insert((resource.into(), name.into()), object.clone());
            store.log.push(Entry {
                version: store.version,
                resource: resource.into(),
                old,
                new: Some(object),
            });
            store.version
        });
        self.shared.changed.send_modify(|at| *at += 1);
        version
    }

    pub(crate) fn delete(&self, resource: &str, name: &str) {
        self.with(|store| {
            let Some(mut old) = store.objects.remove(&(resource.into(), name.into())) else { return };
            store.version += 1;
            old["metadata"]["resourceVersion"] = json!(store.version.to_string());
            store.log.push(Entry {
                version: store.version,
                resource: resource.into(),
                old: Some(old),
                new: None,
            });
        });
        self.shared.changed.send_modify(|at| *at += 1);
    }

    pub(crate) fn get(&self, resource: &str, name: &str) -> Option<Value> {
        self.with(|store| store.objects.get(&(resource.to_owned(), name.to_owned())).cloned())
    }

    pub(crate) fn all(&self, resource: &str) -> Vec<(String, Value)> {
        self.with(|store| {
            store
                .objects
                .iter()
                .filter(|(key, _)| key.0 == resource)
                .map(|(key, value)| (key.1.clone(), value.clone()))
                .collect()
        })
    }

    /// Forgets what happened until now: a watch from an older version is told 410.
    pub(crate) fn forget(&self, in_stream: bool) {
        self.with(|store| {
            store.forgotten = store.version;
            store.says_gone_in_stream = in_stream;
            store.pages.clear();
        });
    }

    /// Ends all watches without a word.
    pub(crate) fn cut(&self) {
        self.shared.cut.send_modify(|at| *at += 1);
    }

    /// Answers nothing but errors, or works again.
    pub(crate) fn away(&self, is_away: bool) {
        self.with(|store| store.is_away = is_away);
        if is_away {
            self.cut();
        }
    }

    /// Makes watches that begin from now on say nothing.
    pub(crate) fn mute(&self, is_mute: bool) {
        self.with(|store| store.is_mute = is_mute);
    }

    pub(crate) fn page_size(&self, page: usize) {
        self.with(|store| store.page = page);
    }

    /// How many lists and watches were begun.
    pub(crate) fn begun(&self) -> (usize, usize) {
        self.with(|store| (store.lists, store.watches))
    }
}

type Params = Query<HashMap<String, String>>;

async fn answer_core(
    shared: State<Arc<Shared>>,
    Path((_, resource)): Path<(String, String)>,
    params: Params,
) -> Response {
    answer(&shared.0, &resource, &params.0)
}

async fn answer_group(
    shared: State<Arc<Shared>>,
    Path((_, _, _, resource)): Path<(String, String, String, String)>,
    params: Params,
) -> Response {
    answer(&shared.0, &resource, &params.0)
}

fn answer(shared: &Arc<Shared>, resource: &str, params: &HashMap<String, String>) -> Response {
    if shared.store.lock().unwrap().is_away {
        return refusal(503, "away");
    }
    if params.get("watch").is_some_and(|watch| watch == "true") {
        watch_from(shared, resource, params)
    } else {
        list(shared, resource, params)
    }
}

fn refusal(code: u16, message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": "Test", "code": code});
    (StatusCode::from_u16(code).unwrap(), axum::Json(status)).into_response()
}

fn list(shared: &Arc<Shared>, resource: &str, params: &HashMap<String, String>) -> Response {
    let mut store = shared.store.lock().unwrap();
    store.lists += 1;
    let (version, mut items) = match params.get("continue") {
        Some(token) => match store.pages.remove(token) {
            Some(rest) => rest,
            None => return refusal(410, "the continue token has expired"),
        },
        None => {
            let all = store.objects.iter().filter(|(key, value)| key.0 == resource && matches(value, params));
            (store.version, all.map(|(_, value)| value.clone()).collect())
        }
    };
    let asked: usize = params.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    let rest = items.split_off(items.len().min(store.page.min(asked)));
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if !rest.is_empty() {
        let token = format!("page-{}-{}", store.lists, rest.len());
        metadata["continue"] = json!(token);
        store.pages.insert(token, (version, rest));
    }
    axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
        .into_response()
}

fn matches(object: &Value, params: &HashMap<String, String>) -> bool {
    let has = |selector: &str, at: &dyn Fn(&str) -> Option<String>| {
        selector
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .all(|(name, value)| at(name).as_deref() == Some(value))
    };
    let label = |name: &str| object["metadata"]["labels"][name].as_str().map(str::to_owned);
    let field =
        |name: &str| object["metadata"][name.trim_start_matches("metadata.")].as_str().map(str::to_owned);
    params.get("labelSelector").is_none_or(|selector| has(selector, &label))
        && params.get("fieldSelector").is_none_or(|selector| has(selector, &field))
}

/// One who watches.
struct Watcher {
    shared: Arc<Shared>,
    resource: String,
    params: HashMap<String, String>,
    version: u64,
    changed: watch::Receiver<u64>,
    cut: watch::Receiver<u64>,
    deadline: tokio::time::Instant,
    /// The second half of a line, sent as a piece of its own.
    rest: Option<Bytes>,
    has_ended: bool,
    is_mute: bool,
}

fn watch_from(shared: &Arc<Shared>, resource: &str, params: &HashMap<String, String>) -> Response {
    let mut store = shared.store.lock().unwrap();
    store.watches += 1;
    let version: u64 = params["resourceVersion"].parse().unwrap();
    if version < store.forgotten && !store.says_gone_in_stream {
        return refusal(410, "too old resource version");
    }
    let seconds = params["timeoutSeconds"].parse().unwrap();
    let watcher = Watcher {
        shared: shared.clone(),
        resource: resource.into(),
        params: params.clone(),
        version,
        changed: shared.changed.subscribe(),
        cut: shared.cut.subscribe(),
        deadline: tokio::time::Instant::now() + std::time::Duration::from_secs(seconds),
        rest: None,
        has_ended: false,
        is_mute: store.is_mute,
    };
    let pieces = futures::stream::unfold(watcher, |mut watcher| async move {
        let piece = watcher.next().await?;
        Some((piece, watcher))
    });
    Body::from_stream(pieces).into_response()
}

impl Watcher {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if let Some(rest) = self.rest.take() {
            return Some(Ok(rest));
        }
        loop {
            if self.has_ended {
                return None;
            }
            if !self.is_mute
                && let Some(event) = self.event()
            {
                let line = format!("{event}\n").into_bytes();
                let half = line.len() / 2;
                self.rest = Some(Bytes::copy_from_slice(&line[half..]));
                return Some(Ok(Bytes::copy_from_slice(&line[..half])));
            }
            tokio::select! {
                _ = self.changed.changed() => {}
                _ = self.cut.changed() => return Some(Err(io::Error::other("cut"))),
                () = tokio::time::sleep_until(self.deadline) => {
                    self.has_ended = true;
                    // As a real one: a bookmark shortly before the end.
                    let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "X", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string()}}});
                    if !self.is_mute {
                        return Some(Ok(Bytes::from(format!("{bookmark}\n"))));
                    }
                    // Neither a word nor an end.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    fn event(&mut self) -> Option<Value> {
        let store = self.shared.store.lock().unwrap();
        if self.version < store.forgotten {
            self.has_ended = true;
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "message": "too old resource version", "code": 410});
            return Some(json!({"type": "ERROR", "object": status}));
        }
        let entries: Vec<_> =
            store.log.iter().filter(|entry| entry.version > self.version).cloned().collect();
        drop(store);
        for entry in entries {
            self.version = entry.version;
            if entry.resource != self.resource {
                continue;
            }
            let had = entry.old.as_ref().is_some_and(|old| matches(old, &self.params));
            let has = entry.new.as_ref().is_some_and(|new| matches(new, &self.params));
            let (kind, object) = match (had, has, entry.old, entry.new) {
                (false, true, _, Some(new)) => ("ADDED", new),
                (true, true, _, Some(new)) => ("MODIFIED", new),
                (true, false, Some(mut old), _) => {
                    old["metadata"]["resourceVersion"] = json!(entry.version.to_string());
                    ("DELETED", old)
                }
                _ => continue,
            };
            return Some(json!({"type": kind, "object": object}));
        }
        None
    }
}
