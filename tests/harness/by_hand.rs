//! Roles started one by one, as an operator does who has several machines.

use std::time::Duration;

use baton_proto::v1::{
    RegistryReply, WorkerInfo, WorkerReport,
    registry_client::RegistryClient,
    registry_server::{Registry, RegistryServer},
    worker_report::Report,
};
use serde_json::Value;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream, service::Routes};

use super::{ModelFolder, Process, serving::Serving};

/// Any free port of this machine.
pub(crate) const ANY: &str = "127.0.0.1:0";

const START_DEADLINE: Duration = Duration::from_secs(60);

/// The command line of a worker.
pub(crate) fn worker_args(role: &str, id: &str, model: &ModelFolder, registry: &str) -> Vec<String> {
    let model = model.arg();
    let line = [role, "--worker-id", id, "--model", &model, "--listen", ANY, "--admin-listen", ANY];
    words(&[&line[..], &["--registry", registry]].concat())
}

/// A command line from its words.
pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Starts a role, and waits until it says where it listens; the function looks an address up by name.
pub(crate) fn start(args: &[String]) -> (Process, impl Fn(&str) -> String + use<>) {
    start_with(args, &[])
}

/// As [`start`], with these variables in its environment.
pub(crate) fn start_with(
    args: &[String],
    environment: &[(&str, String)],
) -> (Process, impl Fn(&str) -> String + use<>) {
    let mut process = Process::start_with(args, environment);
    let listening = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("listening").cloned();
    let addresses = process.wait_for_stdout(START_DEADLINE, "the line with its listeners", listening);
    let at = move |name: &str| {
        addresses[name].as_str().unwrap_or_else(|| panic!("no {name} in {addresses}")).to_owned()
    };
    (process, at)
}

/// Stands between workers and the registry, and changes what workers say of themselves: a registry cannot know everything
/// that two workers must have in common.
pub(crate) struct LyingRegistry(Serving);

struct Lies {
    registry: String,
    lie: fn(&mut WorkerInfo, &str),
    about: String,
}

impl LyingRegistry {
    /// Before `registry`; `lie` is handed what a worker says of itself, and `about`.
    pub(crate) fn start(registry: &str, lie: fn(&mut WorkerInfo, &str), about: &str) -> Self {
        let lies = Lies { registry: format!("http://{registry}"), lie, about: about.to_owned() };
        Self(Serving::start(Routes::new(RegistryServer::new(lies))))
    }

    /// Where workers find it.
    pub(crate) fn address(&self) -> String {
        self.0.address().to_string()
    }
}

#[tonic::async_trait]
impl Registry for Lies {
    type JoinStream = BoxStream<RegistryReply>;

    async fn join(
        &self,
        request: Request<Streaming<WorkerReport>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let (lie, about) = (self.lie, self.about.clone());
        let reports = request.into_inner().map_while(Result::ok).map(move |mut report| {
            if let Some(Report::Hello(hello)) = &mut report.report {
                lie(hello, &about);
            }
            report
        });
        let mut client = RegistryClient::connect(self.registry.clone())
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let replies = client.join(reports).await?.into_inner();
        Ok(Response::new(Box::pin(replies)))
    }
}
