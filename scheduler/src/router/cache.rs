//! What workers have cached, as they tell it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
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
    /// By tokens: what workers tell, and what is sent to them until they do.
    indexer: Indexer,
    /// By text: what was sent where. Nobody ever confirms it.
    texts: Indexer,
    next: AtomicU32,
    tellers: Tellers,
    /// Who left; bounded by those who came.
    gone: mpsc::UnboundedSender<WorkerId>,
}

/// Takes those who left out of the index.
pub(crate) struct CacheKeeper {
    indexes: [IndexHandle; 2],
    gone: mpsc::UnboundedReceiver<WorkerId>,
}

/// A worker in the index, until it is dropped.
pub(crate) struct Tracked {
    id: WorkerId,
    index: IndexHandle,
    is_teller: AtomicBool,
    tellers: Tellers,
    gone: mpsc::UnboundedSender<WorkerId>,
}

/// Counts those who tell what they have cached.
type Tellers = Arc<AtomicUsize>;

/// A prompt's keys for each block size that workers have, by its tokens and by its text.
pub(super) struct Prompt {
    tokens: Vec<PromptKeys>,
    text: Option<PromptKeys>,
}

impl Prompt {
    /// The keys of the smallest blocks that its tokens have; of its text, where those are not known.
    pub(super) fn finest(&self) -> Option<&PromptKeys> {
        self.tokens.iter().min_by_key(|keys| keys.block_tokens()).or(self.text.as_ref())
    }
}

/// Tokens of a block, where workers do not say otherwise.
const USUAL_BLOCK: u32 = 16;
/// Numbers of text in a block; the larger, the fewer are looked at.
const TEXT_BLOCK: u32 = 64;
/// What was sent somewhere counts for so long, if it is known by its text only: a server that is in use forgets it in minutes.
const TEXT_SECONDS: u64 = 600;
/// Of the memory for the index, the share for texts.
const TEXT_SHARE: usize = 8;

impl CacheIndex {
    /// An empty one, and who keeps it. What is guessed counts for `limits.guess_seconds`, unless it is known by text only.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(crate) fn start(limits: IndexLimits) -> std::io::Result<(Self, CacheKeeper)> {
        let for_texts = limits.bytes / TEXT_SHARE;
        let indexer = Indexer::start(IndexLimits { bytes: limits.bytes - for_texts, ..limits })?;
        let texts = Indexer::start(IndexLimits { bytes: for_texts, guess_seconds: TEXT_SECONDS })?;
        let (gone, left) = mpsc::unbounded_channel();
        let keeper = CacheKeeper { indexes: [indexer.handle(), texts.handle()], gone: left };
        Ok((Self { indexer, texts, next: AtomicU32::new(0), tellers: Tellers::default(), gone }, keeper))
    }

    /// From now on what this worker tells counts; `None`: the index is full or has ended, and says so in the log.
    pub(crate) async fn track(&self, worker: &str, spec: WorkerSpec) -> Option<Arc<Tracked>> {
        let id = WorkerId(self.next.fetch_add(1, Ordering::Relaxed));
        let index = self.indexer.handle();
        let text_spec = WorkerSpec { model: spec.model.clone(), block_tokens: TEXT_BLOCK, same_hashes: None };
        let added = match self.texts.handle().add(id, text_spec).await {
            Ok(Ok(())) => index.add(id, spec).await,
            refused => refused,
        };
        match added {
            Ok(Ok(())) => Some(Arc::new(Tracked {
                id,
                index,
                is_teller: AtomicBool::new(false),
                tellers: self.tellers.clone(),
                gone: self.gone.clone(),
            })),
            Ok(Err(error)) => {
                tracing::error!(worker, %error, "this worker's cache is not looked at");
                None
            }
            Err(Ended) => None,
        }
    }

    /// Whether anybody tells what they have cached: if not, the tokens of a prompt say nothing that its text does not.
    pub(crate) fn has_tellers(&self) -> bool {
        self.tellers.load(Ordering::Relaxed) > 0
    }

    /// Of what is known by tokens, and by text.
    pub(crate) fn stats(&self) -> [IndexStats; 2] {
        [&self.indexer, &self.texts]
            .map(|indexer| indexer.handle().reader().read(baton_kv_index::Index::stats))
    }

    /// Keys of a prompt, at every block size that there is; before there is any, at the usual one, by which the record of traffic knows it.
    pub(super) fn prompt(&self, scope: &Scope<'_>, tokens: &[u32], text: &[u32]) -> Prompt {
        let mut sizes: Vec<u32> = self.indexer.handle().reader().read(|index| index.block_sizes().collect());
        if sizes.is_empty() {
            sizes.push(USUAL_BLOCK);
        }
        let keys = |size| PromptKeys::new(scope, size, tokens);
        Prompt {
            tokens: if tokens.is_empty() { Vec::new() } else { sizes.into_iter().map(keys).collect() },
            text: (!text.is_empty()).then(|| PromptKeys::new(scope, TEXT_BLOCK, text)),
        }
    }

    /// What each worker has of a prompt, by the slot that `slot_of` knows it by.
    pub(super) fn cached(
        &self,
        prompt: &Prompt,
        slot_of: impl Fn(u32) -> Option<usize>,
        cached: &mut Vec<Cached>,
    ) {
        let (mut by_tokens, mut by_text) = (Matches::default(), Matches::default());
        let handle = self.indexer.handle();
        handle.reader().read(|index| prompt.tokens.iter().for_each(|keys| index.query(keys, &mut by_tokens)));
        if let Some(keys) = &prompt.text {
            self.texts.handle().reader().read(|index| index.query(keys, &mut by_text));
        }
        cached.clear();
        for found in by_tokens.found().iter().chain(by_text.found()) {
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
        if let Some(keys) = prompt.tokens.iter().find(|keys| keys.block_tokens() == block_tokens) {
            self.indexer.handle().guess(WorkerId(worker), keys.clone());
        }
        if let Some(keys) = &prompt.text {
            self.texts.handle().guess(WorkerId(worker), keys.clone());
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
            for index in &self.indexes {
                if index.remove(worker).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Tracked {
    pub(crate) fn id(&self) -> WorkerId {
        self.id
    }

    /// For who listens to what the worker publishes.
    pub(crate) fn index(&self) -> IndexHandle {
        self.note_teller();
        self.index.clone()
    }

    fn note_teller(&self) {
        if !self.is_teller.swap(true, Ordering::Relaxed) {
            self.tellers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Its number in the index.
    pub(crate) fn number(&self) -> u32 {
        self.id.0
    }

    /// A report of the worker. `begins`: it has nothing but what this and those after it say.
    pub(crate) async fn told(&self, begins: bool, batch: Bytes) {
        self.note_teller();
        // An index that has ended needs no telling.
        let _ = self.index.told(self.id, begins, batch).await;
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if *self.is_teller.get_mut() {
            self.tellers.fetch_sub(1, Ordering::Relaxed);
        }
        let _ = self.gone.send(self.id);
    }
}
