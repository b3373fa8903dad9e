//! Requests out of bytes.

/// A whole request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Fit to stand in a header and in JSON.
    pub(super) request_id: Option<String>,
    pub(super) body: Vec<u8>,
}

/// What stands at the beginning of the bytes that a connection sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not all of it is here yet.
    Partial {
        /// The client waits for "100 Continue" before it sends the body.
        waits: bool,
    },
    /// A request and its length.
    Whole(Request, usize),
    /// What follows can't be understood either.
    Wrong { status: &'static str, why: &'static str },
}

const MOST_HEADERS: usize = 64;
const MOST_HEAD_BYTES: usize = 64 << 10;
const MOST_BODY_BYTES: usize = 64 << 20;

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MOST_HEAD_BYTES => {
            return Parsed::Partial { waits: false };
        }
        Ok(httparse::Status::Partial) => {
            return Parsed::Wrong {
                status: "431 Request Header Fields Too Large",
                why: "the head is over 64 KiB",
            };
        }
        Err(_) => return Parsed::Wrong { status: "400 Bad Request", why: "this is not HTTP/1.1" },
    };
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    if header("transfer-encoding").is_some() {
        return Parsed::Wrong { status: "411 Length Required", why: "give the body a content-length" };
    }
    let body = match header("content-length").map_or(Ok(0), str::parse::<usize>) {
        Ok(body) if body <= MOST_BODY_BYTES => body,
        Ok(_) => {
            return Parsed::Wrong { status: "413 Content Too Large", why: "the body is over 64 MiB" };
        }
        Err(_) => return Parsed::Wrong { status: "400 Bad Request", why: "content-length is no number" },
    };
    let Some(content) = bytes.get(length..length + body) else {
        let waits = bytes.len() == length
            && header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        return Parsed::Partial { waits };
    };
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: head.path.unwrap_or_default().to_owned(),
        request_id: header("x-request-id").filter(|id| is_plain(id)).map(str::to_owned),
        body: content.to_vec(),
    };
    Parsed::Whole(request, length + body)
}

fn is_plain(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    !id.is_empty() && id.len() <= 128 && id.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &[u8] =
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 4\r\nX-Request-Id: r-1\r\n\r\nbody";

    #[test]
    fn a_request_is_read_however_it_is_cut() {
        for length in 0..POST.len() {
            assert_eq!(parse(&POST[..length]), Parsed::Partial { waits: false }, "{length} bytes");
        }
        let mut two = POST.to_vec();
        two.extend_from_slice(b"GET /health HTTP/1.1\r\n\r\n");
        let Parsed::Whole(first, length) = parse(&two) else { panic!("no request") };
        assert_eq!((first.body.as_slice(), first.request_id.as_deref()), (b"body".as_slice(), Some("r-1")));
        let Parsed::Whole(second, _) = parse(&two[length..]) else { panic!("no second request") };
        assert_eq!((second.method.as_str(), second.path.as_str()), ("GET", "/health"));
    }

    #[test]
    fn what_is_no_request_is_said() {
        let status = |bytes: &[u8]| match parse(bytes) {
            Parsed::Wrong { status, .. } => status[..3].to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(status(b"\x16\x03\x01 hello\r\n\r\n"), "400");
        assert_eq!(status(b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n"), "400");
        assert_eq!(status(b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n"), "413");
        assert_eq!(status(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"), "411");
        assert_eq!(
            status(&[b"GET / HTTP/1.1\r\na: ".as_slice(), &vec![b'x'; MOST_HEAD_BYTES]].concat()),
            "431"
        );
        let waiting = b"POST / HTTP/1.1\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
        assert_eq!(parse(waiting), Parsed::Partial { waits: true });
    }
}
