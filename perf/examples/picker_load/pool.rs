//! A fleet in a file, whose metrics pages are one server's.

use std::{fmt::Write as _, path::Path};

use axum::{Router, routing::get};
use tokio::net::TcpListener;

/// Servers that exist in name and load only: no request is sent to them.
pub(crate) struct Pool {
    file: tempfile::NamedTempFile,
}

const PAGE: &str = "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"m\"} 0.0\n\
    # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"m\"} 4.0\n\
    # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{model_name=\"m\"} 0.3\n\
    # TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"200000\"} 1.0\n";

impl Pool {
    pub(crate) async fn start(workers: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let page = listener.local_addr()?;
        let app = Router::new().fallback(get(async || PAGE));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let mut text = String::from("endpoints:\n");
        for worker in 0..workers {
            let (high, low) = (worker / 250, worker % 250 + 1);
            let _ = writeln!(
                text,
                "- name: server-{worker}\n  address: 127.0.{high}.{low}:9\n  metrics-address: {page}"
            );
        }
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        Ok(Self { file })
    }

    /// Its file.
    pub(crate) fn file(&self) -> &Path {
        self.file.path()
    }
}
