//! The engine's own compute threads.
//!
//! A step of a small model is hundreds of parallel loops of a few microseconds, so a thread that waits for the next loop
//! spins for a while before it sleeps, and nobody waits for a thread that was asleep: tasks are taken from a counter, and
//! a thread that comes late finds the loop closed.

use std::{
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

/// Set in [`Shared::state`] while threads may join the current loop.
const OPEN: u64 = 1 << 16;
/// Threads inside the current loop, beside the caller.
const ACTIVE: u64 = OPEN - 1;
/// Added for each loop, so that a thread tells a new one from one it has left.
const EPOCH: u64 = OPEN << 1;
/// Checks before a waiting thread sleeps: some tens of microseconds, longer than the serial gaps within a step.
const SPINS: u32 = 4_000;

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// A parallel loop: `body(thread, task)` for each task.
#[derive(Clone, Copy)]
struct Loop {
    body: *const Task<'static>,
    tasks: usize,
}

struct Shared {
    state: AtomicU64,
    next: AtomicUsize,
    current: UnsafeCell<Option<Loop>>,
    sleeping: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `current` is written by the caller only while the state is closed with no active thread, and read only by
// threads that joined an open state; the state's acquire and release order the two. The rest is atomics.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `current` is to a `Sync` closure.
unsafe impl Send for Shared {}

/// A pool of compute threads; the calling thread is one of them.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
}

impl Threads {
    /// `count` threads with the caller's, at least one.
    pub(crate) fn new(count: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            current: UnsafeCell::new(None),
            sleeping: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let count = count.clamp(1, 1024);
        let others = (1..count).map(|index| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("compute-{index}"))
                .spawn(move || shared.work(index))
                .expect("the system has a thread left for the compute pool")
        });
        let others = others.collect();
        Self { shared, others }
    }

    /// Threads, with the caller's.
    pub(crate) fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// Runs `body(thread, task)` for each task below `tasks`, in any order and on any thread; returns when all are done.
    /// No two tasks run with the same thread number at the same time.
    ///
    /// # Panics
    /// When a task panics.
    pub(crate) fn run(&mut self, tasks: usize, body: &Task<'_>) {
        if tasks <= 1 || self.others.is_empty() {
            (0..tasks).for_each(|task| body(0, task));
            return;
        }
        // SAFETY: only the lifetime changes; `close` below (also on unwinding) returns only when no thread uses it.
        let body: *const Task<'static> = unsafe { std::mem::transmute(std::ptr::from_ref(body)) };
        let current = Loop { body, tasks };
        // SAFETY: the state is closed and nobody is active, so nobody reads it; `&mut self` excludes other callers.
        unsafe { *self.shared.current.get() = Some(current) };
        self.shared.next.store(0, Ordering::Relaxed);
        let epoch = (self.shared.state.load(Ordering::Relaxed) & !ACTIVE) + EPOCH;
        self.shared.state.store(epoch | OPEN, Ordering::SeqCst);
        let closing = Closing(&self.shared);
        if self.shared.sleeping.load(Ordering::SeqCst) > 0 {
            self.others.iter().for_each(|thread| thread.thread().unpark());
        }
        self.shared.take_tasks(0, current);
        drop(closing);
        assert!(!self.shared.panicked.swap(false, Ordering::Relaxed), "a compute thread panicked");
    }

    /// Cuts `data` into chunks of `chunk_len` (the last may be shorter) and runs `body(index, chunk)` for each.
    pub(crate) fn for_chunks<T: Send>(
        &mut self,
        data: &mut [T],
        chunk_len: usize,
        body: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let len = data.len();
        let base = Pointer(data.as_mut_ptr());
        self.run(len.div_ceil(chunk_len), &|_, index| {
            let start = index * chunk_len;
            // SAFETY: chunks of different indices are disjoint, within `data`, which is borrowed for the whole call,
            // and each index is run once; a borrow that is split over threads by a counter has no safe form.
            let chunk = unsafe { std::slice::from_raw_parts_mut(base.at(start), chunk_len.min(len - start)) };
            body(index, chunk);
        });
    }

    /// Like [`Self::for_chunks`] over two slices at once: `body(index, chunk of a, chunk of b)`. Chunks are whole.
    pub(crate) fn for_chunk_pairs<A: Send, B: Send>(
        &mut self,
        (a, a_len): (&mut [A], usize),
        (b, b_len): (&mut [B], usize),
        body: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        let chunks = a.len() / a_len;
        assert!(a.len() == chunks * a_len && b.len() == chunks * b_len, "whole chunks of both");
        let (a, b) = (Pointer(a.as_mut_ptr()), Pointer(b.as_mut_ptr()));
        self.run(chunks, &|_, index| {
            // SAFETY: as in `for_chunks`: disjoint chunks of a borrowed slice, each taken once.
            let a = unsafe { std::slice::from_raw_parts_mut(a.at(index * a_len), a_len) };
            // SAFETY: as above.
            let b = unsafe { std::slice::from_raw_parts_mut(b.at(index * b_len), b_len) };
            body(index, a, b);
        });
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.others.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// A pointer that tasks share; who uses it says why that is sound.
#[derive(Clone, Copy)]
pub(crate) struct Pointer<T>(pub(crate) *mut T);

// SAFETY: sending a pointer is harmless; its uses carry their own reasons.
unsafe impl<T: Send> Send for Pointer<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Send> Sync for Pointer<T> {}

impl<T> Pointer<T> {
    /// Pointer to element `index`, which the caller keeps within the allocation.
    pub(crate) fn at(&self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}

/// Ends a loop on drop: no thread may join, those inside finish.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while state & ACTIVE != 0 {
            // On a machine with fewer free cores than threads the one waited for may need this core.
            if spins < SPINS {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
            spins = spins.saturating_add(1);
            state = self.0.state.load(Ordering::Acquire);
        }
    }
}

impl Shared {
    fn take_tasks(&self, thread: usize, current: Loop) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= current.tasks {
                return;
            }
            // SAFETY: the caller of `run` keeps the closure alive until no thread is active, and this thread is.
            let body = unsafe { &*current.body };
            body(thread, task);
        }
    }

    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(state) = self.wait_for_other_than(seen) {
            seen = state & !(ACTIVE | OPEN);
            if self.join(seen) {
                // SAFETY: joined, so the caller does not write it until this thread leaves.
                let current = unsafe { *self.current.get() };
                let run = || current.into_iter().for_each(|current| self.take_tasks(thread, current));
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                self.state.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Becomes active in the loop `epoch` if it is still open.
    fn join(&self, epoch: u64) -> bool {
        let enter = |state: u64| (state & !ACTIVE == epoch | OPEN).then(|| state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).is_ok()
    }

    /// The state once its epoch is not `seen`; none when the pool stops.
    fn wait_for_other_than(&self, seen: u64) -> Option<u64> {
        let changed = || {
            let state = self.state.load(Ordering::SeqCst);
            (state & !(ACTIVE | OPEN) != seen).then_some(state)
        };
        for _ in 0..SPINS {
            if let Some(state) = changed() {
                return Some(state);
            }
            std::hint::spin_loop();
        }
        // Announce, look again, sleep: a loop opened after the look sees the announcement and wakes this thread.
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(state) = changed() {
                break Some(state);
            }
            std::thread::park();
        };
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        found
    }
}

/// Physical cores that this process may run on: the default number of compute threads.
pub fn physical_cores() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    let mut cores = std::collections::HashSet::new();
    for cpu in 0..4096 {
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        let read = |file: &str| std::fs::read_to_string(format!("{folder}/{file}"));
        match (read("physical_package_id"), read("core_id")) {
            (Ok(package), Ok(core)) => _ = cores.insert((package, core)),
            _ => break,
        }
    }
    if cores.is_empty() { logical } else { logical.min(cores.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_runs_once_whatever_the_number_of_threads() {
        for count in [1, 2, 3, 8] {
            let mut threads = Threads::new(count);
            for tasks in [0, 1, 2, 7, 100] {
                for _ in 0..50 {
                    let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    threads.run(tasks, &|_, task| _ = runs[task].fetch_add(1, Ordering::Relaxed));
                    assert!(
                        runs.iter().all(|n| n.load(Ordering::Relaxed) == 1),
                        "{count} threads, {tasks} tasks"
                    );
                }
            }
        }
    }

    #[test]
    fn sleeping_threads_wake_and_a_panic_reaches_the_caller() {
        let mut threads = Threads::new(3);
        while threads.shared.sleeping.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        let mut data = vec![0usize; 1000];
        threads.for_chunks(&mut data, 7, |index, chunk| chunk.fill(index));
        assert!(data.iter().enumerate().all(|(i, v)| *v == i / 7));
        let panics = catch_unwind(AssertUnwindSafe(|| {
            threads.run(64, &|_, task| assert!(task != 40, "on purpose"));
        }));
        assert!(panics.is_err());
        threads.for_chunks(&mut data, 7, |_, chunk| chunk.fill(1));
        assert_eq!(data.iter().sum::<usize>(), 1000, "the pool works on after a panic");
    }
}
