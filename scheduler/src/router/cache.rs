//! What workers have cached, as they tell it.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use baton_kv_index::{
    Ended, IndexHandle, IndexLimits, IndexStats, Indexer, Matches, PromptKeys, Scope, WorkerId, WorkerSpec,
};
use baton_policy::view::Cached;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The index of cached prefixes, and who is in it.
pub(crate) struct CacheIndex {
    indexer: Indexer,
    next: AtomicU32,
    /// Who left; bounded by those who came.
    gone: mpsc::UnboundedSender<WorkerId>,
}

/// Takes those who left out of the index.
pub(crate) struct CacheKeeper {
    index: IndexHandle,
    gone: mpsc::UnboundedReceiver<WorkerId>,
}

/// A worker in the index, until it is dropped.
pub(crate) struct Tracked {
    id: WorkerId,
    index: IndexHandle,
    gone: mpsc::UnboundedSender<WorkerId>,
}

/// A prompt's keys for each block size that workers have, by its tokens and by its text.
pub(super) struct Prompt {
    tokens: Vec<PromptKeys>,
    text: Option<PromptKeys>,
}

/// Numbers of text in a block; the larger, the fewer are looked at.
const TEXT_BLOCK: u32 = 64;
/// Sets keys of text apart from those of tokens.
const TEXT: &str = "\0text";

impl CacheIndex {
    /// An empty one, and who keeps it.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(crate) fn start(limits: IndexLimits) -> std::io::Result<(Self, CacheKeeper)> {
        let indexer = Indexer::start(limits)?;
        let (gone, left) = mpsc::unbounded_channel();
        let keeper = CacheKeeper { index: indexer.handle(), gone: left };
        Ok((Self { indexer, next: AtomicU32::new(0), gone }, keeper))
    }

    /// From now on what this worker tells counts; `None`: the index is full or has ended, and says so in the log.
    pub(crate) async fn track(&self, worker: &str, spec: WorkerSpec) -> Option<Arc<Tracked>> {
        let id = WorkerId(self.next.fetch_add(1, Ordering::Relaxed));
        let index = self.indexer.handle();
        match index.add(id, spec).await {
            Ok(Ok(())) => Some(Arc::new(Tracked { id, index, gone: self.gone.clone() })),
            Ok(Err(error)) => {
                tracing::error!(worker, %error, "this worker's cache is not looked at");
                None
            }
            Err(Ended) => None,
        }
    }

    pub(crate) fn stats(&self) -> IndexStats {
        self.indexer.handle().reader().read(baton_kv_index::Index::stats)
    }

    /// Keys of a prompt, at every block size that there is.
    pub(super) fn prompt(&self, scope: &Scope<'_>, tokens: &[u32], text: &[u32]) -> Prompt {
        let sizes: Vec<u32> = self.indexer.handle().reader().read(|index| index.block_sizes().collect());
        let keys = |size| PromptKeys::new(scope, size, tokens);
        let text_scope = Scope { model: TEXT, ..*scope };
        Prompt {
            tokens: if tokens.is_empty() { Vec::new() } else { sizes.into_iter().map(keys).collect() },
            text: (!text.is_empty()).then(|| PromptKeys::new(&text_scope, TEXT_BLOCK, text)),
        }
    }

    /// What each worker has of a prompt, by the slot that `slot_of` knows it by.
    pub(super) fn cached(
        &self,
        prompt: &Prompt,
        slot_of: impl Fn(u32) -> Option<usize>,
        cached: &mut Vec<Cached>,
    ) {
        let mut matches = Matches::default();
        let handle = self.indexer.handle();
        let keys = prompt.tokens.iter().chain(&prompt.text);
        handle.reader().read(|index| keys.for_each(|keys| index.query(keys, &mut matches)));
        cached.clear();
        for found in matches.found() {
            let Some(slot) = slot_of(found.worker.0) else { continue };
            if cached.len() <= slot {
                cached.resize(slot + 1, Cached::default());
            }
            // A guess is as good as what was told: it is where the request that made it has gone.
            let [gpu, host, disk, guessed] = found.tokens;
            let all = Cached { device_tokens: gpu + guessed, host_tokens: host, disk_tokens: disk };
            if all.tokens() > cached[slot].tokens() {
                cached[slot] = all;
            }
        }
    }

    /// The prompt will be at `worker`, it is thought.
    pub(super) fn guess(&self, worker: u32, block_tokens: u32, prompt: &Prompt) {
        let tokens = prompt.tokens.iter().find(|keys| keys.block_tokens() == block_tokens);
        for keys in tokens.into_iter().chain(&prompt.text) {
            self.indexer.handle().guess(WorkerId(worker), keys.clone());
        }
    }
}

impl CacheKeeper {
    /// Until `stop`, or until the index is gone.
    pub(crate) async fn keep(mut self, stop: CancellationToken) {
        loop {
            let worker = tokio::select! {
                worker = self.gone.recv() => worker,
                () = stop.cancelled() => return,
            };
            let Some(worker) = worker else { return };
            if self.index.remove(worker).await.is_err() {
                return;
            }
        }
    }
}

impl Tracked {
    pub(crate) fn id(&self) -> WorkerId {
        self.id
    }

    pub(crate) fn index(&self) -> IndexHandle {
        self.index.clone()
    }

    /// Its number in the index.
    pub(crate) fn number(&self) -> u32 {
        self.id.0
    }

    /// A report of the worker. `begins`: it has nothing but what this and those after it say.
    pub(crate) async fn told(&self, begins: bool, batch: Bytes) {
        // An index that has ended needs no telling.
        let _ = self.index.told(self.id, begins, batch).await;
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let _ = self.gone.send(self.id);
    }
}
