//! The traffic that a scheduler has had lately, as the trace.

use std::{io::Write as _, path::PathBuf, time::Duration};

use baton_workload::{Workload, WorkloadArgs};
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::runtime;

use crate::TuneError;

/// Options that take a scheduler's traffic in place of a file.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Live traffic")]
pub struct LiveArgs {
    /// Take the requests that came to this Baton scheduler lately: their times, lengths and shared beginnings. It keeps no text
    #[arg(long, value_name = "URL", value_parser = parse_url, group = "recorded")]
    live: Option<Url>,

    /// How far back
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600, requires = "live", value_parser = clap::value_parser!(u32).range(1..))]
    live_seconds: u32,

    /// An operator's key, where the scheduler asks for one
    #[arg(long, env = "BATON_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,

    /// Certificates that the scheduler's is checked against, beside the system's
    #[arg(long, env = "BATON_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
}

/// A scheduler's traffic can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Nobody answers.
    #[error("no scheduler answers at {url}: {why} (--live says where it is)")]
    Unreachable {
        /// Where.
        url: Url,
        /// What happened.
        why: String,
    },
    /// It shows its traffic to operators only.
    #[error(
        "{url} shows its traffic to operators only: give the key of one with --api-key or BATON_API_KEY ({message})"
    )]
    KeyNeeded {
        /// Where.
        url: Url,
        /// What it said.
        message: String,
    },
    /// It has no such record.
    #[error(
        "{url} tells no traffic ({status}: {message}): only Baton's schedulers do, of this version or a later one"
    )]
    NotTold {
        /// Where.
        url: Url,
        /// Its status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// There was none.
    #[error(
        "no request has come to {url} in the last {seconds:.0} s, which is as far back as it was asked or remembers: ask for more \
         with --live-seconds, or wait for traffic"
    )]
    Nothing {
        /// Where.
        url: Url,
        /// How far back it looked.
        seconds: f64,
    },
    /// Certificates that can't be used.
    #[error("--tls-ca {}: {why}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no room for it, or there can be no runtime.
    #[error("the traffic can't be kept in a temporary file: {0}")]
    File(#[from] std::io::Error),
}

/// What is to be simulated.
pub(crate) struct Traced {
    pub(crate) workload: Workload,
    /// What it is, for people; nothing if they said it themselves.
    pub(crate) head: String,
    // Gone with it.
    _file: Option<NamedTempFile>,
}

/// Traffic in a file.
struct Fetched {
    file: NamedTempFile,
    requests: u64,
    /// How far back all of it is there.
    seconds: f64,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl LiveArgs {
    /// What `args` say, on live traffic where that is asked for.
    ///
    /// # Errors
    /// [`TuneError`].
    pub(crate) fn source(&self, args: &WorkloadArgs) -> Result<Traced, TuneError> {
        let Some(url) = &self.live else {
            return Ok(Traced { workload: args.workload()?, head: String::new(), _file: None });
        };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(LiveError::File)?;
        let fetched = runtime.block_on(self.fetch(url))?;
        let mut args = args.clone();
        args.source.take_rows(fetched.file.path().to_owned());
        let head =
            format!("{} requests of the last {:.0} s from {url}\n\n", fetched.requests, fetched.seconds);
        Ok(Traced { workload: args.workload()?, head, _file: Some(fetched.file) })
    }

    async fn fetch(&self, url: &Url) -> Result<Fetched, LiveError> {
        let mut asked = url.clone();
        let base = url.path().trim_end_matches('/').trim_end_matches("/v1").to_owned();
        asked.set_path(&(base + "/v1/traffic"));
        asked.set_query(Some(&format!("seconds={}", self.live_seconds)));
        let mut request = self.client()?.get(asked);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key);
        }
        let unreachable =
            |error: reqwest::Error| LiveError::Unreachable { url: url.clone(), why: why(&error) };
        let mut answer = request.send().await.map_err(unreachable)?;
        let number = |name| answer.headers().get(name)?.to_str().ok()?.parse::<f64>().ok();
        let told = (number("x-baton-traffic-requests"), number("x-baton-traffic-seconds"));
        let (StatusCode::OK, (Some(requests), Some(seconds))) = (answer.status(), told) else {
            return Err(refused(url, answer).await);
        };
        if requests < 1.0 {
            return Err(LiveError::Nothing { url: url.clone(), seconds });
        }
        let mut file = NamedTempFile::with_suffix(".jsonl")?;
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            file.write_all(&chunk)?;
        }
        file.flush()?;
        Ok(Fetched { file, requests: requests as u64, seconds })
    }

    fn client(&self) -> Result<Client, LiveError> {
        let mut client = Client::builder().connect_timeout(PATIENCE).read_timeout(PATIENCE);
        if let Some(path) = &self.tls_ca {
            let bad = |why: String| LiveError::Certificates { path: path.clone(), why };
            let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| bad(why(&error)))?;
            if certificates.is_empty() {
                return Err(bad("it holds no certificate in PEM form".to_owned()));
            }
            client = certificates.into_iter().fold(client, |client, ca| client.add_root_certificate(ca));
        }
        client.build().map_err(|error| LiveError::File(std::io::Error::other(error)))
    }
}

async fn refused(url: &Url, answer: Response) -> LiveError {
    let (url, status) = (url.clone(), answer.status());
    let body: Option<Value> = answer.bytes().await.ok().and_then(|body| serde_json::from_slice(&body).ok());
    let message = body.as_ref().and_then(|body| body["error"]["message"].as_str());
    let message = message.unwrap_or("without a reason").to_owned();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => LiveError::KeyNeeded { url, message },
        _ => LiveError::NotTold { url, status, message },
    }
}

/// The last cause, which says most.
fn why(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| "use http://HOST:PORT or https://HOST:PORT".to_owned())
}
