//! Work that takes a while, away from the tasks that others wait for.

/// What `work` returns; `None` when the runtime ends before it.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    #[cfg(test)]
    if let Some(net) = crate::sim::net() {
        return Some(crate::sim::slowly(net, work).await);
    }
    tokio::task::spawn_blocking(work).await.ok()
}
