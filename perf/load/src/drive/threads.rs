//! The threads that speak to the server.

use std::{
    future::Future,
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::Event;
use crate::{
    clock::thread_cpu,
    http::{Pool, Server},
};

/// Runtimes of one thread each. Dropped, they end, and so does all that they were doing.
#[derive(Debug)]
pub(super) struct Threads {
    each: Vec<Each>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Each {
    handle: Handle,
    thread: JoinHandle<()>,
    pool: Arc<Pool>,
}

/// For all connections that are opened ahead.
const PATIENCE: Duration = Duration::from_secs(5);

impl Threads {
    pub(super) fn start(number: usize, server: &Arc<Server>) -> io::Result<Self> {
        let mut this = Self { each: Vec::new(), stop: CancellationToken::new() };
        for number in 0..number.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, stopped) = (runtime.handle().clone(), this.stop.clone());
            let body = move || runtime.block_on(stopped.cancelled());
            let thread = thread::Builder::new().name(format!("load-{number}")).spawn(body)?;
            this.each.push(Each { handle, thread, pool: Arc::new(Pool::new(server.clone())) });
        }
        Ok(this)
    }

    /// Runs what is made of one thread's connections, on that thread: the same for the same `number`.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        number: u32,
        task: impl FnOnce(Arc<Pool>) -> F,
    ) {
        let each = &self.each[number as usize % self.each.len()];
        // Ends with its runtime.
        drop(each.handle.spawn(task(each.pool.clone())));
    }

    /// Opens connections ahead of their use, `number` in all.
    pub(super) fn open_ahead(&self, number: u32) {
        let share = (number as usize).div_ceil(self.each.len());
        let open = |Each { handle, pool, .. }: &Each| {
            let ((tell, told), pool) = (mpsc::sync_channel(1), pool.clone());
            handle.spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, pool.open_ahead(share)).await;
                tell.send(())
            });
            told
        };
        let opening: Vec<_> = self.each.iter().map(open).collect();
        for told in opening {
            let _ = told.recv();
        }
    }

    /// Says so when the run is interrupted.
    pub(super) fn relay(&self, interrupt: CancellationToken, events: mpsc::Sender<Event>) {
        self.spawn(0, async move |_| {
            interrupt.cancelled().await;
            // Nobody listens when the run is over.
            let _ = events.send(Event::Interrupted);
        });
    }

    /// CPU time of all of them.
    pub(super) fn cpu(&self) -> Duration {
        let ask = |Each { handle, .. }: &Each| {
            let (tell, told) = mpsc::sync_channel(1);
            handle.spawn(async move { tell.send(thread_cpu()) });
            told.recv().unwrap_or_default()
        };
        self.each.iter().map(ask).sum()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
        for Each { thread, .. } in self.each.drain(..) {
            let _ = thread.join();
        }
    }
}
