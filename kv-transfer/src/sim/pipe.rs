//! Control connections as pipes: bytes arrive in order and late, until one end is gone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rand::Rng;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Net, net};

/// Bytes that a pipe holds.
const CAPACITY: usize = 16 << 10;
/// Connections that may wait to be accepted.
const BACKLOG: usize = 16;

thread_local! {
    static LISTENERS: RefCell<BTreeMap<usize, mpsc::Sender<End>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Listens under a name; whoever did so before is not reached any more.
pub(crate) fn listen(name: usize) -> mpsc::Receiver<End> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    LISTENERS.with_borrow_mut(|listeners| listeners.insert(name, sender));
    receiver
}

/// Forgets all listeners.
pub(super) fn clear() {
    LISTENERS.with_borrow_mut(BTreeMap::clear);
}

/// Dials one node from another, both named `sim:NUMBER` or by the number alone.
pub(crate) async fn connect(from: &str, to: &str) -> io::Result<End> {
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let number = |name: &str| name.trim_start_matches("sim:").parse::<usize>().map_err(|_| refused());
    let (net, from, to) = (net().ok_or_else(refused)?, number(from)?, number(to)?);
    let listener = LISTENERS.with_borrow(|listeners| listeners.get(&to).cloned()).ok_or_else(refused)?;
    let node = |name| net.lock().names.get(&name).copied().ok_or_else(refused);
    let (from, to) = (node(from)?, node(to)?);
    if !net.lock().ports[to].is_alive() || !net.lock().ports[from].is_alive() {
        return Err(refused());
    }
    let (here, near) = tokio::io::duplex(CAPACITY);
    let (far, there) = tokio::io::duplex(CAPACITY);
    let pipe = Pipe::default();
    net.lock().pipes.push((from, to, pipe.clone()));
    let (near_reads, near_writes) = tokio::io::split(near);
    let (far_reads, far_writes) = tokio::io::split(far);
    tokio::spawn(carry(net.clone(), (from, to), near_reads, far_writes, pipe.clone(), 1));
    tokio::spawn(carry(net, (to, from), far_reads, near_writes, pipe.clone(), 0));
    let end = |stream| End { stream, silent: pipe.silent.clone() };
    listener.send(end(there)).await.map_err(|_| refused())?;
    Ok(end(here))
}

/// How a connection ends that its ends did not end.
#[derive(Clone, Default)]
pub(super) struct Pipe {
    /// What its dialler hears, and what its listener hears.
    pub(super) cuts: [CancellationToken; 2],
    /// An end that is cut off hears nothing, rather than of the end.
    pub(super) silent: Arc<AtomicBool>,
}

impl Pipe {
    pub(super) fn cut(&self) {
        self.cuts.iter().for_each(CancellationToken::cancel);
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    stream: DuplexStream,
    silent: Arc<AtomicBool>,
}

/// Carries bytes from a node to another, each time after a while. The end of them is carried too, and nothing else of an end.
async fn carry(
    net: Net,
    (from, to): (usize, usize),
    mut reads: ReadHalf<DuplexStream>,
    mut writes: WriteHalf<DuplexStream>,
    pipe: Pipe,
    end: usize,
) {
    let mut bytes = vec![0; CAPACITY];
    let carried = async {
        loop {
            let count = reads.read(&mut bytes).await?;
            if pipe.silent.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if count == 0 {
                net.ended(from).await;
                net.ended(to).await;
                net.running(to).await;
                return Ok::<_, io::Error>(());
            }
            let delay = net.lock().random.random_range(0..8);
            if delay > 3 {
                tokio::time::sleep(Duration::from_millis(delay - 3)).await;
            }
            net.running(to).await;
            writes.write_all(&bytes[..count]).await?;
        }
    };
    let _ = pipe.cuts[end].run_until_cancelled(carried).await;
    let _ = writes.shutdown().await;
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        let ended = matches!(read, Poll::Ready(Ok(()))) && into.filled().len() == before;
        if ended && self.silent.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
