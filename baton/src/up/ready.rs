//! Asks children whether they are ready; only while starting.

use std::{io, net::SocketAddr, time::Duration};

use baton_tls::Dial;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout_at},
};

const INTERVAL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(5);
/// A `/ready` answer is a status line, a few headers and a line of reason.
const LONGEST_ANSWER: u64 = 8192;

/// Returns once every `/ready` has answered 200; `waiting_for` always holds the last word of the one asked.
///
/// # Cancel safety
/// Cancel safe.
pub(crate) async fn all_ready(dial: &Dial, processes: &[(String, SocketAddr)], waiting_for: &mut String) {
    for (name, address) in processes {
        loop {
            match tokio::time::timeout(PATIENCE, ask(dial, *address, "/ready")).await {
                Ok(Ok(Answer { is_ready: true, .. })) => break,
                Ok(Ok(Answer { words, .. })) => *waiting_for = format!("{name}: {words}"),
                Ok(Err(error)) => *waiting_for = format!("{name}: {error}"),
                Err(_) => *waiting_for = format!("{name}: no answer from {address}/ready"),
            }
            sleep(INTERVAL).await;
        }
    }
}

/// Returns once the front says that each prefill worker is connected to each decode worker, or can never be, but not later than
/// after `patience`: a request would be served in any case. What is not connected is in the lines.
///
/// # Cancel safety
/// Cancel safe.
pub(crate) async fn pairs_settled(dial: &Dial, front: SocketAddr, patience: Duration) -> Vec<String> {
    let deadline = Instant::now() + patience;
    let mut open = "the front did not answer".to_owned();
    let lines = |words: &str| words.lines().map(str::to_owned).collect();
    loop {
        match timeout_at(deadline, ask(dial, front, "/ready/pairs")).await {
            Ok(Ok(Answer { is_ready: true, words })) => return lines(&words),
            Ok(Ok(Answer { words, .. })) => open = words,
            Ok(Err(error)) => open = error.to_string(),
            Err(_) => return lines(&open),
        }
        sleep(INTERVAL).await;
    }
}

struct Answer {
    is_ready: bool,
    /// Its body: the reason, when not ready.
    words: String,
}

/// By hand, because an HTTP client that loads the system's TLS roots takes longer than the start.
async fn ask(dial: &Dial, address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = dial.http(&address.ip().to_string(), address.port()).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some(status) => Ok(Answer { is_ready: status == "200", words: body.trim().to_owned() }),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{net::TcpListener, sync::Mutex};

    use super::*;

    /// Gives these answers in turn, the last one from then on.
    async fn front(answers: &[(&str, &str)]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |(status, body): &(&str, &str)| format!("HTTP/1.1 {status}\r\nX: y\r\n\r\n{body}");
        let answers = Arc::new(Mutex::new(answers.iter().rev().map(answer).collect::<Vec<_>>()));
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 512];
                let read = connection.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /ready/pairs HTTP/1.1\r\n"));
                let mut answers = answers.lock().await;
                let answer = if answers.len() > 1 { answers.pop() } else { answers.first().cloned() };
                let _ = connection.write_all(answer.unwrap_or_default().as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn pairs_are_waited_for_and_those_that_can_never_be_are_named() {
        let settled = [("503 No", "prefill-0 is connecting"), ("200 OK", "a and b\na and c\n")];
        let front = front(&settled).await;
        assert_eq!(
            pairs_settled(&Dial::plain(), front, Duration::from_secs(20)).await,
            ["a and b", "a and c"]
        );
    }

    #[tokio::test]
    async fn pairs_that_do_not_come_about_are_not_waited_for_for_ever() {
        let front = front(&[("503 No", "prefill-0 cannot reach decode-0: cut")]).await;
        let open = pairs_settled(&Dial::plain(), front, Duration::from_millis(300)).await;
        assert_eq!(open, ["prefill-0 cannot reach decode-0: cut"]);
    }
}
