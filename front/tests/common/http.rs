//! An HTTP/1.1 client that shows the bytes.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is UTF-8")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body with the time of its making taken out.
    pub(crate) fn golden(&self) -> String {
        let text = self.text();
        let (before, after) = text.split_once("\"created\":").expect("a created field");
        let created: String = after.chars().take_while(char::is_ascii_digit).collect();
        format!("{before}\"created\":{after}").replace(&format!("\"created\":{created}"), "\"created\":0")
    }

    /// The data of each server-sent event.
    pub(crate) fn events(&self) -> Vec<String> {
        let text = self.text();
        assert!(text.ends_with("\n\n"), "{text:?}");
        text.trim_end()
            .split("\n\n")
            .map(|event| event.strip_prefix("data: ").expect("a data event").to_owned())
            .collect()
    }
}

/// A stream's head and, one at a time, its events.
pub(crate) struct EventReader {
    pub(crate) status: u16,
    reader: BufReader<TcpStream>,
}

impl EventReader {
    pub(crate) async fn open(address: SocketAddr, path: &str, body: &serde_json::Value) -> Self {
        Self::saying(address, path, &[], body).await
    }

    pub(crate) async fn saying(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: &serde_json::Value,
    ) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = body.to_string();
        stream.write_all(&request("POST", path, headers, body.as_bytes())).await.unwrap();
        let mut reader = BufReader::new(stream);
        let (status, _) = read_head(&mut reader).await;
        Self { status, reader }
    }

    /// The next event's data; `None` at the stream's regular end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let chunk = read_chunk(&mut self.reader).await?;
        Some(String::from_utf8(chunk).unwrap().trim_start_matches("data: ").trim_end().to_owned())
    }
}

/// Sends a request and reads the whole answer.
pub(crate) async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    raw(address, &request(method, path, headers, body)).await
}

/// Sends these very bytes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut reader = BufReader::new(stream);
    let (status, headers) = read_head(&mut reader).await;
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        while let Some(chunk) = read_chunk(&mut reader).await {
            body.extend(chunk);
        }
    } else {
        reader.read_to_end(&mut body).await.unwrap();
    }
    Answer { status, headers, body }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    if !body.is_empty() {
        text.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
    }
    if !headers.iter().any(|(name, _)| *name == "x-request-id") {
        text.push_str("x-request-id: test\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// Nothing that a test waits for takes so long: a hang is a failure, not a hang of the tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

async fn read_head(reader: &mut BufReader<TcpStream>) -> (u16, HashMap<String, String>) {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let read = timeout(PATIENCE, reader.read_line(&mut line)).await.expect("the server answers").unwrap();
        assert_ne!(read, 0, "the connection closed before the head: {lines:?}");
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
    let header =
        |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    (status, lines[1..].iter().filter_map(header).collect())
}

/// `None` is the last chunk: the server ended the body, it did not just hang up.
async fn read_chunk(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    timeout(PATIENCE, reader.read_line(&mut line)).await.expect("the server goes on").unwrap();
    let size = usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("not a chunk: {line:?}"));
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk).await.unwrap();
    chunk.truncate(size);
    (size > 0).then_some(chunk)
}
