//! The three requests that the hub is asked: what is in a revision, what a file is, and its bytes.

use std::time::Duration;

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{CONTENT_LENGTH, ETAG, HeaderMap, RANGE},
    redirect::Policy,
};
use serde::Deserialize;

use crate::{HubConfig, HubError, HubId};

/// Longest time without a byte before a request counts as broken.
const STALL: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);

/// A revision as the hub describes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Revision {
    /// The commit.
    pub(crate) sha: String,
    /// Its files.
    pub(crate) siblings: Vec<Sibling>,
}

/// A file of a revision.
#[derive(Debug, Deserialize)]
pub(crate) struct Sibling {
    /// Path in the repository.
    pub(crate) rfilename: String,
}

/// What a file's content is.
#[derive(Clone, Debug)]
pub(crate) struct FileInfo {
    pub(crate) name: String,
    /// Hash of the content: SHA-256 of a large file, git's blob SHA-1 of a small one; the blob's name in the cache.
    pub(crate) etag: String,
    pub(crate) size: u64,
}

/// One model on the hub.
pub(crate) struct HubClient<'a> {
    config: &'a HubConfig,
    id: &'a HubId,
    /// Follows redirects, to wherever the bytes are.
    bytes: Client,
    /// Follows none: the first answer has the headers that describe the file.
    heads: Client,
}

impl<'a> HubClient<'a> {
    pub(crate) fn new(config: &'a HubConfig, id: &'a HubId) -> Result<Self, HubError> {
        let unusable = |source| HubError::Unreachable { endpoint: config.endpoint.clone(), source };
        let builder = || {
            let agent = concat!("baton/", env!("CARGO_PKG_VERSION"));
            Client::builder().user_agent(agent).connect_timeout(CONNECT).read_timeout(STALL)
        };
        let bytes = builder().build().map_err(unusable)?;
        let heads = builder().redirect(Policy::none()).build().map_err(unusable)?;
        Ok(Self { config, id, bytes, heads })
    }

    /// The commit and files of the id's revision.
    pub(crate) async fn revision(&self) -> Result<Revision, HubError> {
        let url = format!(
            "{}/api/models/{}/revision/{}",
            self.config.endpoint,
            self.id.repository(),
            self.id.revision().replace('/', "%2F")
        );
        let response = self.send(self.request(&self.bytes, Method::GET, &url)).await?;
        self.check(&url, &response)?;
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        serde_json::from_slice(&body)
            .map_err(|error| HubError::Unexpected { url, what: format!("no revision in JSON: {error}") })
    }

    /// Size and hash of `file` at `commit`.
    pub(crate) async fn file_info(&self, commit: &str, file: &str) -> Result<FileInfo, HubError> {
        let mut url = self.file_url(commit, file);
        // A renamed repository answers with a relative redirect; an absolute one leads to the bytes.
        for _ in 0..3 {
            let response = self.send(self.request(&self.heads, Method::HEAD, &url)).await?;
            match relative_redirect(&response) {
                Some(path) => url = format!("{}{path}", self.config.endpoint),
                None if response.status().is_redirection() => {
                    return describe(file, &url, response.headers());
                }
                None => {
                    self.check(&url, &response)?;
                    return describe(file, &url, response.headers());
                }
            }
        }
        Err(HubError::Unexpected { url, what: "too many redirects".to_owned() })
    }

    /// The bytes of `file` from `start` on: 206, or 200 with all of them, or 416.
    ///
    /// The caller may try again when this fails with [`HubError::Unreachable`].
    pub(crate) async fn bytes(&self, commit: &str, file: &str, start: u64) -> Result<Response, HubError> {
        let url = self.file_url(commit, file);
        let mut request = self.request(&self.bytes, Method::GET, &url);
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        let response = self.send(request).await?;
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            self.check(&url, &response)?;
        }
        Ok(response)
    }

    fn file_url(&self, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{file}", self.config.endpoint, self.id.repository())
    }

    fn request(&self, client: &Client, method: Method, url: &str) -> RequestBuilder {
        let request = client.request(method, url);
        match &self.config.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, HubError> {
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        match response.error_for_status_ref() {
            // Not this request's fault: the same as no answer, for who asks again.
            Err(source) if response.status().is_server_error() => Err(self.unreachable(source)),
            _ => Ok(response),
        }
    }

    fn unreachable(&self, source: reqwest::Error) -> HubError {
        HubError::Unreachable { endpoint: self.config.endpoint.clone(), source }
    }

    /// Turns the hub's refusals into facts.
    fn check(&self, url: &str, response: &Response) -> Result<(), HubError> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let (id, endpoint) = (self.id.to_string(), self.config.endpoint.clone());
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        Err(match (code, status) {
            (Some("RepoNotFound"), _) => HubError::NotFound { id, endpoint },
            (Some("RevisionNotFound"), _) => {
                HubError::NoRevision { id: self.id.repository(), revision: self.id.revision().to_owned() }
            }
            (Some("GatedRepo"), _) | (None, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                HubError::Refused { id, endpoint, advice: self.advice() }
            }
            (None, StatusCode::NOT_FOUND) => HubError::NotFound { id, endpoint },
            _ => HubError::Unexpected { url: url.to_owned(), what: status.to_string() },
        })
    }

    fn advice(&self) -> &'static str {
        if self.config.token.is_some() {
            "the token (HF_TOKEN) gives no access to it; accept the model's terms on its page, or use another token"
        } else {
            "it is gated or private; accept its terms on its page, then set HF_TOKEN to an access token"
        }
    }
}

fn relative_redirect(response: &Response) -> Option<String> {
    let location = response.headers().get("location")?.to_str().ok()?;
    let is_relative = location.starts_with('/') && !location.starts_with("//");
    (response.status().is_redirection() && is_relative).then(|| location.to_owned())
}

/// Reads the headers of a file's first answer; a large file has its own under `x-linked-…`.
fn describe(file: &str, url: &str, headers: &HeaderMap) -> Result<FileInfo, HubError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let unexpected = |what: &str| HubError::Unexpected { url: url.to_owned(), what: what.to_owned() };
    let etag = text("x-linked-etag").or_else(|| text(ETAG.as_str())).ok_or_else(|| unexpected("no ETag"))?;
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    // It becomes a file name.
    if etag.is_empty() || !etag.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(unexpected("the ETag is not a hash"));
    }
    let size = text("x-linked-size").or_else(|| text(CONTENT_LENGTH.as_str()));
    let size = size.and_then(|size| size.parse().ok()).ok_or_else(|| unexpected("no size"))?;
    Ok(FileInfo { name: file.to_owned(), etag: etag.to_owned(), size })
}
