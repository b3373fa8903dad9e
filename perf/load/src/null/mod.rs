//! A server whose latencies are known: what a client measures beside them is its own error.
//!
//! One thread, no runtime: it sleeps in `poll` to the nanosecond until a token is due at its absolute time, writes it, and notes
//! when it did. Tokens never drift: each is due at its request's arrival plus what the [`Truth`] says.

mod answer;
mod args;
mod ask;
mod connection;
mod engine;
mod head;
mod ledger;
mod request;
mod routes;
mod truth;

use std::{
    io::{self, PipeWriter},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

pub use args::{NullServerArgs, TruthArgs, serve};
pub use ledger::Sent;
pub use truth::{Freeze, Truth};

use engine::Engine;
use ledger::Ledger;

/// A null server in a thread of this process. Dropped, it ends.
#[derive(Debug)]
pub struct NullServer {
    address: SocketAddr,
    ledger: Arc<Mutex<Ledger>>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl NullServer {
    /// Serves on `listen`.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(truth: Truth, listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (stopped, stop) = io::pipe()?;
        let engine = Engine::new(truth, listener, &stopped, ledger.clone())?;
        let thread = std::thread::Builder::new().name("null-server".to_owned()).spawn(move || {
            // Open for as long as it is watched.
            let _stopped = stopped;
            engine.run()
        })?;
        Ok(Self { address, ledger, stop: Some(stop), thread: Some(thread) })
    }

    /// On a free port of this machine, for this machine.
    ///
    /// # Errors
    /// There is none.
    pub fn on_loopback(truth: Truth) -> io::Result<Self> {
        Self::start(truth, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As a base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was sent since this was last asked for, as far as it is kept.
    pub fn take_sent(&self) -> Vec<Sent> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Until it fails, which it only does when the kernel refuses it something.
    ///
    /// # Errors
    /// That.
    pub fn join(mut self) -> io::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(io::Error::other("the null server's thread panicked")),
        }
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
