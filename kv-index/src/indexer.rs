//! The thread that owns an index's writing side.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    AddError, BatchReader, Index, IndexLimits, IndexReader, IndexWriter, PromptKeys, Slices, WorkerId,
    WorkerSpec, share,
    subscribe::{Health, WorkerStatus},
};

/// Commands between subscribers and the thread.
const QUEUE: usize = 4096;
/// Kibibytes of batches among them; who has more waits, and its worker's publisher keeps or drops what follows.
const QUEUED_KIB: u32 = 64 << 10;
/// Without work the thread looks at its clock so often.
const TICK: Duration = Duration::from_secs(1);

/// An index with its thread, which ends with this.
pub struct Indexer {
    handle: IndexHandle,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// Asks an index's thread; clones ask the same.
#[derive(Clone)]
pub struct IndexHandle {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    reader: IndexReader,
    guesses_dropped: Arc<AtomicU64>,
}

/// The index's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the KV index has ended")]
pub struct Ended;

pub(crate) enum Command {
    Add { worker: WorkerId, spec: WorkerSpec, done: oneshot::Sender<Result<(), AddError>> },
    Remove(WorkerId),
    Clear(WorkerId),
    Guess { worker: WorkerId, prompt: PromptKeys },
    Batch { worker: WorkerId, payload: Bytes, status: Arc<WorkerStatus>, _room: OwnedSemaphorePermit },
    Mark { status: Arc<WorkerStatus>, health: Health },
}

impl Indexer {
    /// Starts a thread with an empty index.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(limits: IndexLimits) -> std::io::Result<Self> {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (writer, reader) = share(Index::new(limits));
        let end = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let until = end.clone();
        let thread = std::thread::Builder::new().name("kv-index".to_owned()).spawn(move || {
            let thread =
                Thread { writer, batches: BatchReader::default(), began: Instant::now(), seconds: 0 };
            runtime.block_on(async {
                tokio::select! {
                    () = until.cancelled() => {}
                    () = thread.run(queue) => {}
                }
            });
        })?;
        let room = Arc::new(Semaphore::new(QUEUED_KIB as usize));
        let handle = IndexHandle { commands, room, reader, guesses_dropped: Arc::default() };
        Ok(Self { handle, end, thread: Some(thread) })
    }

    /// To ask it.
    pub fn handle(&self) -> IndexHandle {
        self.handle.clone()
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the KV index has panicked");
        }
    }
}

impl IndexHandle {
    /// To query it; an index whose thread has ended stays as it was.
    pub fn reader(&self) -> &IndexReader {
        &self.reader
    }

    /// [`Index::add`], after all that was asked before.
    ///
    /// # Errors
    /// As there, within; or the thread has ended.
    pub async fn add(&self, worker: WorkerId, spec: WorkerSpec) -> Result<Result<(), AddError>, Ended> {
        let (done, added) = oneshot::channel();
        self.send(Command::Add { worker, spec, done }).await?;
        added.await.map_err(|_| Ended)
    }

    /// [`Index::remove`], after all that was asked before.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn remove(&self, worker: WorkerId) -> Result<(), Ended> {
        self.send(Command::Remove(worker)).await
    }

    /// [`Index::clear`], after all that was asked before.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn clear(&self, worker: WorkerId) -> Result<(), Ended> {
        self.send(Command::Clear(worker)).await
    }

    /// [`Index::guess`]; never waits. A guess for which the queue has no room is dropped and counted.
    pub fn guess(&self, worker: WorkerId, prompt: PromptKeys) {
        if self.commands.try_send(Command::Guess { worker, prompt }).is_err() {
            self.guesses_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Guesses that were dropped.
    pub fn guesses_dropped(&self) -> u64 {
        self.guesses_dropped.load(Ordering::Relaxed)
    }

    /// A batch of events that came another way than by a [`Subscriber`](crate::Subscriber): in order, and without gaps. `begins`: the
    /// worker has nothing but what this batch and those after it say. Waits when there is no room.
    ///
    /// # Errors
    /// The thread has ended.
    pub async fn told(&self, worker: WorkerId, begins: bool, payload: Bytes) -> Result<(), Ended> {
        if begins {
            self.clear(worker).await?;
        }
        self.batch(worker, payload, Arc::default()).await
    }

    /// A batch of events, when there is room for it.
    pub(crate) async fn batch(
        &self,
        worker: WorkerId,
        payload: Bytes,
        status: Arc<WorkerStatus>,
    ) -> Result<(), Ended> {
        let kib = (payload.len() >> 10).min(QUEUED_KIB as usize - 1) as u32 + 1;
        let room = self.room.clone().acquire_many_owned(kib).await.map_err(|_| Ended)?;
        self.send(Command::Batch { worker, payload, status, _room: room }).await
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), Ended> {
        self.commands.send(command).await.map_err(|_| Ended)
    }
}

struct Thread {
    writer: IndexWriter,
    batches: BatchReader,
    began: Instant,
    seconds: u64,
}

impl Thread {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        loop {
            let command = match queue.try_recv() {
                Ok(command) => Some(command),
                Err(mpsc::error::TryRecvError::Disconnected) => return,
                Err(mpsc::error::TryRecvError::Empty) => {
                    self.batches.flush(&mut &mut self.writer);
                    if self.writer.maintain() {
                        // Long work must notice that it is to end.
                        tokio::task::yield_now().await;
                        None
                    } else {
                        match timeout(TICK, queue.recv()).await {
                            Ok(Some(command)) => Some(command),
                            Ok(None) => return,
                            Err(_) => None,
                        }
                    }
                }
            };
            self.tick();
            if let Some(command) = command {
                self.obey(command);
                tokio::task::coop::consume_budget().await;
            }
        }
    }

    fn tick(&mut self) {
        let now = self.began.elapsed().as_secs();
        if now != self.seconds {
            self.seconds = now;
            (&mut self.writer).write(|index| index.advance(now));
        }
    }

    fn obey(&mut self, command: Command) {
        let mut writer = &mut self.writer;
        match command {
            Command::Batch { worker, payload, status, _room } => {
                match self.batches.take(&mut writer, worker, &payload) {
                    Ok(report) => status.applied(&report),
                    Err(error) => {
                        tracing::warn!(worker = worker.0, %error, "the worker's cache counts as empty from here on");
                        self.batches.flush(&mut writer);
                        writer.write(|index| index.clear(worker));
                        status.unreadable();
                    }
                }
                return;
            }
            Command::Mark { status, health } => return status.set(health),
            _ => self.batches.flush(&mut writer),
        }
        match command {
            Command::Add { worker, spec, done } => {
                // Whoever asked may have gone.
                let _ = done.send(writer.write(|index| index.add(worker, &spec)));
            }
            Command::Remove(worker) => writer.write(|index| index.remove(worker)),
            Command::Clear(worker) => writer.write(|index| index.clear(worker)),
            Command::Guess { worker, prompt } => {
                let mut first = Some(0);
                while let Some(from) = first {
                    first = writer.write(|index| index.guess(worker, &prompt, from));
                }
            }
            Command::Batch { .. } | Command::Mark { .. } => {}
        }
    }
}
