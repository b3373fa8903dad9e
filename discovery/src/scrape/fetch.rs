//! One GET at a time over a connection that is kept. The connection is driven by whoever waits for the answer, so it needs no task.

use std::{io, net::SocketAddr, pin::pin, sync::Arc};

use bytes::Bytes;
use futures::future::{Either, select};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::load::{Load, Page, PageError, Seen};

/// Why a load can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// Nobody listens, or there is no way.
    #[error("no connection: {0}")]
    Connect(Arc<str>),
    /// Whoever answers speaks something else, such as HTTP/2 alone.
    #[error("what answers does not speak HTTP/1.1: {0}")]
    NotHttp1(Arc<str>),
    /// It began, and broke.
    #[error("the connection broke: {0}")]
    Broken(Arc<str>),
    /// It takes too long.
    #[error("no complete answer in time")]
    Timeout,
    /// Something other than a page.
    #[error("status {0} instead of a page: is this the path of its metrics?")]
    Status(StatusCode),
    /// More than a page.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// Not the page of a model server.
    #[error(transparent)]
    Page(#[from] PageError),
}

impl ScrapeError {
    /// Whether a server is there that may do all but tell its load.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Broken(_) | Self::Timeout => false,
            Self::Status(status) => !status.is_server_error(),
            Self::NotHttp1(_) | Self::TooLong(_) | Self::Page(_) => true,
        }
    }

    /// A word for a label.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::NotHttp1(_) => "not_http1",
            Self::Broken(_) => "broken",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::TooLong(_) => "too_long",
            Self::Page(_) => "page",
        }
    }
}

/// Asks one server.
pub(super) struct Fetch {
    address: SocketAddr,
    host: String,
    most_bytes: usize,
    open: Option<Open>,
    /// Bytes of pages so far.
    pub(super) bytes: u64,
}

type Driver = http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>;

struct Open {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: Driver,
    is_used: bool,
}

/// Broke before anything was answered: on a connection that had been idle, that is how its end shows.
struct Unanswered(ScrapeError);

impl Fetch {
    pub(super) fn new(address: SocketAddr, most_bytes: usize) -> Self {
        Self { address, host: address.to_string(), most_bytes, open: None, bytes: 0 }
    }

    /// Asks once; a second time, over a new connection, if the kept one turns out to be closed.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(super) async fn get(&mut self, path: &str) -> Result<(Load, Seen), ScrapeError> {
        if let Some(open) = self.open.take() {
            match self.exchange(open, path).await {
                Err(Unanswered(_)) => {}
                Ok(outcome) => return outcome,
            }
        }
        let open = self.connect().await?;
        self.exchange(open, path).await.unwrap_or_else(|Unanswered(error)| Err(error))
    }

    async fn connect(&self) -> Result<Open, ScrapeError> {
        let failed = |error: &dyn std::fmt::Display| ScrapeError::Connect(error.to_string().into());
        let stream = TcpStream::connect(self.address).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error: io::Error| failed(&error))?;
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        Ok(Open { sender, driver, is_used: false })
    }

    async fn exchange(
        &mut self,
        open: Open,
        path: &str,
    ) -> Result<Result<(Load, Seen), ScrapeError>, Unanswered> {
        let Open { mut sender, mut driver, is_used } = open;
        let (outcome, is_open) = {
            let read = pin!(read(&mut sender, self.request(path), self.most_bytes, &mut self.bytes));
            match select(read, &mut driver).await {
                Either::Left((outcome, _)) => (outcome, true),
                // It ends when the answer was its last; what was received is still there to be read.
                Either::Right((_, read)) => (read.await, false),
            }
        };
        match outcome {
            Ok(Ok(page)) => {
                if is_open {
                    self.open = Some(Open { sender, driver, is_used: true });
                }
                Ok(page.finish().map_err(ScrapeError::from))
            }
            // The rest of the answer is not waited for: the connection goes.
            Ok(Err(error)) => Ok(Err(error)),
            Err(error) if is_used => Err(Unanswered(error)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn request(&self, path: &str) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        // Paths were checked where they came in.
        *request.uri_mut() = path.parse().unwrap_or_default();
        if let Ok(host) = self.host.parse() {
            request.headers_mut().insert(header::HOST, host);
        }
        request
            .headers_mut()
            .insert(header::ACCEPT, http::HeaderValue::from_static("text/plain;version=0.0.4"));
        request
    }
}

/// The answer; the outer error is one before it began.
async fn read(
    sender: &mut http1::SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
    most_bytes: usize,
    total: &mut u64,
) -> Result<Result<Page, ScrapeError>, ScrapeError> {
    let broken = |error: hyper::Error| match error.is_parse() {
        true => ScrapeError::NotHttp1(error.to_string().into()),
        false => ScrapeError::Broken(error.to_string().into()),
    };
    sender.ready().await.map_err(broken)?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::OK {
        return Ok(Err(ScrapeError::Status(response.status())));
    }
    let mut body = response.into_body();
    let mut page = Page::default();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Ok(Err(broken(error))),
        };
        let Some(piece) = frame.data_ref() else { continue };
        bytes += piece.len();
        *total += piece.len() as u64;
        if bytes > most_bytes {
            return Ok(Err(ScrapeError::TooLong(most_bytes)));
        }
        if let Err(error) = page.push(piece) {
            return Ok(Err(error.into()));
        }
    }
    Ok(Ok(page))
}
