//! Control connections as pipes: bytes arrive in order and late, until one end is gone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Net, net};

/// Bytes that a pipe holds.
const CAPACITY: usize = 16 << 10;
/// Connections that may wait to be accepted.
const BACKLOG: usize = 16;

thread_local! {
    static LISTENERS: RefCell<BTreeMap<usize, mpsc::Sender<DuplexStream>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Listens under a name; whoever did so before is not reached any more.
pub(crate) fn listen(name: usize) -> mpsc::Receiver<DuplexStream> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    LISTENERS.with_borrow_mut(|listeners| listeners.insert(name, sender));
    receiver
}

/// Forgets all listeners.
pub(super) fn clear() {
    LISTENERS.with_borrow_mut(BTreeMap::clear);
}

/// Dials one node from another, both named `sim:NUMBER` or by the number alone.
pub(crate) async fn connect(from: &str, to: &str) -> io::Result<DuplexStream> {
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
    let cut = CancellationToken::new();
    net.lock().pipes.push((from, to, cut.clone()));
    let (near_reads, near_writes) = tokio::io::split(near);
    let (far_reads, far_writes) = tokio::io::split(far);
    tokio::spawn(carry(net.clone(), (from, to), near_reads, far_writes, cut.clone()));
    tokio::spawn(carry(net, (to, from), far_reads, near_writes, cut));
    listener.send(there).await.map_err(|_| refused())?;
    Ok(here)
}

/// Carries bytes from a node to another, each time after a while.
async fn carry(
    net: Net,
    (from, to): (usize, usize),
    mut reads: ReadHalf<DuplexStream>,
    mut writes: WriteHalf<DuplexStream>,
    cut: CancellationToken,
) {
    let mut bytes = vec![0; CAPACITY];
    let carried = async {
        loop {
            let count = reads.read(&mut bytes).await?;
            if count == 0 {
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
    tokio::select! {
        biased;
        () = cut.cancelled() => {}
        _ = carried => {
            net.ended(from).await;
            net.ended(to).await;
        }
    }
    // Either end's hanging up ends both directions.
    cut.cancel();
}
