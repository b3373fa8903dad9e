//! Answers for those who speak plain text to a TLS port, in their own language, so that they know what to change.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// The first byte of every TLS connection: a handshake record.
const HANDSHAKE: u8 = 0x16;
/// For the answer to be read before the connection goes.
const LINGER: Duration = Duration::from_millis(500);
/// HTTP/2's error code for a connection without (good) TLS.
const INADEQUATE_SECURITY: u32 = 0xc;

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Tls,
    PlainText,
    /// It was closed without a word, as by a probe.
    Nothing,
}

/// Looks at the first byte, and leaves it there.
pub(crate) async fn opening(stream: &TcpStream) -> std::io::Result<Opening> {
    let mut first = [0];
    Ok(match stream.peek(&mut first).await? {
        0 => Opening::Nothing,
        _ if first[0] == HANDSHAKE => Opening::Tls,
        _ => Opening::PlainText,
    })
}

/// For a client of HTTP/1.1.
pub(crate) fn http_answer() -> Vec<u8> {
    let body = "this port speaks HTTPS: use https:// in the address\n";
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// For a client of gRPC: empty settings, and a GOAWAY with the reason (RFC 9113, 6.5 and 6.8).
pub(crate) fn grpc_answer() -> Vec<u8> {
    let reason = b"this port speaks TLS: give --tls-cert, --tls-key and --tls-ca";
    let mut answer = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    let length = 8 + u8::try_from(reason.len()).unwrap_or(u8::MAX - 8);
    answer.extend([0, 0, length, 7, 0, 0, 0, 0, 0]);
    answer.extend(0_u32.to_be_bytes());
    answer.extend(INADEQUATE_SECURITY.to_be_bytes());
    answer.extend(reason);
    answer
}

/// Sends `answer`, and closes so that it arrives: what the other side still sends would else be answered with a reset, which
/// may overtake the answer.
pub(crate) async fn close_with(mut stream: TcpStream, answer: &[u8]) {
    let closing = async {
        if stream.write_all(answer).await.is_err() || stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 1024];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    };
    let _ = timeout(LINGER, closing).await;
}
