//! HTTP/1.1 answers out of bytes, however they are cut (RFC 9112).

use std::num::ParseIntError;

/// Status and what the headers say that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) body: Body,
    /// Another request may be sent on the connection after it.
    pub(crate) keeps_open: bool,
    pub(crate) is_event_stream: bool,
    pub(crate) request_id: Option<String>,
}

/// Where the body ends, and how far it has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Over,
}

/// A place in a chunked body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// In a chunk's first line, of which this was read.
    Size(Vec<u8>),
    /// So many bytes of the chunk are to come.
    Data(u64),
    /// In the line end after a chunk, of which so many bytes were read.
    DataEnd(u8),
    /// In a line after the last chunk, of which so many bytes were read.
    Trailer(usize),
}

/// The bytes are no HTTP/1.1 answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAnswer {
    #[error("the server does not speak HTTP/1.1")]
    Head,
    #[error("the answer's headers are over 64 KiB")]
    HeadTooLong,
    #[error("the answer's content-length is no number")]
    Length,
    #[error("the answer's body is compressed or coded in a way that was not asked for")]
    Coding,
    #[error("the answer's chunks are not framed as HTTP says")]
    Chunk,
}

const MOST_HEADERS: usize = 128;
const MOST_HEAD_BYTES: usize = 64 << 10;
/// Of a chunk's first line and of each trailer.
const MOST_LINE_BYTES: usize = 4 << 10;

impl Head {
    /// The head at the beginning of `bytes` and its length, once all of it is there. Interim answers (1xx) are passed over.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, BadAnswer> {
        let mut skipped = 0;
        loop {
            let Some((head, length)) = parse_one(&bytes[skipped..])? else { return Ok(None) };
            skipped += length;
            if head.status >= 200 || head.status == 101 {
                return Ok(Some((head, skipped)));
            }
        }
    }
}

fn parse_one(bytes: &[u8]) -> Result<Option<(Head, usize)>, BadAnswer> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let length = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MOST_HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(BadAnswer::HeadTooLong),
        Err(_) => return Err(BadAnswer::Head),
    };
    let header = |name: &str| {
        let found = answer.headers.iter().rev().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let has_word = |name: &str, word: &str| {
        header(name).is_some_and(|value| value.split(',').any(|it| it.trim().eq_ignore_ascii_case(word)))
    };
    let status = answer.code.ok_or(BadAnswer::Head)?;
    if header("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(BadAnswer::Coding);
    }
    let body = match (header("transfer-encoding"), header("content-length")) {
        _ if status < 200 || status == 204 || status == 304 => Body::Over,
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => {
            Body::Chunked(Chunked::Size(Vec::new()))
        }
        (Some(_), _) => return Err(BadAnswer::Coding),
        (None, Some(length)) => match length.parse().map_err(|_: ParseIntError| BadAnswer::Length)? {
            0 => Body::Over,
            length => Body::Length(length),
        },
        (None, None) => Body::UntilClose,
    };
    let head = Head {
        status,
        keeps_open: body != Body::UntilClose
            && match answer.version {
                Some(1) => !has_word("connection", "close"),
                _ => has_word("connection", "keep-alive"),
            },
        body,
        is_event_stream: header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")),
        request_id: header("x-request-id").filter(|id| !id.is_empty()).map(str::to_owned),
    };
    Ok(Some((head, length)))
}

impl Body {
    /// Takes from `input` what belongs to the body, and gives its content to `content`. How many bytes those were: fewer than there
    /// are only when the body is over.
    pub(crate) fn read(&mut self, input: &[u8], content: &mut impl FnMut(&[u8])) -> Result<usize, BadAnswer> {
        let mut at = 0;
        while at < input.len() && *self != Self::Over {
            let rest = &input[at..];
            at += match self {
                Self::Over => 0,
                Self::UntilClose => {
                    content(rest);
                    rest.len()
                }
                Self::Length(left) => {
                    let length = take(left, rest, content);
                    if *left == 0 {
                        *self = Self::Over;
                    }
                    length
                }
                Self::Chunked(chunked) => match chunked.read(rest, content)? {
                    (length, true) => {
                        *self = Self::Over;
                        length
                    }
                    (length, false) => length,
                },
            };
        }
        Ok(at)
    }

    /// Whether an end of the connection here is the end of the body.
    pub(crate) fn may_end(&self) -> bool {
        matches!(self, Self::Over | Self::UntilClose)
    }
}

impl Chunked {
    /// As far as one state goes: the bytes that were taken, at least one, and whether the body is over.
    fn read(&mut self, input: &[u8], content: &mut impl FnMut(&[u8])) -> Result<(usize, bool), BadAnswer> {
        match self {
            Self::Size(line) => {
                let end = input.iter().position(|byte| *byte == b'\n');
                line.extend_from_slice(&input[..end.unwrap_or(input.len())]);
                if line.len() > MOST_LINE_BYTES {
                    return Err(BadAnswer::Chunk);
                }
                let Some(end) = end else { return Ok((input.len(), false)) };
                *self = match size(line)? {
                    0 => Self::Trailer(0),
                    size => Self::Data(size),
                };
                Ok((end + 1, false))
            }
            Self::Data(left) => {
                let length = take(left, input, content);
                if *left == 0 {
                    *self = Self::DataEnd(0);
                }
                Ok((length, false))
            }
            Self::DataEnd(read) => {
                match (*read, input[0]) {
                    (0, b'\r') => *read = 1,
                    (_, b'\n') => *self = Self::Size(Vec::new()),
                    _ => return Err(BadAnswer::Chunk),
                }
                Ok((1, false))
            }
            Self::Trailer(length) => match input[0] {
                b'\n' if *length == 0 => Ok((1, true)),
                b'\n' => {
                    *length = 0;
                    Ok((1, false))
                }
                b'\r' => Ok((1, false)),
                _ if *length > MOST_LINE_BYTES => Err(BadAnswer::Chunk),
                _ => {
                    *length += 1;
                    Ok((1, false))
                }
            },
        }
    }
}

/// The size in a chunk's first line; what follows a semicolon means nothing to us.
fn size(line: &[u8]) -> Result<u64, BadAnswer> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let digits = std::str::from_utf8(digits).map_err(|_| BadAnswer::Chunk)?;
    if digits.starts_with('+') {
        return Err(BadAnswer::Chunk);
    }
    u64::from_str_radix(digits, 16).map_err(|_| BadAnswer::Chunk)
}

/// Gives as much of `input` to `content` as there is `left`.
fn take(left: &mut u64, input: &[u8], content: &mut impl FnMut(&[u8])) -> usize {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    content(&input[..length]);
    *left -= length as u64;
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Head {
        Head::parse(text.as_bytes()).unwrap().unwrap().0
    }

    /// Reads `body` in pieces of the given sizes; the content, and what was left over.
    fn read(mut framing: Body, body: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<u8>), BadAnswer> {
        let (mut content, mut rest, mut cuts) = (Vec::new(), body, cuts.iter().cycle());
        while !rest.is_empty() && framing != Body::Over {
            let (piece, _) = rest.split_at(cuts.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len()));
            let taken = framing.read(piece, &mut |bytes| content.extend_from_slice(bytes))?;
            rest = &rest[taken..];
        }
        if framing.may_end() { Ok((content, rest.to_vec())) } else { Err(BadAnswer::Chunk) }
    }

    fn chunked() -> Body {
        Body::Chunked(Chunked::Size(Vec::new()))
    }

    #[test]
    fn heads_say_what_matters() {
        let stream = head(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Request-ID: r-7\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        assert!(stream.keeps_open && stream.is_event_stream && stream.body == chunked());
        assert_eq!((stream.status, stream.request_id.as_deref()), (200, Some("r-7")));
        let error = head("HTTP/1.1 503 Busy\r\ncontent-length: 12\r\nConnection: Close\r\n\r\n");
        assert!(!error.keeps_open && error.body == Body::Length(12));
        assert_eq!(head("HTTP/1.1 200 OK\r\n\r\n").body, Body::UntilClose);
        assert!(!head("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n").keeps_open);
        assert_eq!(head("HTTP/1.1 204 No Content\r\n\r\n").body, Body::Over);
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx";
        for length in 0..text.len() - 1 {
            assert_eq!(Head::parse(&text[..length]), Ok(None), "{length} bytes");
        }
        let (head, length) = Head::parse(text).unwrap().unwrap();
        assert_eq!((head.status, length), (200, text.len() - 1));
    }

    #[test]
    fn what_is_no_answer_is_said() {
        let parse = |text: &str| Head::parse(text.as_bytes());
        assert_eq!(parse("SSH-2.0-OpenSSH_9.6\r\n"), Err(BadAnswer::Head));
        assert_eq!(parse("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n"), Err(BadAnswer::Coding));
        assert_eq!(parse("HTTP/1.1 200 OK\r\ncontent-length: much\r\n\r\n"), Err(BadAnswer::Length));
        let endless = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(MOST_HEAD_BYTES));
        assert_eq!(parse(&endless), Err(BadAnswer::HeadTooLong));
        for bad in ["x\r\n", "+5\r\nhello\r\n", "5\r\nhello!\r\n", "\r\n", "fffffffffffffffff\r\n"] {
            assert_eq!(read(chunked(), bad.as_bytes(), &[1]), Err(BadAnswer::Chunk), "{bad:?}");
        }
    }

    #[test]
    fn a_body_that_ends_early_is_not_over() {
        for whole in ["5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\nx: y\r\n\r\n"] {
            for length in 0..whole.len() {
                assert!(read(chunked(), &whole.as_bytes()[..length], &[3]).is_err(), "{length} of {whole:?}");
            }
        }
        assert!(read(Body::Length(3), b"ab", &[9]).is_err());
    }

    proptest! {
        #[test]
        fn bodies_are_read_however_they_are_cut(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(1_usize..50, 1..8),
            has_trailer in any::<bool>(),
        ) {
            let mut wire = Vec::new();
            for part in &parts {
                wire.extend_from_slice(format!("{:X};ext=1\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(if has_trailer { b"0\r\nt: v\r\n\r\n" } else { b"0\r\n\r\n" });
            wire.extend_from_slice(b"HTTP");
            let content = parts.concat();
            // The last piece may reach into what follows; what is left then begins with it.
            let (read_content, _) = read(chunked(), &wire, &cuts).unwrap();
            prop_assert_eq!(&read_content, &content);
            let whole = read(chunked(), &wire, &[usize::MAX]).unwrap();
            prop_assert_eq!(whole, (content.clone(), b"HTTP".to_vec()));
            let length = Body::Length(content.len() as u64);
            if !content.is_empty() {
                prop_assert_eq!(read(length, &content, &cuts).unwrap(), (content, Vec::new()));
            }
        }
    }
}
