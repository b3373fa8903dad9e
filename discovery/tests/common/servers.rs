//! Servers with a metrics page, good and bad, that count what is asked of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// How a server answers.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// With this page, over a kept connection.
    Page(String),
    /// With the first, or the second where only named series are asked for.
    Narrow(String, String),
    /// With the page at `/metrics` alone.
    OnlyThere(String),
    /// With the page, after which it closes without having said so.
    CloseAfter(String),
    /// With a body that never ends.
    Endless,
    /// It reads, and says nothing.
    Never,
    /// A byte now and then.
    Drip(String),
    /// With bytes that are no HTTP.
    Garbage,
    /// With another status.
    Status(&'static str),
    /// Less than it announced.
    Short(String),
    /// One line without an end.
    Line,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicUsize,
    pub(crate) open: AtomicUsize,
    pub(crate) most_open: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    pub(crate) paths: Mutex<Vec<String>>,
}

/// A server; dropping it stops it and cuts its connections.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(manner: Manner) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), manner, Arc::default()).await
    }

    pub(crate) async fn start_at(address: SocketAddr, manner: Manner, counts: Arc<Counts>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let shared = counts.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.connections.fetch_add(1, SeqCst);
                connections.spawn(serve(stream, manner.clone(), shared.clone()));
            }
        });
        Self { address, counts, _tasks: tasks }
    }

    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(SeqCst)
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.counts.paths.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, counts: Arc<Counts>) {
    let open = counts.open.fetch_add(1, SeqCst) + 1;
    counts.most_open.fetch_max(open, SeqCst);
    // What goes wrong is that the other side went.
    let _ = talk(&mut stream, manner, &counts).await;
    counts.open.fetch_sub(1, SeqCst);
}

async fn talk(stream: &mut TcpStream, manner: Manner, counts: &Counts) -> std::io::Result<()> {
    loop {
        let path = request(stream).await?;
        counts.requests.fetch_add(1, SeqCst);
        counts.paths.lock().unwrap().push(path.clone());
        match &manner {
            Manner::Page(page) => answer(stream, page).await?,
            Manner::Narrow(wide, narrow) => {
                answer(stream, if path.contains("name%5B%5D=") { narrow } else { wide }).await?
            }
            Manner::OnlyThere(page) if path == "/metrics" => answer(stream, page).await?,
            Manner::OnlyThere(_) => {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?
            }
            Manner::CloseAfter(page) => {
                answer(stream, page).await?;
                // So that the end comes while the connection is idle.
                tokio::time::sleep(Duration::from_millis(2)).await;
                return Ok(());
            }
            Manner::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                loop {
                    stream.write_all(&b"vllm:some_series{a=\"b\"} 1\n".repeat(1000)).await?;
                }
            }
            // Until the other side has gone.
            Manner::Never => while stream.read_u8().await.is_ok() {},
            Manner::Drip(page) => {
                stream
                    .write_all(
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", page.len()).as_bytes(),
                    )
                    .await?;
                for byte in page.as_bytes() {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Manner::Garbage => return stream.write_all(b"\x16\x03\x01\x02\x00nonsense\r\n\r\n").await,
            Manner::Status(line) => {
                stream
                    .write_all(
                        format!(
                            "HTTP/1.1 {line}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
                        )
                        .as_bytes(),
                    )
                    .await?;
            }
            Manner::Short(page) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len() + 100);
                return stream.write_all(head.as_bytes()).await;
            }
            Manner::Line => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nvllm:num_requests_waiting{").await?;
                loop {
                    stream.write_all(&[b'a'; 10_000]).await?;
                }
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, page: &str) -> std::io::Result<()> {
    // In chunks of odd sizes.
    let mut text =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in page.as_bytes().chunks(777) {
        text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        text.extend_from_slice(piece);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    stream.write_all(&text).await
}

/// Reads one request; gives its path.
async fn request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    Ok(head.split(' ').nth(1).unwrap_or_default().to_owned())
}
