//! HTTP around answers.

use std::io::Write as _;

/// An answer in one piece.
pub(super) fn whole(status: &str, kind: &str, request_id: &str, body: &str, out: &mut Vec<u8>) {
    let _ = write!(
        out,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nx-request-id: {request_id}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
}

/// What comes before the events of a stream.
pub(super) fn stream(request_id: &str, out: &mut Vec<u8>) {
    let _ = write!(
        out,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n\
         x-request-id: {request_id}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
}

/// One chunk of the body: `parts`, joined.
pub(super) fn chunk(parts: &[&str], out: &mut Vec<u8>) {
    let _ = write!(out, "{:x}\r\n", parts.iter().map(|part| part.len()).sum::<usize>());
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// An error in OpenAI's shape.
pub(super) fn error(status: &str, message: &str, request_id: &str, out: &mut Vec<u8>) {
    let kind = if status.starts_with('5') { "server_error" } else { "invalid_request_error" };
    let body =
        serde_json::json!({ "error": { "message": message, "type": kind, "param": null, "code": null } });
    whole(status, "application/json", request_id, &body.to_string(), out);
}
