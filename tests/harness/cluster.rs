//! As much of a Kubernetes API server as a picker needs to find the pods of InferencePools: objects that do not change.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{ANY, serving::Serving};

/// It ends when dropped.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    _serving: Serving,
}

/// By resource.
type Objects = Arc<HashMap<&'static str, Vec<Value>>>;

impl Cluster {
    /// With these objects, in any namespace.
    pub(crate) fn start(pods: Vec<Value>, pools: Vec<Value>) -> Self {
        let objects = Arc::new(HashMap::from([("pods", pods), ("inferencepools", pools)]));
        let app = Router::new()
            .route("/api/v1/namespaces/{namespace}/{resource}", get(core))
            .route("/apis/{group}/{version}/namespaces/{namespace}/{resource}", get(grouped))
            .with_state(objects);
        let listener = std::net::TcpListener::bind(ANY).expect("a free port");
        let serving = Serving::http1(listener, app);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{}", serving.address()) } }],
            "users": [{ "name": "test", "user": {} }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        });
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("config"), config.to_string()).expect("written");
        Self { folder, _serving: serving }
    }

    /// The file that leads a client here (`KUBECONFIG`).
    pub(crate) fn config(&self) -> String {
        self.folder.path().join("config").display().to_string()
    }
}

type Parameters = Query<HashMap<String, String>>;

async fn core(
    State(objects): State<Objects>,
    Path((_, resource)): Path<(String, String)>,
    parameters: Parameters,
) -> Response {
    answer(&objects, &resource, &parameters)
}

async fn grouped(
    State(objects): State<Objects>,
    Path((_, _, _, resource)): Path<(String, String, String, String)>,
    parameters: Parameters,
) -> Response {
    answer(&objects, &resource, &parameters)
}

/// A watch tells nothing, as nothing happens.
fn answer(objects: &Objects, resource: &str, parameters: &Parameters) -> Response {
    if parameters.get("watch").is_some_and(|watch| watch == "true") {
        let nothing = tokio_stream::pending::<Result<Bytes, Infallible>>();
        return Body::from_stream(nothing).into_response();
    }
    let selected = |object: &&Value| {
        let has = |selector: &str, place: &str| {
            let (name, value) = parameters.get(selector)?.split_once('=')?;
            Some(object.pointer(&format!("{place}/{}", name.trim_start_matches("metadata.")))? == value)
        };
        let labels = has("labelSelector", "/metadata/labels");
        labels.or_else(|| has("fieldSelector", "/metadata")).unwrap_or(false)
    };
    let items: Vec<&Value> = objects.get(resource).into_iter().flatten().filter(selected).collect();
    Json(
        json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items }),
    )
    .into_response()
}
