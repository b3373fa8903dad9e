//! Asks children whether they are ready; only while starting.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const INTERVAL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(5);
/// A `/ready` answer is a status line, a few headers and a line of reason.
const LONGEST_ANSWER: u64 = 8192;

/// Returns once every `/ready` has answered 200; `waiting_for` always holds the last word of the one asked.
///
/// # Cancel safety
/// Cancel safe.
pub(crate) async fn all_ready(processes: &[(String, SocketAddr)], waiting_for: &mut String) {
    for (name, address) in processes {
        loop {
            match tokio::time::timeout(PATIENCE, ask(*address)).await {
                Ok(Ok(None)) => break,
                Ok(Ok(Some(reason))) => *waiting_for = format!("{name}: {reason}"),
                Ok(Err(error)) => *waiting_for = format!("{name}: {error}"),
                Err(_) => *waiting_for = format!("{name}: no answer from http://{address}/ready"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// `None` when ready, else the reason. By hand, because an HTTP client that loads TLS roots takes longer than the start.
async fn ask(address: SocketAddr) -> io::Result<Option<String>> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(None),
        Some(_) => Ok(Some(body.trim().to_owned())),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer")),
    }
}
