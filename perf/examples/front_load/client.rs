//! Clients: one connection a stream, read as it comes.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::times::Times;

/// What a request's id begins with; its stream's number follows.
pub(crate) const ID: &str = "load-";
/// Stands in the event of each token, and in no other.
const MARK: &[u8] = b"\"content\":\"";

/// Reads all streams to their end.
pub(crate) async fn run(address: &str, streams: usize, times: &Arc<Times>) -> anyhow::Result<()> {
    let mut reading = JoinSet::new();
    for stream in 0..streams {
        reading.spawn(read(address.to_owned(), stream, times.clone()));
        // Streams begin one after the other, spread over the time between two tokens many times over.
        sleep(Duration::from_millis(3)).await;
    }
    while let Some(read) = reading.join_next().await {
        read??;
    }
    Ok(())
}

async fn read(address: String, stream: usize, times: Arc<Times>) -> anyhow::Result<()> {
    let body = serde_json::json!({
        "messages": [{ "role": "user", "content": "Say something." }],
        "stream": true, "max_tokens": times.tokens(), "ignore_eos": true, "temperature": 0,
    })
    .to_string();
    let mut connection = TcpStream::connect(&address).await?;
    connection.set_nodelay(true)?;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         x-request-id: {ID}{stream}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).await?;
    let (mut text, mut token) = (Vec::with_capacity(16 << 10), 0);
    while connection.read_buf(&mut text).await? > 0 {
        let mut read = 0;
        while let Some(end) = text[read..].windows(2).position(|bytes| bytes == b"\n\n") {
            let event = &text[read..read + end];
            let mark = event.windows(MARK.len()).position(|bytes| bytes == MARK);
            // An empty one only says who speaks.
            let has_text =
                mark.is_some_and(|at| event.get(at + MARK.len()).is_some_and(|byte| *byte != b'"'));
            if has_text && token < times.tokens() {
                times.came(stream, token);
                token += 1;
            }
            read += end + 2;
        }
        text.drain(..read);
    }
    if token < times.tokens() {
        bail!("stream {stream} ended after {token} tokens: {}", String::from_utf8_lossy(&text));
    }
    Ok(())
}

/// Waits until the front would serve.
pub(crate) async fn wait_until_ready(address: &str) -> anyhow::Result<()> {
    let asking = async {
        loop {
            let mut connection = TcpStream::connect(address).await?;
            let head = format!("GET /ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
            connection.write_all(head.as_bytes()).await?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await?;
            if answer.starts_with("HTTP/1.1 200") {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), asking).await.context("the front does not become ready")?
}
