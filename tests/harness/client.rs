//! A small HTTP client: one connection a request, so that dropping a stream hangs up.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    time::Duration,
};

use serde_json::Value;
use ureq::{Agent, Body, BodyReader, http::Response};

/// No answer of a healthy server takes so long, not even on a busy machine.
const LONGEST_ANSWER: Duration = Duration::from_secs(90);

/// Speaks to one server.
#[derive(Clone)]
pub(crate) struct Client {
    base: String,
    agent: Agent,
    headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) status: u16,
    /// Header values by lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    /// Body as text.
    pub(crate) body: String,
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// `data: {…}`
    Data(Value),
    /// `data: [DONE]`
    Done,
}

/// An open stream of server-sent events; dropping it hangs up.
pub(crate) struct Stream {
    lines: BufReader<BodyReader<'static>>,
}

impl Client {
    /// For the server at `base`, such as `http://127.0.0.1:8000`.
    pub(crate) fn new(base: impl Into<String>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LONGEST_ANSWER))
            .max_idle_connections(0)
            .build();
        Self { base: base.into(), agent: config.into(), headers: Vec::new() }
    }

    /// One that says this with each request.
    pub(crate) fn saying(&self, header: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((header.to_owned(), value.to_owned()));
        client
    }

    /// The server's address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// GETs a path; fails if nobody answers.
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {}{path}: {error}", self.base))
    }

    /// GETs a path.
    pub(crate) fn try_get(&self, path: &str) -> Result<Reply, ureq::Error> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.call().and_then(Reply::read)
    }

    /// POSTs JSON, and returns the whole answer.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    /// POSTs bytes that claim to be JSON, and returns the whole answer.
    pub(crate) fn post_bytes(&self, path: &str, body: &[u8]) -> Reply {
        Reply::read(self.send(path, body))
            .unwrap_or_else(|error| panic!("POST {}{path}: the answer broke off: {error}", self.base))
    }

    /// POSTs JSON; nobody may be there.
    pub(crate) fn try_post(&self, path: &str, body: &Value) -> Result<Reply, ureq::Error> {
        self.try_send(path, body.to_string().as_bytes()).and_then(Reply::read)
    }

    /// POSTs JSON with `"stream": true` in it, and returns the open stream.
    pub(crate) fn stream(&self, path: &str, body: &Value) -> Stream {
        let response = self.send(path, body.to_string().as_bytes());
        let kind = response
            .headers()
            .get("content-type")
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        if response.status() != 200 || !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            panic!("POST {}{path} {body}: no stream but {:?}", self.base, Reply::read(response));
        }
        Stream { lines: BufReader::new(response.into_body().into_reader()) }
    }

    fn send(&self, path: &str, body: &[u8]) -> Response<Body> {
        self.try_send(path, body)
            .unwrap_or_else(|error| panic!("POST {}{path}: no answer: {error}", self.base))
    }

    fn try_send(&self, path: &str, body: &[u8]) -> Result<Response<Body>, ureq::Error> {
        let mut request =
            self.agent.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.send(body)
    }
}

impl Reply {
    fn read(mut response: Response<Body>) -> Result<Self, ureq::Error> {
        let headers = response.headers().iter();
        let headers = headers
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let status = response.status().as_u16();
        Ok(Self { status, headers, body: response.body_mut().read_to_string()? })
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The body as JSON, of an answer that must be a success.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The body's `error` object, of an answer that must be that failure, in OpenAI's shape.
    pub(crate) fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let error = self.json()["error"].clone();
        for field in ["message", "type"] {
            assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "no error.{field}: {self:?}");
        }
        for field in ["param", "code"] {
            assert!(error.get(field).is_some(), "no error.{field}, not even null: {self:?}");
        }
        error
    }
}

impl Iterator for Stream {
    type Item = Event;

    /// The next event, or `None` at the end of the answer. A broken connection fails the test.
    fn next(&mut self) -> Option<Event> {
        let mut line = String::new();
        loop {
            line.clear();
            let length = self
                .lines
                .read_line(&mut line)
                .unwrap_or_else(|error| panic!("the stream broke off: {error}"));
            if length == 0 {
                return None;
            }
            match line.trim_end() {
                "" => {}
                comment if comment.starts_with(':') => {}
                "data: [DONE]" => return Some(Event::Done),
                data => {
                    let json =
                        data.strip_prefix("data: ").unwrap_or_else(|| panic!("not an SSE line: {data}"));
                    let value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
                    return Some(Event::Data(value));
                }
            }
        }
    }
}

impl Stream {
    /// The next event, which must be there and be JSON.
    pub(crate) fn data(&mut self) -> Value {
        match self.next() {
            Some(Event::Data(value)) => value,
            other => panic!("a JSON event was expected, not {other:?}"),
        }
    }

    /// All JSON events up to `[DONE]`, after which nothing may follow.
    pub(crate) fn until_done(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            match self.next() {
                Some(Event::Data(value)) => events.push(value),
                Some(Event::Done) => break,
                None => panic!("the stream ended without [DONE] after {:?}", events.last()),
            }
        }
        assert_eq!(self.next(), None, "nothing follows [DONE]");
        events
    }
}
