//! Work that takes a while, away from the tasks that others wait for.

/// What `work` returns; `None` when the runtime ends before it.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
