//! Compiling off the threads that serve: bounded in time and number, and once for each text.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task, time::timeout};

use crate::{
    Grammar, GrammarError, Input, Refusal, Vocabulary,
    cache::Cache,
    compiler::{Compiler, check_length},
};

/// Compiles grammars for one model; clones are handles to the same.
#[derive(Clone)]
pub struct Grammars {
    shared: Arc<Shared>,
}

struct Shared {
    compiler: Compiler,
    cache: Mutex<Cache>,
    /// One permit a grammar being compiled; held to the end, even by one that took too long.
    places: Arc<Semaphore>,
    compiled: AtomicU64,
    reused: AtomicU64,
}

/// Totals since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrammarCounts {
    /// Compiled, or found to be no grammars.
    pub compiled: u64,
    /// Taken from those compiled before.
    pub reused: u64,
    /// Kept now.
    pub kept: usize,
}

/// Grammars compiled at a time; others wait.
const PLACES: usize = 2;
/// Longest that one may take, and longest that one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

impl Grammars {
    /// CPU work, a fraction of a second for a large vocabulary: not for an async thread.
    ///
    /// # Errors
    /// The vocabulary does not allow for grammars.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, GrammarError> {
        let shared = Shared {
            compiler: Compiler::new(vocabulary)?,
            cache: Mutex::default(),
            places: Arc::new(Semaphore::new(PLACES)),
            compiled: AtomicU64::new(0),
            reused: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The grammar of `source`, in llguidance's dialect of Lark.
    ///
    /// # Cancel safety
    /// What was begun is finished, and kept for the next who asks.
    ///
    /// # Errors
    /// [`GrammarError`].
    pub async fn compile(&self, source: &str) -> Result<Grammar, GrammarError> {
        check_length(source)?;
        if let Some(grammar) = self.kept(source) {
            return Ok(grammar);
        }
        let place = timeout(PATIENCE, self.shared.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(GrammarError::Busy) };
        // Somebody may have compiled it meanwhile.
        if let Some(grammar) = self.kept(source) {
            return Ok(grammar);
        }
        let (shared, source) = (self.shared.clone(), Arc::<str>::from(source));
        let compiling = task::spawn_blocking(move || {
            let _place = place;
            shared.compile(&source)
        });
        match timeout(PATIENCE, compiling).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(GrammarError::Invalid("preparing it failed".to_owned())),
            Err(_) => Err(GrammarError::TooSlow { limit: PATIENCE }),
        }
    }

    /// What is wrong with an input of which a grammar was refused; `None`: nothing that could be found in time.
    pub async fn explain(&self, input: Input) -> Option<Refusal> {
        let place = timeout(PATIENCE, self.shared.places.clone().acquire_owned()).await.ok()?.ok()?;
        let shared = self.shared.clone();
        let explaining = task::spawn_blocking(move || {
            let _place = place;
            input.refusal(&shared.compiler)
        });
        timeout(PATIENCE, explaining).await.ok()?.ok()?
    }

    /// Totals now.
    pub fn counts(&self) -> GrammarCounts {
        let shared = &self.shared;
        GrammarCounts {
            compiled: shared.compiled.load(Ordering::Relaxed),
            reused: shared.reused.load(Ordering::Relaxed),
            kept: shared.cache().len(),
        }
    }

    fn kept(&self, source: &str) -> Option<Grammar> {
        let kept = self.shared.cache().get(source)?;
        self.shared.reused.fetch_add(1, Ordering::Relaxed);
        Some(kept)
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grammars").field(&self.counts()).finish()
    }
}

impl Shared {
    fn compile(&self, source: &Arc<str>) -> Result<Grammar, GrammarError> {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let grammar = self.compiler.compile(source)?;
        self.cache().insert(source, grammar.clone());
        Ok(grammar)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
